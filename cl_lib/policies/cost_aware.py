"""Update when the loss that an old model has caused exceeds the cost of an update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy, in_range, keep_or_update


@dataclass(frozen=True)
class CostAware(Policy):
    r"""Update once the excess loss of the serving model, summed over windows since its deployment, exceeds a cost.

    .. math:: \sum_{w = i + 1}^{m} \max(0, \ell_{i,w} - \ell_{w,w}) > \text{cost}

    where row i serves, row w is the newest that was not trained on window w, and m is the last labelled window. The sum
    grows until it pays for one update, as in the ski-rental problem.

    Parameters
    ----------
    cost : float, default 0.05
        Cost of an update in the unit of the loss of one window, above 0.
    metric : {"nll", "error", "brier"}

    References
    ----------
    Mahadevan & Mathioudakis, Cost-aware retraining for machine learning, Knowledge-Based Systems 2024.

    Examples
    --------
    >>> CostAware(0.02)
    CostAware(cost=0.02, metric='nll')
    """

    cost: float = 0.05
    metric: str = "nll"
    candidates = True

    def check(self) -> None:
        in_range(self, "cost", 0, 1e9, closed=False)

    def choose(self, known: Known) -> np.ndarray:
        losses = known.losses(self.metric)
        windows = np.arange(known.newest)
        newest = losses[:, windows, windows]  # row w on window w
        replicas = np.arange(len(losses))
        served = losses[replicas, known.serving]
        counted = windows > known.serving[..., None]
        excess = np.where(counted, np.maximum(served - newest, 0), 0).sum(-1)
        return keep_or_update(known, excess > self.cost)
