"""Update at random times, the reference for any trigger with as many updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy, in_range, keep_or_update
from cl_lib.validation import check_whole


@dataclass(frozen=True)
class Random(Policy):
    """Update before each window with probability ``rate``, independently for each replica.

    `cl_lib.backtest` compares every policy with the exact mean over all schedules with as many updates; this policy
    draws one such schedule for each replica.

    Parameters
    ----------
    rate : float, default 0.1
        Probability of an update, in [0, 1].
    seed : int, default 0

    Examples
    --------
    >>> Random(0.25)
    Random(rate=0.25, seed=0)
    """

    rate: float = 0.1
    seed: int = 0

    def check(self) -> None:
        in_range(self, "rate", 0, 1)
        check_whole("policy.seed", self.seed, 0)

    @property
    def reads_labels(self) -> bool:
        return False

    def choose(self, known: Known) -> np.ndarray:
        words = [np.random.SeedSequence([self.seed, int(seed), known.window]).generate_state(2) for seed in known.seeds]
        numbers = np.array([(int(a) << 21 ^ int(b) >> 11) / 2**53 for a, b in words])
        return keep_or_update(known, numbers < self.rate)
