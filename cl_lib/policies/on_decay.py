"""Update when the loss of the serving model has risen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy, in_range, keep_or_update


@dataclass(frozen=True)
class OnDecay(Policy):
    r"""Update if the loss of the serving model has risen by a given share since it was deployed.

    With the loss :math:`\ell_w` of the serving row i on window w and the last labelled window m, the condition is

    .. math:: \ell_m > (1 + \text{rise}) \, \ell_i.

    A loss also rises where the data get harder and an update would not help; see the skill in the backtest.

    Parameters
    ----------
    rise : float, default 0.1
        Relative rise, at least 0.
    metric : {"nll", "error", "brier"}

    Examples
    --------
    >>> OnDecay(0.05)
    OnDecay(rise=0.05, metric='nll')
    """

    rise: float = 0.1
    metric: str = "nll"

    def check(self) -> None:
        in_range(self, "rise", 0, 1e9)

    def choose(self, known: Known) -> np.ndarray:
        losses = known.losses(self.metric)
        replicas, last = np.arange(len(losses)), known.newest - 1
        first = np.minimum(known.serving, last)  # the first window that the serving row was not trained on
        now, then = losses[replicas, known.serving, last], losses[replicas, known.serving, first]
        return keep_or_update(known, now / (1 + self.rise) > then)  # a product could overflow where a model diverged
