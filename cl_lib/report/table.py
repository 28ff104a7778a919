"""Records as text and as frames."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cl_lib.errors import printable
from cl_lib.record import Metric, Record
from cl_lib.report.compare import find_baseline, notes, paired, span
from cl_lib.report.entries import Entry, entries
from cl_lib.report.glossary import METRICS
from cl_lib.stats import PairedDifference, holm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_text", "comparison", "notes", "summary"]

NULL = "–"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# what a narrow terminal shows first
ORDER = ("seeds", "accuracy", "difference", "p (Holm)", "forgetting", "ECE", "worst class", "seconds")


def summary(record: Record, width: int | None = None) -> str:
    """What a terminal shows after a run.

    Parameters
    ----------
    record : Record
    width : int, optional
        Columns of the terminal, into which longer lines are broken.

    Returns
    -------
    str
        Strategy, stream and seeds; every metric with standard deviation and 95 % interval, or why there is none; a
        line for each grid point; diverged replicas; seconds.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> print(summary(cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2)).splitlines()[0])
    er on split_digits: class-incremental, 5 experiences, 10 classes, data digits
    """
    out = [f"{record.strategy} on {describe(record)}", _setup(record), ""]
    if record.grid:
        out += [as_text(comparison([record]), min(width or 120, 120)), ""]
    else:
        out += [*_metrics(record), ""]
        if lost := [replica for replica in record.replicas if replica["status"] != "ok"]:
            out.append(f"{len(lost)} of {len(record.replicas)} replicas diverged: {_named(lost)}")
    cost, many = record.cost, "s" if record.cost["replicas"] != 1 else ""
    out.append(
        f"{seconds(cost['training_seconds'])} s of training"
        + (f" ({seconds(made)} s of them tracing and compiling)" if (made := cost.get("preparation_seconds")) else "")
        + f", {seconds(cost['evaluation_seconds'])} s of evaluation, "
        f"{seconds(cost['planning_seconds'])} s of planning for {cost['replicas']} replica{many} "
        f"on {record.environment['device']}"
    )
    out += [f"note: {note}" for note in notes([record])] if record.grid else []
    return broken(printable("\n".join(out)), width)


def broken(text: str, width: int | None) -> str:
    """A text whose lines are no longer than ``width``.

    >>> print(broken("two words", 5))
    two
        words
    """
    if width is None:
        return text
    room = max(width, 20)
    out: list[str] = []
    for line in text.split("\n"):
        out += textwrap.wrap(line, room, subsequent_indent="    ") if len(line) > room else [line]
    return "\n".join(out)


def comparison(records: Sequence[Record], baseline: str | None = None) -> pd.DataFrame:
    """A row for each record, or for each of its grid points.

    Parameters
    ----------
    records : sequence of Record
    baseline : str, optional
        Label to compare with; default the first.

    Returns
    -------
    DataFrame
        All text. ``label``, ``seeds`` (those that did not diverge, of all), the metrics as ``mean ± std [low, high]``,
        ``difference`` in accuracy to the baseline over common seeds, its exact ``p`` and ``p (Holm)`` over all rows,
        ``seconds`` of training (the row's share of the run's) and ``memory`` of a replica.

    Raises
    ------
    InputError
        Without a record, or when the baseline is none of the labels.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> records = [cl_lib.run(stream, s, seeds=2) for s in (cl_lib.strategies.Finetune(), cl_lib.strategies.ER())]
    >>> comparison(records)[["label", "seeds", "p"]]
          label seeds         p
    0  finetune     2  baseline
    1        er     2       0.5
    """
    import pandas as pd

    lines = entries(records)
    base = find_baseline(lines, baseline)
    differences = paired(lines, base)
    corrected = holm([None if d is None else d.p_value for d in differences])
    rows = []
    for entry, difference, p in zip(lines, differences, corrected, strict=True):
        fallback = "baseline" if entry is base else NULL
        cost = entry.record.cost
        rows.append(
            {
                "label": entry.label,
                "seeds": _healthy(entry),
                **{term.title: spread(entry.metrics.get(name)) for name, term in METRICS.items()},
                "difference": _difference(difference) or fallback,
                "p": _p(difference.p_value if difference else None) or fallback,
                "p (Holm)": _p(p) or fallback,
                "seconds": seconds(cost["training_seconds"] * entry.share),
                "memory": size(cost["memory_bytes"]),
            }
        )
    return pd.DataFrame(rows)


def as_text(frame: pd.DataFrame, width: int = 100) -> str:
    """A comparison for a terminal: as many columns, the weightiest first, as ``width`` characters hold.

    Examples
    --------
    >>> import pandas as pd
    >>> print(as_text(pd.DataFrame({"label": ["er"], "accuracy": ["0.914 ± 0.022 [0.900, 0.926]"], "BWT": ["-0.1"]})))
    label                     accuracy
    er    0.914 ± 0.022 [0.900, 0.926]
    """
    narrow = frame.copy()
    for name in narrow.columns.difference(["label", "accuracy", "difference"]):
        narrow[name] = narrow[name].str.split(" [", regex=False).str[0]  # intervals only where they decide
    most = max(width - 24, 8)  # the rest is for seeds and accuracy
    narrow["label"] = [label if len(label) <= most else label[: most - 1] + "…" for label in narrow["label"]]
    pad = max(map(len, narrow["label"]), default=0)
    if width < pad + 40:
        for name in {"accuracy", "difference"} & {*narrow.columns}:
            narrow[name] = narrow[name].str.split(" [", regex=False).str[0]
    narrow.insert(0, "label".ljust(pad), narrow.pop("label").str.ljust(pad))  # text reads best flush left
    room, chosen = width, [narrow.columns[0]]
    for name in [name for name in ORDER if name in narrow.columns]:
        room -= 1 + max(len(name), *map(len, narrow[name]))
        if room >= pad or len(chosen) < 3:
            chosen.append(name)
    text = narrow[chosen].to_string(index=False, max_colwidth=None)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def describe(record: Record) -> str:
    """A stream in a line."""
    s = record.stream
    sizes = f"{s['experiences']} experiences, {s['classes']} classes"
    return f"{s['name']}: {s['scenario']}-incremental, {sizes}, data {s['data']}"


def _healthy(entry: Entry) -> str:
    every, lost = len(entry.members), len(entry.diverged)
    return f"{every - lost} of {every}" if lost else str(every)


def _setup(record: Record) -> str:
    job, count = record.job, len(record.seeds)
    on = "test" if job.get("eval_on", "test") == "test" else "validation"
    epochs, many = job.get("epochs", 1), len(record.grid)
    grid = f" x {many} grid point{'s' if many != 1 else ''}" if many else ""
    return (
        f"{count} seed{'s' if count != 1 else ''} ({span(record.seeds)}){grid}, "
        f"{epochs} epoch{'s' if epochs != 1 else ''}, evaluated on {on} data "
        f"over {record.stream['eval_classes']} classes"
    )


def _metrics(record: Record) -> list[str]:
    out = [f"  {'':<18}{'mean ± std':<17} 95 % interval"]
    for name, term in METRICS.items():
        metric = record.metrics.get(name)
        if metric is not None:
            value, _, interval = spread(metric).partition(" [")
            rest = f"[{interval}" if interval else "(one seed)" if metric.n == 1 else metric.reason or ""
            out.append(f"  {term.title:<18}{value:<17} {rest}".rstrip())
    return out


def _named(replicas: Sequence[dict[str, Any]]) -> str:
    more = f" and {len(replicas) - 10} more" if len(replicas) > 10 else ""
    return ", ".join(f"seed {r['seed']} (step {r['diverged_at']})" for r in replicas[:10]) + more


# ---------------------------------------------------------------------- numbers as text
def number(value: float, sign: bool = False) -> str:
    """Three decimals, without a negative zero.

    >>> number(0.12345), number(-0.0001), number(0.5, sign=True), number(123456.0)
    ('0.123', '0.000', '+0.500', '1.23e+05')
    """
    if abs(value) >= 1000:
        return f"{value:{'+' if sign else ''}.3g}"
    return f"{round(value, 3) + 0.0:{'+' if sign else ''}.3f}"


def bounds(interval: Sequence[float], sign: bool = False) -> str:
    """``[low, high]``."""
    return f"[{number(interval[0], sign)}, {number(interval[1], sign)}]"


def spread(metric: Metric | None) -> str:
    """``mean ± std [low, high]``, as far as they are known."""
    if metric is None or metric.mean is None:
        return NULL
    std = "" if metric.std is None else f" ± {number(metric.std)}"
    return number(metric.mean) + std + ("" if metric.ci95 is None else f" {bounds(metric.ci95)}")


def seconds(value: float | None) -> str:
    """Two significant digits below a minute.

    >>> seconds(0.0434), seconds(12.3), seconds(4321.0), seconds(None)
    ('0.043', '12', '4,321', '–')
    """
    if value is None:
        return NULL
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(count: float | None) -> str:
    """Bytes in binary units.

    >>> size(0), size(44000), size(3 * 2**30), size(None)
    ('0 B', '43 KiB', '3.0 GiB', '–')
    """
    if count is None:
        return NULL
    power = min(4, max(0, int(count).bit_length() - 1) // 10)
    value = count / 1024**power
    return f"{value:.1f} {'KMGT'[power - 1]}iB" if power and value < 10 else f"{value:.0f} {UNITS[power]}"


def _difference(difference: PairedDifference | None) -> str:
    if difference is None or difference.mean is None:
        return ""
    interval = "" if difference.ci95 is None else f" {bounds(difference.ci95, sign=True)}"
    return number(difference.mean, sign=True) + interval


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
