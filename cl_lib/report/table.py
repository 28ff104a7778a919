"""Comparison of records as a data frame and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cl_lib.errors import printable
from cl_lib.record import Record, text
from cl_lib.record.glossary import METRICS
from cl_lib.record.text import NULL, bounds, number, seconds, size, spread
from cl_lib.report.compare import find_baseline, notes, paired
from cl_lib.report.entries import Entry, entries
from cl_lib.stats import PairedDifference, holm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_text", "comparison", "notes", "summary"]

# columns for a terminal, in decreasing priority
ORDER = ("seeds", "accuracy", "difference", "p (Holm)", "forgetting", "ECE", "worst class", "seconds")


def summary(record: Record, width: int | None = None) -> str:
    """Summary for the terminal: `cl_lib.record.text.summary`, with a comparison of the grid points.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> print(summary(cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2)).splitlines()[0])
    er on split_digits: class-incremental, 5 experiences, 10 classes, data digits
    """
    if not record.grid:
        return text.summary(record, width)
    table = text.summary(record, width, [as_text(comparison([record]), min(width or 120, 120))])
    return "\n".join([table, *(text.broken(printable(f"note: {note}"), width) for note in notes([record]))])


def comparison(records: Sequence[Record], baseline: str | None = None, numeric: bool = False) -> pd.DataFrame:
    """Compare records in a table with one row for each record or grid point.

    Parameters
    ----------
    records : sequence of Record
    baseline : str, optional
        Label of the entry to compare with. Default: the first entry.
    numeric : bool, default False
        Numbers instead of strings.

    Returns
    -------
    DataFrame
        All values are strings: ``label``, ``seeds`` (those that did not diverge, of all), the metrics as
        ``mean ± std [low, high]``, ``difference`` in accuracy to the baseline over common seeds, its ``p`` and
        ``p (Holm)`` over all rows, ``seconds`` of training (the row's share of the run) and ``memory`` per replica.

        With ``numeric``: ``label``; ``seeds`` and ``diverged``; for each metric by its name in the record the mean, and
        with suffixes ``_std``, ``_low`` and ``_high``; ``difference`` with ``_low`` and ``_high``, ``p``, ``p_holm``,
        ``seconds`` and ``memory_bytes``; NaN where there is no number.

    Raises
    ------
    InputError
        If there is no record or the baseline is unknown.

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
    if numeric:
        parts = zip(lines, differences, corrected, strict=True)
        return pd.DataFrame([_numbers(entry, difference, p) for entry, difference, p in parts])
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
    """Format a comparison for a terminal, with the most important columns that fit into ``width`` characters.

    Examples
    --------
    >>> import pandas as pd
    >>> print(as_text(pd.DataFrame({"label": ["er"], "accuracy": ["0.914 ± 0.022 [0.900, 0.926]"], "BWT": ["-0.1"]})))
    label                     accuracy
    er    0.914 ± 0.022 [0.900, 0.926]
    """
    narrow = frame.copy()
    for name in narrow.columns.difference(["label", "accuracy", "difference"]):
        narrow[name] = (
            narrow[name].str.split(" [", regex=False).str[0]
        )  # keep intervals of accuracy and difference only
    most = max(width - 24, 8)  # leave space for seeds and accuracy
    narrow["label"] = [label if len(label) <= most else label[: most - 1] + "…" for label in narrow["label"]]
    pad = max(map(len, narrow["label"]), default=0)
    if width < pad + 40:
        for name in {"accuracy", "difference"} & {*narrow.columns}:
            narrow[name] = narrow[name].str.split(" [", regex=False).str[0]
    narrow.insert(0, "label".ljust(pad), narrow.pop("label").str.ljust(pad))  # labels are left-aligned
    room, chosen = width, [narrow.columns[0]]
    for name in [name for name in ORDER if name in narrow.columns]:
        room -= 1 + max(len(name), *map(len, narrow[name]))
        if room >= pad or len(chosen) < 3:
            chosen.append(name)
    lines = narrow[chosen].to_string(index=False, max_colwidth=None).split("\n")
    return "\n".join(line.rstrip() for line in lines)


def _numbers(entry: Entry, difference: PairedDifference | None, corrected: float | None) -> dict[str, Any]:
    """One row of a numeric comparison."""
    cost = entry.record.cost
    row: dict[str, Any] = {"label": entry.label, "seeds": len(entry.members), "diverged": len(entry.diverged)}
    for name, metric in entry.metrics.items():
        low, high = metric.ci95 or (None, None)
        row |= {name: metric.mean, f"{name}_std": metric.std, f"{name}_low": low, f"{name}_high": high}
    low, high = (difference.ci95 if difference is not None else None) or (None, None)
    row |= {"difference": difference.mean if difference is not None else None}
    row |= {"difference_low": low, "difference_high": high}
    row |= {"p": difference.p_value if difference is not None else None, "p_holm": corrected}
    row |= {"seconds": cost["training_seconds"] * entry.share, "memory_bytes": cost["memory_bytes"]}
    return {name: math.nan if value is None else value for name, value in row.items()}


def _healthy(entry: Entry) -> str:
    total, diverged = len(entry.members), len(entry.diverged)
    return f"{total - diverged} of {total}" if diverged else str(total)


def _difference(difference: PairedDifference | None) -> str:
    if difference is None or difference.mean is None:
        return ""
    interval = "" if difference.ci95 is None else f" {bounds(difference.ci95, sign=True)}"
    return number(difference.mean, sign=True) + interval


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
