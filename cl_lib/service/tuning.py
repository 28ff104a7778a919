"""Thresholds of policies, chosen on the first windows and scored on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cl_lib.errors import InputError
from cl_lib.policies.policy import Policy
from cl_lib.service.backtest import Tuned
from cl_lib.service.simulation import backtest
from cl_lib.validation import check_choice, check_whole

if TYPE_CHECKING:
    from cl_lib.record import Record


def tune(
    record: Record,
    policy: Policy,
    grid: Mapping[str, Sequence[float]],
    until: int,
    *,
    delay: int = 0,
    metric: str = "nll",
    by: str = "skill",
) -> Tuned:
    """Choose the point of a grid that does best on the first windows.

    Parameters
    ----------
    record : Record
    policy : Policy
    grid : dict
        As in `backtest`.
    until : int
        Number of windows used.
    delay, metric
        As in `backtest`.
    by : {"skill", "loss"}
        Mean over replicas of the skill (undefined is worst; where it is undefined at all points, the loss decides), or
        of the loss, which favours many updates. Of equal points the first is chosen.

    Returns
    -------
    Tuned

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=8)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2)
    >>> tune(record, cl_lib.policies.OnDecay(), {"rise": [0.1, 1.0, 10.0]}, until=5, by="loss").policy
    OnDecay(rise=0.1, metric='nll')
    """
    check_choice("by", by, ("skill", "loss"))
    check_whole("until", until, 3)
    if not grid:
        raise InputError("grid={}: tuning needs at least one value of one field")
    result = backtest(record, policy, delay=delay, metric=metric, grid=grid, until=until)
    values = result.skill if by == "skill" and np.isfinite(result.skill).any() else -result.mean_loss
    known = np.isfinite(values)
    score = np.where(known.any(-1), np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1), -np.inf)
    point = result.points[int(score.argmax())]
    chosen = dataclasses.replace(policy, **point)  # type: ignore[type-var]
    return Tuned(chosen, until, delay, record.stream["data_hash"])
