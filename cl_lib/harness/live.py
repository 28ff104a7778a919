"""Live policies: replicas whose policy declines an update get their state back at the end of the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from cl_lib.engine.learners import Learners
from cl_lib.errors import InputError
from cl_lib.policies.history import WindowHistory
from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy
from cl_lib.policies.walk import checked
from cl_lib.record.predictions import Predictions
from cl_lib.service.history import sources
from cl_lib.types import Arrays, Row

if TYPE_CHECKING:
    from cl_lib.harness.groups import Group
    from cl_lib.harness.job import Job

LOSSES = {"error": "accuracy", "nll": "nll", "brier": "brier"}
CANDIDATE = "candidate."


class Live:
    """Decisions of a policy for a group of replicas while it trains.

    Before each window the policy sees what it would see in a backtest without label delay: the results of earlier rows.
    A row is the model that was trained on a window, deployed or not; a replica that declines keeps its state
    (parameters, optimiser, memory filled by the strategy). The planned memory is a store of data and goes on. If no
    replica of a policy without ``candidates`` accepts, the window is not trained at all.

    Parameters
    ----------
    policy : Policy
    group : Group
        With the rows so far, if the run is resumed.
    job : Job
    """

    def __init__(self, policy: Policy, group: Group, job: Job) -> None:
        self.policy, self.group = policy, group
        replicas, windows = len(group.members), len(job.stream.columns)
        shape = (replicas, windows + 1, windows)
        self.losses = {name: np.full(shape, np.nan) for name in LOSSES}
        self.rows: list[Row] = []
        seeds = np.array([job.replicas[m].seed for m in group.members])
        support = np.zeros(windows, int)
        parts: tuple[Any, ...] = ()
        if group.samples:
            parts = sources(_Rows(group.samples, self.rows), len(job.stream.classes))
        self.history = WindowHistory(self.losses, support, seeds, *parts)
        self.serving, self.since = np.zeros(replicas, int), np.zeros(replicas, int)
        self.accepts = np.ones(replicas, bool)
        self.trains = True
        """Whether the current window is trained."""
        self.before: dict[str, Any] | None = None
        """State before the window that is being trained, if it may be needed."""
        for row in group.rows:
            self.take(row)

    def take(self, row: Row) -> None:
        """Add a finished row to the history."""
        self.rows.append(row)
        for name, matrix in LOSSES.items():
            values = row.arrays.get(CANDIDATE + matrix, row.arrays[matrix])
            self.losses[name][:, row.experience] = 1 - values if name == "error" else values
        self.history.support[:] = row.arrays["support"][0]
        served = row.arrays["served"].astype(int)
        self.since = np.where(served == self.serving, self.since + 1, 0)
        self.serving = served

    def begin(self, number: int, learner: Learners, before: dict[str, Any] | None) -> bool:
        """Decide on the update of experience ``number``; return whether it is trained.

        ``before`` is the state before the experience if the run is resumed within it.
        """
        newest = number + 1
        if number == 0:  # the first model is always trained
            self.accepts[:] = True
        else:
            known = Known(newest, newest, self.serving, self.since + 1, self.history)
            row = checked(self.policy, self.policy.choose(known), known)
            if (strange := (row != self.serving) & (row != newest)).any():
                raise InputError(
                    f"policy {type(self.policy).__name__}: chooses row {int(row[strange][0])}, whose state is not kept "
                    "in a run; a live policy keeps the serving model or updates it. Use cl_lib.backtest for rollbacks"
                )
            self.accepts = row == newest
        self.trains = bool(self.policy.candidates or self.accepts.any())
        declined = self.trains and not self.accepts.all()
        self.before = (before or pytree.tree_map(torch.clone, learner.tree)) if declined else None
        return self.trains

    def end(self, arrays: Arrays | None, learner: Learners) -> Arrays:
        """Give decliners their state back, and return the results of the models that serve.

        ``arrays`` are those of the replicas as trained, None if the window was not trained.
        """
        self._restore(learner)
        if not self.rows:  # the untrained network
            out = dict(arrays or {})
            return out | {"served": self.serving.copy()} | self._candidates(out)
        number, last = self.rows[-1].experience + 1, self.rows[-1].arrays
        if arrays is None:
            arrays = {name: values for name, values in last.items() if not name.startswith(CANDIDATE)}
        out = {}
        for name, values in arrays.items():
            if name in last and not name.startswith(("flips.", "memory.")):
                kept = self.accepts.reshape(-1, *[1] * (values.ndim - 1))
                out[name] = np.where(kept, values, last[name])
            else:
                out[name] = values
        for name in (name for name in out if name.startswith("flips.")):
            out[name] = np.where(self.accepts[:, None], out[name], 0.0)
        served = np.where(self.accepts, number, self.serving)
        return out | {"served": served} | self._candidates(arrays)

    def _restore(self, learner: Learners) -> None:
        """Give decliners their state of before the window back."""
        if self.before is None:
            return
        declined = torch.from_numpy(~self.accepts)
        pairs = zip(pytree.tree_leaves(learner.tree), pytree.tree_leaves(self.before), strict=True)
        with torch.no_grad():
            for now, was in pairs:
                chosen = declined.to(now.device)
                now[chosen] = was.to(now.device)[chosen]
        self.before = None

    def _candidates(self, arrays: Arrays) -> Arrays:
        """Results of the replicas as trained, which a policy with ``candidates`` reads."""
        if not self.policy.candidates:
            return {}
        kept = [name for name in arrays if name in LOSSES.values() or name.startswith("samples.")]
        return {CANDIDATE + name: arrays[name].copy() for name in kept}


@dataclass(frozen=True, eq=False)
class _Rows(Predictions):
    """Predictions of the rows so far, those of candidates where a policy reads them."""

    rows: Sequence[Row] = ()

    def row(self, name: str, row: int) -> np.ndarray:
        arrays = self.rows[row].arrays
        full = f"samples.{name}"
        return arrays.get(CANDIDATE + full, arrays[full])
