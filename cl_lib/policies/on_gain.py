"""Update where a newer model has proved better than the one that serves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy, in_range, keep_or_update


@dataclass(frozen=True)
class OnGain(Policy):
    r"""Update if the last candidate had a lower loss than the serving model on the last labelled window.

    The candidate is the row before the newest: it was not trained on that window, so the comparison is fair. With
    mean difference d of the NLLs of the same n samples and its standard error s, the newest row is deployed if

    .. math:: -d > \text{gain} \quad\text{and}\quad \Phi(d / s) < \alpha.

    Without the second condition noise alone causes an update about half the time when nothing drifts.

    Parameters
    ----------
    alpha : float, default 0.05
        Significance level of the one-sided paired test, in (0, 1]; 1 switches the test off, and predictions are then
        not needed.
    gain : float, default 0
        Smallest gain that justifies an update, in nats.

    Examples
    --------
    >>> OnGain()
    OnGain(alpha=0.05, gain=0.0)
    """

    alpha: float = 0.05
    gain: float = 0.0
    candidates = True

    def check(self) -> None:
        in_range(self, "alpha", 0, 1, closed=False)
        in_range(self, "gain", 0, 1e9)

    @property
    def needs_predictions(self) -> bool:
        return not np.all(np.asarray(self.alpha) == 1)

    def choose(self, known: Known) -> np.ndarray:
        from scipy.stats import norm  # slow to import

        candidate, window = known.newest - 1, known.newest - 1
        if candidate < 1:
            return known.serving
        alpha = np.asarray(self.alpha)
        better = known.loss(known.serving, window) - known.loss(candidate, window) > self.gain
        if self.needs_predictions:
            paired = known.compare(known.serving, candidate, window)
            with np.errstate(divide="ignore", invalid="ignore"):
                significant = norm.cdf(paired.nll / paired.nll_error) < alpha
            better = np.where(alpha < 1, significant & (-paired.nll > self.gain), better)
        return keep_or_update(known, better & (candidate > known.serving))
