"""What a gate on past windows would have blocked, over its whole range of tolerances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cl_lib.errors import InputError, nearest
from cl_lib.service.history import history_of
from cl_lib.validation import check_whole, is_number, is_whole

if TYPE_CHECKING:
    from cl_lib.record import Record


@dataclass(frozen=True, eq=False)
class GateCurve:
    """Shares of updates that a gate refuses, one value for each of K tolerances.

    Attributes
    ----------
    tolerances : ndarray
        In the unit of the loss, ascending.
    blocked : ndarray
        Share of the harmful updates that are refused; NaN where none is harmful.
    refused : ndarray
        Share of the good updates that are refused; NaN where none is good.
    harmful, good : int
        Numbers of updates of both kinds.
    """

    tolerances: np.ndarray
    blocked: np.ndarray
    refused: np.ndarray
    harmful: int
    good: int

    def at(self, tolerance: float) -> tuple[float, float]:
        """Shares blocked and refused at a tolerance between those given: that of the next smaller one."""
        place = int(np.searchsorted(self.tolerances, tolerance, side="right")) - 1
        if place < 0:
            return 1.0, 1.0
        return float(self.blocked[place]), float(self.refused[place])


def gate_curve(
    record: Record,
    metric: str = "nll",
    delay: int = 0,
    tolerances: Sequence[float] | None = None,
    *,
    start: int | None = None,
    until: int | None = None,
) -> GateCurve:
    """Judge a gate by whether the updates that it refuses would have been harmful.

    Before each window w the candidate is row ``c = w - delay - 1``, which would replace row ``c - 1``. Neither was
    trained on window c, whose labels are known. The gate refuses the candidate if its loss on window c exceeds that of
    row ``c - 1`` by more than the tolerance. The update is harmful if it would not have lowered the loss on window w.

    Parameters
    ----------
    record : Record
    metric : {"nll", "error", "brier"}
    delay : int, default 0
        Windows that labels are late.
    tolerances : sequence of float, optional
        In the unit of the loss, negative ones demand a gain. Default: all at which the decisions change, and 0.
    start, until : int, optional
        First window that is served, and the one before which to stop; default: all.

    Returns
    -------
    GateCurve

    Raises
    ------
    InputError
        For a record that is not one of windows in time, and for options out of range.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2)
    >>> curve = gate_curve(record, tolerances=[0.0, 100.0])
    >>> curve.harmful + curve.good, curve.blocked.tolist()[1], curve.refused.tolist()[1]
    (6, 0.0, 0.0)
    """
    history = history_of(record)
    if metric not in history.losses:
        raise InputError(f"metric={metric!r}: unknown{nearest(metric, history.losses)}")
    check_whole("delay", delay, 0)
    low, last = delay + 3, history.windows if until is None else until
    first = low if start is None else start
    if is_whole(first):
        first = max(first, low)  # before it there is no candidate
    if not is_whole(first) or not is_whole(last) or not first < last <= history.windows:
        raise InputError(
            f"delay={delay}, start={start}, until={until}: leaves no update that could be tested; the first is before "
            f"window {low} of {history.windows}"
        )
    for value in [] if tolerances is None else tolerances:
        if not is_number(value) or np.isnan(value):
            raise InputError(f"tolerances: {value!r} is not a number")
    losses = history.losses[metric]
    windows = np.arange(first, last)
    candidate = windows - delay - 1
    new, old = losses[:, candidate, candidate], losses[:, candidate - 1, candidate]
    excess = np.where(np.isnan(new), np.inf, np.where(np.isnan(old), -np.inf, new - old))  # NaN: a diverged model
    new, old = losses[:, candidate, windows], losses[:, candidate - 1, windows]
    harmful = ~((new < old) | (np.isnan(old) & ~np.isnan(new)))
    limits = np.sort(_changes(excess) if tolerances is None else np.asarray(tolerances, float))
    refused = excess[..., None] > limits
    counts = int(harmful.sum()), int((~harmful).sum())
    return GateCurve(limits, _share(refused, harmful), _share(refused, ~harmful), *counts)


def _changes(excess: np.ndarray) -> np.ndarray:
    finite = excess[np.isfinite(excess)]
    return np.unique([0.0, *finite.tolist(), float(finite.min(initial=0.0)) - 1e-9])


def _share(refused: np.ndarray, among: np.ndarray) -> np.ndarray:
    count = among.sum()
    total = (refused & among[..., None]).sum((0, 1))
    return np.asarray(total / count if count else np.full(refused.shape[-1], np.nan))
