"""Self-contained HTML reports on any number of records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cl_lib.errors import InputError, printable
from cl_lib.files import write_text
from cl_lib.record import Record, text
from cl_lib.record.glossary import METRICS, SLICES
from cl_lib.record.text import NULL, span
from cl_lib.report import table
from cl_lib.report.bars import slice_bars
from cl_lib.report.canvas import style
from cl_lib.report.compare import find_baseline, notes, paired
from cl_lib.report.entries import Entry, entries
from cl_lib.report.plots import accuracy_matrices, over_time, reliability_diagrams
from cl_lib.report.prose import paragraphs
from cl_lib.stats import holm

MARK = b'<meta name="generator" content="cl_lib">'
DRAWN = 12  # maximum number of entries in figures; tables show all
MAIN = ("accuracy", "forgetting", "bwt", "ece", "worst_class_accuracy")


class Figures(NamedTuple):
    """Figures of one stream; ``slices`` by name."""

    heading: str
    matrices: str
    time: str
    reliability: str
    slices: dict[str, str]


def write_report(
    records: Sequence[Record], path: str | Path, *, title: str | None = None, baseline: str | None = None
) -> Path:
    """Write a self-contained HTML file with results, tables, figures, and commands that reproduce every run.

    Parameters
    ----------
    records : sequence of Record
        In the order of their rows in the report.
    path : path
        Regular file to write. It is written atomically and replaces an existing file.
    title : str, optional
    baseline : str, optional
        Label of the entry to compare with. Default: the first entry.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    InputError
        If there is no record, the baseline is unknown, or the file cannot be written.

    Examples
    --------
    >>> import cl_lib, tempfile
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report([record], f"{folder}/report.html").name
    'report.html'
    """
    path = check_target(path, replace=True)
    html = page(records, title=title, baseline=baseline)
    return write_text(path, html)


def check_target(path: str | Path, replace: bool = False) -> Path:
    """Raise `InputError` if no report can be written there; without ``replace``, only a report may be replaced."""
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a directory; name a file, such as {path / 'report.html'}")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path}: is not a regular file; name another file")
        if path.exists() and not path.stat().st_mode & 0o222:
            raise InputError(f"{path}: is read-only; name another file")
        if path.exists() and not replace and not _is_report(path):
            raise InputError(f"{path}: is not a report of cl-report and is not overwritten; name another file")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        beginning = file.read(4096)
        file.seek(-min(4096, path.stat().st_size), os.SEEK_END)
        return MARK in beginning or b"<footer>Written by cl_lib " in file.read()  # earlier reports had no mark


def page(records: Sequence[Record], *, title: str | None = None, baseline: str | None = None) -> str:
    """Render the page that `write_report` writes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from cl_lib._version import __version__

    lines = entries(records)
    base = find_baseline(lines, baseline)
    differences = paired(lines, base)
    corrected = holm([None if d is None else d.p_value for d in differences])
    loader = PackageLoader("cl_lib", "report")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = jinja.get_template("template.html").render(
        title=title or _title(records),
        paragraphs=paragraphs(lines, base, differences, corrected),
        lines=lines,
        base=base,
        rows=table.comparison(records, baseline).to_dict("records"),
        notes=notes(records, baseline),
        figures=_figures(lines[:DRAWN]),
        drawn=min(DRAWN, len(lines)),
        metrics=METRICS,
        main=[METRICS[name] for name in MAIN],
        meanings=SLICES,
        colour=lambda number: style(number).colour,
        facts=_facts(records),
        cost=[_cost(entry) for entry in lines],
        replicas=[_replicas(entry) for entry in lines],
        runs=[_run(record, [e.label for e in lines if e.record is record]) for record in records],
        environment=_shared([(_name(r, lines), _plain(r.environment, "command")) for r in records]),
        version=__version__,
    )
    return printable(html)


def _title(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(record.strategy for record in records))
    streams = list(dict.fromkeys(record.stream["name"] for record in records))
    short = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{short} on {', '.join(streams[:3])}{' …' if len(streams) > 3 else ''}"


