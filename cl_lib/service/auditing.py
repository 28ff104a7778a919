"""Audit of updates: which predictions changed, and which slices lost accuracy though the whole did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cl_lib.errors import InputError, nearest
from cl_lib.service.flips import Flips, compare
from cl_lib.validation import check_choice, is_whole

if TYPE_CHECKING:
    from cl_lib.record import Record


@dataclass(frozen=True, eq=False)
class Audit:
    """Audits of U updates in R replicas.

    Attributes
    ----------
    updates : list of tuple
        Rows before and after each update, and the windows that both are compared on.
    labels : dict
        Names of the slices of each metadata column.
    whole : list of lists of Flips
        ``[update][replica]``.
    by_slice : list of lists of dict of Flips
    alpha : float
    """

    updates: list[tuple[int, int, list[int]]]
    columns: list[str]
    labels: dict[str, list[str]]
    whole: list[list[Flips]]
    by_slice: list[list[dict[str, Flips]]]
    alpha: float = 0.05

    def flags(self, name: str) -> np.ndarray:
        """``(R, U, S)`` bool, slices that lost accuracy while the whole did not."""
        return self._stack(name, "flagged")

    def drops(self, name: str) -> np.ndarray:
        """``(R, U, S)`` loss of accuracy of each slice."""
        return self._stack(name, "drop")

    def _stack(self, name: str, part: str) -> np.ndarray:
        size = len(self.labels[name])
        out = np.full((len(self.whole[0]), len(self.updates), size), np.nan)
        for u, replicas in enumerate(self.by_slice):
            for r, flips in enumerate(replicas):
                values = getattr(flips[name], part)
                out[r, u, : len(values)] = values
        return np.nan_to_num(out).astype(bool) if part == "flagged" else out

    def __repr__(self) -> str:
        return f"Audit({len(self.updates)} updates, {len(self.whole[0])} replicas, by {', '.join(self.labels)})"

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(audit: Audit, most: int = 30) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("update", "tested on", "slice", "n", "neg. flips", "pos. flips", "drop", "detectable", "adj. p", "flagged")
    ]
    flagged: list[tuple[float, tuple[str, ...]]] = []
    for u, (row, after, windows) in enumerate(audit.updates):
        place = audit.columns[windows[0]] if len(windows) == 1 else f"{len(windows)} windows"
        head = (f"{row} → {after}", place)
        rows.append((*head, "all", *_means(audit.whole[u], 0, audit)))
        for name, labels in audit.labels.items():
            for s, label in enumerate(labels):
                parts = [flips[name] for flips in audit.by_slice[u] if s < len(flips[name].count)]
                share = np.mean([flips.flagged[s] for flips in parts]) if parts else 0
                if share > 0:
                    flagged.append((-share, (*head, f"{name} {label}", *_means(parts, s, audit))))
    if len(rows) > most + 1:
        rows = [*rows[: most + 1], (f"… {len(rows) - most - 1} more updates", *[""] * 9)]
    rows += [line for _, line in sorted(flagged, key=lambda pair: pair[0])[:most]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not flagged:
        lines.append("no slice lost accuracy significantly while the whole did not")
    elif len(flagged) > most:
        lines.append(f"… {len(flagged) - most} more flagged slices")
    lines.append(
        f"neg./pos. flips: predictions that became wrong/correct, means of {len(audit.whole[0])} replicas; detectable: "
        "smallest drop that would be found with probability 0.8; adj. p: one-sided McNemar test, adjusted over slices; "
        "flagged: share of replicas"
    )
    return lines


def _means(parts: Sequence[Flips], s: int, audit: Audit) -> tuple[str, ...]:
    known = [flips for flips in parts if flips.count[s]] or list(parts)  # without replicas that had diverged before

    def mean(name: str) -> float:
        return float(np.mean([getattr(flips, name)[s] for flips in known]))

    values = f"{mean('count'):.0f}", f"{mean('negative'):.1f}", f"{mean('positive'):.1f}", f"{mean('drop'):+.4f}"
    return (*values, f"{mean('detectable'):.4f}", f"{mean('adjusted'):.3g}", f"{mean('flagged'):.2f}")


def audit(
    record: Record,
    by: str | Sequence[str] = (),
    *,
    row: int | None = None,
    against: int | None = None,
    on: Literal["next", "seen", "all"] = "next",
    alpha: float = 0.05,
) -> Audit:
    """Audit the updates of a record for silent decay: predictions that became wrong, as a whole and by slice.

    Parameters
    ----------
    record : Record
        Of a run with ``save_predictions=True``.
    by : str or sequence of str
        Metadata columns, "class"; default: all of the record.
    row, against : int, optional
        The model after the update and the one before; default: all rows from 2 on, each against the row before.
    on : {"next", "seen", "all"}
        Windows that models are compared on: the next one, which neither was trained on (updates without one are left
        out), those that the older model was trained on, or all.
    alpha : float, default 0.05
        Share of false discoveries among flagged slices.

    Returns
    -------
    Audit
        Prints as a table.

    Raises
    ------
    InputError
        For a record without predictions, and for columns or rows that do not exist.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=4)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2, save_predictions=True)
    >>> audit(record, "class")
    Audit(2 updates, 2 replicas, by class)
    """
    predictions = record.predictions
    if predictions is None:
        raise InputError("record: has no predictions; run with save_predictions=true")
    if not record.arrays:
        raise InputError(f"record {record.strategy}: has no arrays.npz; copy it together with its record")
    if not isinstance(by, Sequence):
        raise InputError(f"by={by!r}: must be a column or a list of columns")
    names = [by] if isinstance(by, str) else list(by) or predictions.names
    for name in names:
        if name not in predictions.names:
            raise InputError(f"by={name!r}: the record has no such column{nearest(str(name), predictions.names)}")
    check_choice("on", on, ("next", "seen", "all"))
    last = len(record.rows) - 1
    for name, value in (("row", row), ("against", against)):
        if value is not None and (not is_whole(value) or not 1 <= value <= last):
            raise InputError(f"{name}={value!r}: must be a row from 1 to {last}")
    pairs = (
        [(i - 1, i) for i in range(2, last + 1)] if row is None else [(row - 1 if against is None else against, row)]
    )
    if row is None and against is not None:
        pairs = [(against, i) for i in range(against + 1, last + 1)]
    codes = {name: predictions.slices(name) for name in names}
    updates, whole, by_slice = [], [], []
    for before, after in pairs:
        windows = windows_of(record, before, after, on)
        if not windows or before < 1:
            continue
        place = np.concatenate([predictions.positions[w] for w in windows])
        was, now = predictions.correct(before)[:, place], predictions.correct(after)[:, place]
        alive = np.isfinite(record.arrays["matrix.accuracy"][:, before][:, windows]).all(-1)
        parts = []
        for a, b, known in zip(was, now, alive, strict=True):
            counted = slice(None) if known else slice(0)  # without a model before there is nothing to lose
            chosen = {name: code[place][counted] for name, code in codes.items()}
            parts.append(compare(a[counted], b[counted], chosen, alpha))
        updates.append((before, after, windows))
        whole.append([part[0] for part in parts])
        by_slice.append([part[1] for part in parts])
    if not updates:
        raise InputError(
            f"record {record.strategy}: {f'row {row}' if row is not None else 'it'} has no update with windows to "
            f"compare on (on={on})"
        )
    labels = {name: [str(label) for label in record.slices[name]["labels"]] for name in names}
    return Audit(updates, [str(c) for c in record.stream["columns"]], labels, whole, by_slice, alpha)


def windows_of(record: Record, before: int, after: int, on: str) -> list[int]:
    """Positions of the windows that two rows are compared on."""
    columns = range(len(record.stream["columns"]))
    first, learned = record.arrays["before"][0], record.arrays["learned"][0]
    older, newer = min(before, after), max(before, after)
    if on == "all":
        return list(columns)
    if on == "seen":
        return [c for c in columns if learned[c] <= older]
    untrained = [c for c in columns if first[c] >= newer]
    return untrained[:1]
