"""Comparison of entries with a baseline: comparability, paired differences and notes on their interpretation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_lib.errors import InputError, printable
from cl_lib.record import Record
from cl_lib.record.glossary import METRICS
from cl_lib.record.text import span
from cl_lib.report.entries import Entry, entries
from cl_lib.stats import PERMUTATIONS, PairedDifference, paired_difference, unreachable_note

FEW = 6  # with fewer seeds, bootstrap intervals are much too narrow


def find_baseline(lines: Sequence[Entry], baseline: str | None) -> Entry:
    """Find the entry with this label, or the only one with this directory name or strategy; default: the first entry.

    Raises
    ------
    InputError
        If there is no such entry; the message lists the labels.
    """
    if baseline is None:
        return lines[0]
    for name in (
        lambda e: e.label,
        lambda e: Path(e.record.directory).name,
        lambda e: e.record.strategy,
    ):
        matches = [entry for entry in lines if name(entry) == baseline]
        if len(matches) == 1:
            return matches[0]
    raise InputError(f"baseline={baseline!r}: no such entry; choose one of {', '.join(e.label for e in lines)}")


def paired(lines: Sequence[Entry], base: Entry) -> list[PairedDifference | None]:
    """Paired accuracy differences to the baseline over common seeds; None for the baseline and incomparable entries."""
    out: list[PairedDifference | None] = []
    reference = base.per_seed("accuracy")
    for entry in lines:
        if entry is base or _incomparable(entry.record, base.record):
            out.append(None)
            continue
        accuracy = entry.per_seed("accuracy")
        common = [seed for seed in accuracy if seed in reference]
        out.append(paired_difference([accuracy[s] for s in common], [reference[s] for s in common]))
    return out


def notes(records: Sequence[Record], baseline: str | None = None) -> list[str]:
    """Notes that a reader needs in order to interpret the comparison.

    Parameters
    ----------
    records : sequence of Record
    baseline : str, optional
        Label of an entry. Default: the first entry.

    Returns
    -------
    list of str
        Differences in settings between the runs, diverged replicas, limits of small numbers of seeds, estimated
        p-values, grids evaluated on test data, and undefined metrics with their reasons.

    Raises
    ------
    InputError
        If there is no record or the baseline is unknown.
    """
    lines = entries(records)
    base = find_baseline(lines, baseline)
    differences = paired(lines, base)
    sentences = [
        *_dissimilar(records, lines, base),
        *_diverged(lines),
        *_seeds(lines, differences),
        *_grids(records),
        *_nulls(lines),
    ]
    return [printable(note, one_line=True) for note in sentences]


def _incomparable(a: Record, b: Record) -> list[str]:
    """Properties in which two records differ so that their results cannot be compared."""
    out = []
    for name, key in (
        ("stream", "name"),
        ("data", "data"),
        ("data hash", "data_hash"),
        ("slice columns", "column_hash"),
        ("mean", "mean"),
        ("std", "std"),
        ("eval_classes", "eval_classes"),
    ):
        known = key in a.stream and key in b.stream  # records of 0.1.0 do not have all of them
        if known and a.stream[key] != b.stream[key]:
            out.append(f"{name} ({a.stream.get(key)}, not {b.stream.get(key)})")
    if not out and (a.stream.get("options"), a.stream["columns"]) != (b.stream.get("options"), b.stream["columns"]):
        out.append(f"options of the stream ({_changed(a.stream.get('options'), b.stream.get('options'))})")
    if a.job.get("eval_on") != b.job.get("eval_on"):
        out.append(f"eval_on ({a.job.get('eval_on')}, not {b.job.get('eval_on')})")
    return out


def _network(record: Record) -> Any:
    """Fingerprint of the first seed's network; records of version 0.1.0 do not have it."""
    return record.job.get("network")


def _settings(a: Record, b: Record) -> list[str]:
    """Settings other than the strategy in which two records differ."""
    out = []
    if a.seeds != b.seeds:
        common = len(set(a.seeds) & set(b.seeds))
        out.append(f"seeds ({span(a.seeds)}, not {span(b.seeds)}; {common} in common)")
    for name in ("epochs", "batch_size", "dtype"):
        if a.job.get(name) != b.job.get(name):
            out.append(f"{name} ({a.job.get(name)}, not {b.job.get(name)})")
    if a.stream.get("train_classes") != b.stream.get("train_classes"):
        out.append(f"train_classes ({a.stream.get('train_classes')}, not {b.stream.get('train_classes')})")
    if [r["experience"] for r in a.rows] != [r["experience"] for r in b.rows]:
        out.append(f"evaluations ({len(a.rows)} rows, not {len(b.rows)})")
    if a.job.get("model") != b.job.get("model"):
        sizes = [f"{r.cost['parameters']:,} parameters" if r.cost.get("parameters") else "unknown" for r in (a, b)]
        out.append("model" + (f" ({sizes[0]}, not {sizes[1]})" if sizes[0] != sizes[1] else ""))
    elif a.seeds[0] == b.seeds[0] and _network(a) is not None and _network(b) not in (None, _network(a)):
        out.append("initial weights or forward of the model")
    # a grid varies the optimiser on purpose, and its points are labelled with it
    varied = {name.split(".", 1)[1] for r in (a, b) for name in r.job.get("grid", {}) if name.startswith("optim.")}
    first, other = ({k: v for k, v in (r.job.get("optim") or {}).items() if k not in varied} for r in (a, b))
    if first != other:
        out.append(f"optimiser ({_changed(first, other)})")
    return out