def _figures(lines: Sequence[Entry]) -> list[Figures]:
    """Draw the figures of each stream separately, since different streams cannot share an axis."""
    streams: dict[tuple[str, str, tuple[str, ...]], list[Entry]] = {}
    for entry in lines:
        stream = entry.record.stream
        streams.setdefault((stream["name"], stream["data_hash"], tuple(stream["columns"])), []).append(entry)
    out = []
    for (name, _, _), shown in streams.items():
        sliced = [set(entry.slices()) for entry in shown]
        names = [n for n in shown[0].record.slices if all(n in known for known in sliced)]
        bars = {n: figure for n in names if (figure := slice_bars(shown, n))}
        heading = name if len(streams) > 1 else ""
        out.append(Figures(heading, accuracy_matrices(shown), over_time(shown), reliability_diagrams(shown), bars))
    return out


def _facts(records: Sequence[Record]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Stream, optimiser and other settings of the runs; one value where all records agree."""
    lines = entries(records)
    out = []
    for record in records:
        stream, job = record.stream, record.job
        facts = {
            "stream": text.describe(record),
            "data hash": stream["data_hash"],
            "stream options": _listing(stream.get("options") or {}),
            "classes in the softmax": f"{stream['train_classes']} in training, {stream['eval_classes']} at test time",
            "evaluated on": f"{job.get('eval_on', 'test')} data, {len(record.rows)} times",
            "seeds": span(record.seeds),
            "epochs, batch size": f"{job.get('epochs', NULL)}, {job.get('batch_size', NULL)}",
            "optimiser": _listing(job.get("optim") or {}),
            "grid": _listing(job.get("grid") or {}) or "none",
        }
        out.append((_name(record, lines), facts))
    return _shared(out)


def _cost(entry: Entry) -> dict[str, str]:
    cost, share = entry.record.cost, entry.share
    rate, preparation = cost.get("samples_per_second"), cost.get("preparation_seconds")
    return {
        "training": f"{text.seconds(cost['training_seconds'] * share)} s",
        "of which tracing, compiling": f"{text.seconds(preparation * share)} s" if preparation is not None else NULL,
        "evaluation": f"{text.seconds(cost['evaluation_seconds'] * share)} s",
        "planning": f"{text.seconds(cost['planning_seconds'] * share)} s",
        "replicas": str(len(entry.members)),
        "steps per replica": f"{cost['steps']:,.0f}",
        "samples per second": f"{rate:,.0f}" if rate else NULL,
        "parameters": f"{cost['parameters']:,}" if cost["parameters"] is not None else NULL,
        "memory per replica": text.size(cost["memory_bytes"]),
        "peak device memory": text.size(cost["peak_device_memory_bytes"]),
    }


def _replicas(entry: Entry) -> list[dict[str, str]]:
    scores = {name: entry.metrics[name].per_seed for name in ("accuracy", "forgetting", "ece")}
    return [
        {
            "seed": str(replica["seed"]),
            "status": "ok" if replica["status"] == "ok" else f"diverged at step {replica['diverged_at']}",
            **{k: NULL if v[i] is None else text.number(v[i] or 0.0) for k, v in scores.items()},
        }
        for i, replica in enumerate(entry.replicas)
    ]


def _run(record: Record, labels: Sequence[str]) -> dict[str, str]:
    from omegaconf import OmegaConf

    config = dict(record.config)
    # shown separately, since a network's description contains line breaks, which YAML would escape
    model = config.pop("model") if isinstance(config.get("model"), str) else record.job.get("model", "")
    return {
        "labels": ", ".join(labels[:4]) + (" …" if len(labels) > 4 else ""),
        "command": str(record.environment.get("command") or NULL),
        "config": OmegaConf.to_yaml(OmegaConf.create(config)),
        "model": str(model),
    }


def _name(record: Record, lines: Sequence[Entry]) -> str:
    shown = [entry.label for entry in lines if entry.record is record]
    return shown[0] if len(shown) == 1 else f"{record.strategy} (grid)"


def _plain(values: Mapping[str, Any], *without: str) -> dict[str, str]:
    return {k: str(v) for k, v in values.items() if k not in without}


def _shared(columns: Sequence[tuple[str, Mapping[str, str]]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each key, one unnamed value if all columns agree, else (name, value) pairs."""
    out = []
    for key in dict.fromkeys(k for _, shown in columns for k in shown):
        values = [(name, shown.get(key, NULL)) for name, shown in columns]
        out.append((key, values if len({v for _, v in values}) > 1 else [("", values[0][1])]))
    return out


def _listing(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={_listed(v)}" for k, v in values.items())


def _listed(value: Any) -> str:
    return f"({_listing(value)})" if isinstance(value, Mapping) else str(value)
