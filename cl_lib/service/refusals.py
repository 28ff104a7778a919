"""Updates that a policy asked for and a gate refused, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cl_lib.policies.gated import Gate, Gated, NoSliceDrop, NoWorse
from cl_lib.policies.known import Known
from cl_lib.service.backtest import Backtest
from cl_lib.service.history import history_of

if TYPE_CHECKING:
    from cl_lib.record import Record


class Refusal(NamedTuple):
    """An update that was refused: grid point, replica, position of the window among those served, and the reason."""

    point: int
    replica: int
    window: int
    reason: str


def refusals(record: Record, result: Backtest) -> list[Refusal]:
    """List the updates that a backtest's policy asked for and did not carry out, in the order of the windows.

    Parameters
    ----------
    record : Record
        That of the backtest.
    result : Backtest

    Returns
    -------
    list of Refusal

    Examples
    --------
    >>> import cl_lib
    >>> from cl_lib.policies import Every, Gated, NoWorse
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2)
    >>> result = cl_lib.service.backtest(record, Gated(Every(1), (NoWorse("nll"),)))
    >>> len(refusals(record, result)) == int(result.refused.sum())
    True
    """
    if not result.refused.any():
        return []
    history = history_of(record)
    single = not result.points
    path, refused = (part[None] if single else part for part in (result.path, result.refused))
    updated = result.updated[None] if single else result.updated
    since = np.zeros(path.shape[:2], int)
    out = []
    for w in range(1, path.shape[-1]):
        since = since + 1
        if refused[..., w].any():
            window = result.first + w
            serving = path[..., w - 1]
            known = Known(window, window - result.delay, serving[0] if single else serving, since, history)
            reasons = _reasons(record, result, known)
            for point, replica in np.argwhere(refused[..., w]).tolist():
                out.append(Refusal(point, replica, w, reasons[point][replica]))
        since = np.where(updated[..., w], 0, since)
    return out


def _reasons(record: Record, result: Backtest, known: Known) -> list[list[str]]:
    """For each grid point and replica the gates that refuse."""
    replicas = len(known.seeds)
    points = max(len(result.points), 1)
    found: list[list[list[str]]] = [[[] for _ in range(replicas)] for _ in range(points)]
    policy = result.policy
    if isinstance(policy, Gated):
        candidate = known.newest - policy.staleness
        windows = range(candidate, known.newest)
        names = ", ".join(str(record.stream["columns"][w]) for w in windows)
        for gate in policy.gates:
            allowed = np.broadcast_to(gate.allows(known, candidate, windows), known.shape).reshape(points, replicas)
            measured = _measured(record, gate, known, candidate, windows)
            for point, replica in np.argwhere(~allowed).tolist():
                text = f" ({measured[point * replicas + replica]})" if measured else ""
                found[point][replica].append(f"{gate!r} not met on window {names}{text}")
    return [["; ".join(given) or "the policy kept the model that served" for given in row] for row in found]


def _measured(record: Record, gate: Gate, known: Known, candidate: int, windows: Sequence[int]) -> list[str]:
    """What a gate has measured, for each grid point and replica; empty for gates of other kinds."""
    if isinstance(gate, NoWorse):
        weight = np.array([known.support(w) for w in windows], float)
        losses = [[known.loss(row, w, gate.metric) for w in windows] for row in (candidate, known.serving)]
        new, old = (np.broadcast_to(np.average(part, axis=0, weights=weight), known.shape) for part in losses)
        return [f"{gate.metric} {a:.4g} instead of {b:.4g}" for a, b in zip(new.ravel(), old.ravel(), strict=True)]
    if isinstance(gate, NoSliceDrop):
        before = [known.slice_counts(gate.by, known.serving, w) for w in windows]
        count = np.sum([c for c, _ in before], 0)
        after = np.sum([known.slice_counts(gate.by, candidate, w)[1] for w in windows], 0)
        change = (after - np.sum([k for _, k in before], 0)) / np.maximum(count, 1)
        change = np.where(count >= gate.minimum, change, np.inf).reshape(-1, len(count))
        labels = record.slices[gate.by]["labels"]
        return [f"{labels[int(part.argmin())]}: accuracy {part.min():+.4f}" for part in change]
    return []