def _dissimilar(records: Sequence[Record], lines: Sequence[Entry], base: Entry) -> list[str]:
    names = {id(r): listed([e.label for e in lines if e.record is r]) for r in records}
    groups: dict[str, list[str]] = {}
    for record in records:
        if record is base.record:
            continue
        if changed := _incomparable(record, base.record):
            text = f"cannot be compared with {base.label}: different {', '.join(changed)}; no difference is given"
        elif changed := _settings(record, base.record):
            text = f"ran with settings that differ from those of {base.label}: {', '.join(changed)}"
            text += "; a difference may be due to these rather than to the strategy"
        else:
            continue
        groups.setdefault(text, []).append(names[id(record)])
    return [f"{listed(labels)} {text}." for text, labels in groups.items()]


def _diverged(lines: Sequence[Entry]) -> list[str]:
    out = []
    for entry in lines:
        if diverged := entry.diverged:
            named = listed([f"seed {r['seed']} at step {r['diverged_at']}" for r in diverged], 5)
            all_diverged = len(diverged) == len(entry.members)
            scope = "no metric is defined" if all_diverged else "metrics are over the remaining replicas"
            out.append(
                f"{entry.label}: {len(diverged)} of {len(entry.members)} replicas diverged (their weights are not "
                f"finite; {named}); {scope}."
            )
    return out


def _seeds(lines: Sequence[Entry], differences: Sequence[PairedDifference | None]) -> list[str]:
    out = []
    tested = [(entry, d) for entry, d in zip(lines, differences, strict=True) if d is not None and d.n]
    for n in sorted({d.n for _, d in tested}):
        sentence = unreachable_note(n, len(tested))
        if sentence:
            named = [entry.label for entry, d in tested if d.n == n]
            out.append(f"{sentence[0].upper()}{sentence[1:]} ({listed(named)}).")
    counts = {entry.label: entry.metrics["accuracy"].n for entry in lines}
    if single := [label for label, n in counts.items() if n == 1]:
        out.append(f"{listed(single)}: one seed, so standard deviation and interval are undefined.")
    if few := [label for label, n in counts.items() if 1 < n < FEW]:
        out.append(f"{listed(few)}: with fewer than {FEW} seeds, bootstrap 95 % intervals are too narrow.")
    if estimated := [entry.label for entry, d in tested if not d.exact]:
        out.append(
            f"{listed(estimated)}: too many seeds to enumerate all sign patterns, so the p-value is estimated from "
            f"{PERMUTATIONS:,} random sign patterns."
        )
    return out


def _grids(records: Sequence[Record]) -> list[str]:
    tried = [r for r in records if len(r.grid) > 1 and r.job.get("eval_on") == "test"]
    if not tried:
        return []
    return [
        f"{listed(sorted({r.strategy for r in tried}))}: the grid was evaluated on the test data, so the accuracy of "
        "its best point is optimistic; select a point on validation data (eval_on=valid), then report it on test data."
    ]


def _nulls(lines: Sequence[Entry]) -> list[str]:
    missing: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, term in METRICS.items():
        why: dict[str, list[str]] = {}
        for entry in lines:
            metric = entry.metrics.get(name)
            if metric is not None and metric.mean is None and len(entry.diverged) < len(entry.members):
                why.setdefault(metric.reason or "undefined for this run", []).append(entry.label)
        for reason, labels in why.items():
            missing.setdefault((reason, tuple(labels)), []).append(term.title)
    return [
        f"{listed(titles)} {'is' if len(titles) == 1 else 'are'} not given for "
        f"{'any of them' if 1 < len(lines) == len(labels) else listed(labels)}: {reason}."
        for (reason, labels), titles in missing.items()
    ]


def _changed(a: Any, b: Any) -> str:
    """List the options that differ."""
    a, b = a or {}, b or {}
    keys = [k for k in {**a, **b} if a.get(k) != b.get(k)]
    return ", ".join(f"{k}={_short(a.get(k))}, not {_short(b.get(k))}" for k in keys) or "order"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def listed(names: Sequence[str], most: int = 6) -> str:
    """Join names as ``a, b and c``; beyond ``most`` names, the others are only counted."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
