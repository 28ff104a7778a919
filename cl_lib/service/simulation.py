"""A model in service, simulated from its record: which row serves which window, at what loss and cost."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.errors import InputError, nearest
from cl_lib.policies.history import WindowHistory
from cl_lib.policies.policy import Policy, float_fields
from cl_lib.policies.walk import walk
from cl_lib.service.backtest import Backtest, Tuned
from cl_lib.service.bounds import best_schedules, random_schedules
from cl_lib.service.history import history_of
from cl_lib.validation import check_choice, check_whole, is_number, is_whole

if TYPE_CHECKING:
    from cl_lib.record import Record

METRICS = ("nll", "error", "brier")


def backtest(
    record: Record,
    policy: Policy | Tuned,
    *,
    delay: int = 0,
    metric: str = "nll",
    grid: Mapping[str, Sequence[float]] | None = None,
    start: int | None = None,
    until: int | None = None,
) -> Backtest:
    """Simulate how a policy would have served the windows of a record.

    The record holds the loss of every row (the model after each window) on every window, so a policy is a path through
    this matrix: before each window it chooses a row that was trained by then. Nothing is trained. For strategies that
    train each window from a fixed start (`FromScratch`) this is exact; for others it is the regime in which a model is
    trained on all windows and released by decision. `cl_lib.run` with ``policy=`` trains only what the policy asks for.

    Parameters
    ----------
    record : Record
        Of a stream by time (`streams.by_column`) with ``eval_every=1``; several policies need predictions
        (``save_predictions=True``).
    policy : Policy or Tuned
    delay : int, default 0
        Windows that labels are late. Before window w the newest row is ``w - delay``.
    metric : {"nll", "error", "brier"}
        The loss that is reported and compared.
    grid : dict, optional
        ``{"effect": [0.05, 0.1]}``: values of float fields of the policy, crossed; all points are simulated at once
        and results get a leading axis of G points.
    start : int, optional
        First window that is served, from 0, by the newest row; default: the first with a trained row, ``delay + 1``, or
        the first that the policy was not tuned on.
    until : int, optional
        Window before which to stop; default: all windows.

    Returns
    -------
    Backtest
        Prints as a table.

    Raises
    ------
    InputError
        For a record that is not one of windows in time or whose run had a policy that declined updates, a delay that
        leaves no window, a policy that chooses a row that is not trained yet, or scoring on windows that the policy was
        tuned on.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=3)
    >>> result = backtest(record, cl_lib.policies.Every(2))
    >>> result.path[0].tolist(), result.updates.tolist()
    ([1, 1, 3, 3, 5], [2, 2, 2])
    """
    if not hasattr(record, "arrays"):
        raise InputError(f"record={record!r}: must be a record; read that of a directory with cl_lib.Record.load")
    history = history_of(record)
    served = record.arrays.get("served")
    if served is not None and (served != np.arange(served.shape[1])).any():
        raise InputError(
            f"record {record.strategy}: is of a run with policy={record.job['policy']['name']}, in which rows after "
            "declined updates are the model that served; backtest a run without policy"
        )
    tuned = policy if isinstance(policy, Tuned) else None
    chosen: Any = tuned.policy if tuned is not None else policy
    if tuned is not None:
        data = record.stream["data_hash"]
        for what, used, now in (("delay", tuned.delay, delay), ("data", tuned.data, data)):
            if used is not None and used != now:
                raise InputError(f"{what}={now}: the policy was tuned with {what}={used}; tune it again")
    first, last = _bounds(history, delay, start, until, tuned)
    check_choice("metric", metric, METRICS)
    points, population = grid_of(chosen, grid)
    if population.needs_predictions and record.predictions is None:
        raise InputError(
            f"policy: {type(chosen).__name__} needs predictions, which the record of {record.strategy} has not; run "
            "with save_predictions=true"
        )
    shape = (len(points), len(history.seeds)) if grid else (len(history.seeds),)
    path, alarms = walk(history, population, delay, first, last, shape)
    replicas, windows = np.arange(len(history.seeds)), np.arange(first, last)
    table = history.losses[metric]
    losses = _deployed(table, delay, first, last)
    before = np.concatenate([path[..., :1], path[..., :-1]], -1)
    return Backtest(
        policy=chosen,
        points=points if grid else [],
        delay=delay,
        metric=metric,
        windows=[str(record.stream["columns"][w]) for w in windows],
        first=first,
        path=path,
        loss=table[replicas[:, None], path, windows],
        always=table[:, windows - delay, windows],
        kept=table[replicas[:, None], before, windows],
        alarms=alarms,
        random_loss=random_schedules(losses),
        oracle_loss=best_schedules(losses),
        deployed=losses,
        labels=_labels(history, population, path, delay, last),
        steps=_steps(record, population, path, delay, last),
    )


def grid_of(policy: Any, grid: Mapping[str, Sequence[float]] | None) -> tuple[list[dict[str, float]], Policy]:
    """Points of a grid, and the checked policy whose fields hold all of them as arrays ``(G, 1)``."""
    if not isinstance(policy, Policy):
        raise InputError(f"policy={policy!r}: must be a cl_lib.policies.Policy")
    policy.check()
    if grid is None or not grid:
        return [{}], policy
    if not isinstance(grid, Mapping):
        raise InputError(f"grid={grid!r}: must map fields to lists of numbers, such as {{'effect': [0.05, 0.1]}}")
    known = float_fields(policy)
    for name, values in grid.items():
        if name not in known:
            raise InputError(f"grid.{name}: {type(policy).__name__} has no such float field{nearest(str(name), known)}")
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or not len(values):
            raise InputError(f"grid.{name}={values!r}: must be a list of at least one number")
        for value in values:
            if not is_number(value):
                raise InputError(f"grid.{name}: {value!r} is not a number")
            dataclasses.replace(policy, **{name: value}).check()  # type: ignore[type-var]
    points = [dict(zip(grid, map(float, values), strict=True)) for values in itertools.product(*grid.values())]
    fields = {name: np.array([[point[name]] for point in points]) for name in grid}
    return points, dataclasses.replace(policy, **fields)  # type: ignore[type-var]


def _bounds(
    history: WindowHistory, delay: Any, start: int | None, until: int | None, tuned: Tuned | None
) -> tuple[int, int]:
    """First window served and the one after the last."""
    windows = history.windows
    check_whole("delay", delay, 0)
    if delay + 2 >= windows:
        raise InputError(f"delay={delay}: leaves no decision with {windows} windows; at most {max(windows - 3, 0)}")
    last = windows if until is None else until
    first = max(delay + 1, tuned.until if tuned is not None else 0) if start is None else start
    for name, value, low, high in (("start", first, delay + 1, windows - 2), ("until", last, first + 2, windows)):
        if not is_whole(value) or not low <= value <= high:
            raise InputError(f"{name}={value}: must be a window from {low} to {high}")
    if tuned is not None and first < tuned.until:
        raise InputError(
            f"start={first}: the policy was tuned on the windows before {tuned.until}; score it from there on"
        )
    return first, last


def _deployed(table: np.ndarray, delay: int, first: int, last: int) -> np.ndarray:
    """``(R, n + 1, n + 1)``: loss on each window of the newest model at each time of deployment; NaN before it."""
    rows = np.arange(first - delay, last - delay)
    losses = table[:, rows][:, :, first:last].copy()
    losses[:, *np.tril_indices(len(rows), -1)] = np.nan
    return losses


def _labels(history: WindowHistory, policy: Policy, path: np.ndarray, delay: int, last: int) -> np.ndarray:
    """Labelled test samples: of all windows if decisions read them, or up to the last deployed model."""
    total = np.concatenate([[0], np.cumsum(history.support)])
    return np.full(path.shape[:-1], total[last - 1 - delay]) if policy.reads_labels else np.asarray(total[path.max(-1)])


def _steps(record: Record, policy: Policy, path: np.ndarray, delay: int, last: int) -> np.ndarray:
    """Training steps: of all windows if decisions read candidates, else of the last window of each deployed row."""
    window = np.diff(record.arrays["step"], axis=1)  # (R, T)
    if policy.candidates:
        return np.broadcast_to(window[:, : last - 1 - delay].sum(1), path.shape[:-1]).copy()
    updated = np.concatenate([path[..., :1] > 0, np.diff(path, axis=-1) > 0], -1)
    return np.asarray(np.where(updated, window[np.arange(len(window))[:, None], path - 1], 0).sum(-1))
