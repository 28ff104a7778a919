"""Which slices carry a change of the error: worse within a slice, or more samples of a bad slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cl_lib.errors import InputError, nearest
from cl_lib.validation import is_whole

if TYPE_CHECKING:
    from cl_lib.record import Record


@dataclass(frozen=True, eq=False)
class Explanation:
    """Decomposition of a change of the error by slice; arrays ``(R, S)`` of replicas and slices.

    ``rate + mix`` summed over the slices is ``change`` ``(R,)``. ``share`` ``(2, S)`` are the shares of each slice in
    the reference and the new window, ``error`` ``(R, 2, S)`` its errors, NaN without samples. ``windows`` are the names
    of these two windows.
    """

    by: str
    labels: tuple[str, ...]
    change: np.ndarray
    rate: np.ndarray
    mix: np.ndarray
    share: np.ndarray
    error: np.ndarray
    row: int
    windows: tuple[str, str]

    def __str__(self) -> str:
        change, order = self.change.mean(), np.argsort(-np.abs(self.rate + self.mix).mean(0))
        width = max(len(self.by), *(len(label) for label in self.labels))
        lines = [
            f"change of the error of row {self.row} from window {self.windows[0]} to {self.windows[1]}: {change:+.4f} "
            f"(mean of {len(self.change)} replicas)",
            f"{self.by:<{width}}  share before  after  error before  after    rate     mix",
        ]
        for s in order[:20]:
            before, after = (f"{v:.4f}" if np.isfinite(v) else "–" for v in self.error.mean(0)[:, s])
            lines.append(
                f"{self.labels[s]:<{width}}  {self.share[0, s]:>12.4f} {self.share[1, s]:>6.4f}  {before:>12} "
                f"{after:>6} {self.rate.mean(0)[s]:+.4f} {self.mix.mean(0)[s]:+.4f}"
            )
        if len(order) > 20:
            lines.append(f"… {len(order) - 20} more")
        return "\n".join(lines)


def decompose(
    count: np.ndarray, wrong: np.ndarray, new_count: np.ndarray, new_wrong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Split the change of an error rate into a rate part and a mix part for each slice.

    With the shares :math:`p_s, p'_s` and errors :math:`e_s, e'_s` of slice s before and after,

    .. math:: E' - E = \sum_s \underbrace{\tfrac{p_s + p'_s}{2} (e'_s - e_s)}_{\text{rate}}
              + \underbrace{(p'_s - p_s) \tfrac{e_s + e'_s}{2}}_{\text{mix}}.

    Where a slice has no samples on one side its error there is taken to be that of the other side: it is all mix.

    Parameters
    ----------
    count, new_count : ndarray
        ``(..., S)`` samples of each slice, at least one in all.
    wrong, new_wrong : ndarray
        ``(..., S)`` wrong predictions.

    Returns
    -------
    rate, mix : ndarray
        ``(..., S)``.

    References
    ----------
    Kitagawa, Components of a difference between two rates, JASA 1955.

    Examples
    --------
    The error of the first slice doubles, and the second, which is always wrong, grows from a tenth to a fifth:

    >>> rate, mix = decompose(np.array([90, 10]), np.array([9, 10]), np.array([80, 20]), np.array([16, 20]))
    >>> rate.round(3), mix.round(3), round(float((rate + mix).sum()), 3)
    (array([0.085, 0.   ]), array([-0.015,  0.1  ]), 0.17)
    """
    p, q = (c / c.sum(-1, keepdims=True) for c in (np.asarray(count, float), np.asarray(new_count, float)))
    with np.errstate(invalid="ignore", divide="ignore"):
        e, f = np.asarray(wrong) / np.asarray(count), np.asarray(new_wrong) / np.asarray(new_count)
    known, later = np.where(np.asarray(count) > 0, e, f), np.where(np.asarray(new_count) > 0, f, e)
    known, later = (np.nan_to_num(part) if not (p + q).all() else part for part in (known, later))
    return (p + q) / 2 * (later - known), (q - p) * (known + later) / 2


def explain(record: Record, row: int, window: int, by: str, reference: int | None = None) -> Explanation:
    """Explain the change of a model's error between two windows by the slices of a metadata column.

    Parameters
    ----------
    record : Record
        Of a run with ``save_predictions=True``.
    row : int
        Row of the accuracy matrix, 1 or more: the model.
    window : int
        Position of the new window among the columns, from 0.
    by : str
        Metadata column, or "class".
    reference : int, optional
        Position of the reference window; default: ``row``, the first window that the model was not trained on, and
        ``row - 1`` if that is the new window.

    Returns
    -------
    Explanation
        Prints as a table.

    Raises
    ------
    InputError
        For a record without predictions, or a row, window or column that does not exist.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=4)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), save_predictions=True)
    >>> result = explain(record, row=1, window=3, by="class", reference=0)
    >>> bool(abs((result.rate + result.mix).sum() - result.change[0]) < 1e-12)
    True
    """
    if record.predictions is None:
        raise InputError("record: has no predictions; run with save_predictions=true")
    columns, known = record.stream["columns"], record.predictions.names
    last = len(columns) - 1
    for name, value, low, high in (
        ("row", row, 1, len(record.rows) - 1),
        ("window", window, 0, last),
        ("reference", 0 if reference is None else reference, 0, last),
    ):
        if not is_whole(value) or not low <= value <= high:
            raise InputError(f"{name}={value!r}: must be a whole number from {low} to {high}")
    if by not in known:
        raise InputError(f"by={by!r}: the record has no such column{nearest(str(by), known)}")
    reference = (row if row < window else row - 1) if reference is None else reference
    codes, positions = record.predictions.slices(by), record.predictions.positions
    labels = tuple(record.slices[by]["labels"])
    correct = record.predictions.correct(row)
    parts = []
    for column in (reference, window):
        place = positions[column]
        count = np.bincount(codes[place], minlength=len(labels)).astype(float)
        wrong = np.array([np.bincount(codes[place], weights=~c[place], minlength=len(labels)) for c in correct])
        parts.append((count, wrong))
    (count, wrong), (new_count, new_wrong) = parts
    rate, mix = decompose(count, wrong, new_count, new_wrong)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.stack([wrong / count, new_wrong / new_count], 1)
    change = new_wrong.sum(-1) / new_count.sum() - wrong.sum(-1) / count.sum()
    share = np.stack([count / count.sum(), new_count / new_count.sum()])
    windows = str(columns[reference]), str(columns[window])
    return Explanation(by, labels, change, rate, mix, share, error, row, windows)
