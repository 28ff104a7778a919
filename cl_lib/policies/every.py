"""Update on a schedule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy, in_range, keep_or_update


@dataclass(frozen=True)
class Every(Policy):
    """Deploy the newest model every ``windows`` windows; ``Every(1)`` always serves the newest model.

    Parameters
    ----------
    windows : float, default 1
        Windows that a model serves, at least 1.

    Examples
    --------
    >>> Every(4)
    Every(windows=4)
    """

    windows: float = 1

    def check(self) -> None:
        in_range(self, "windows", 1, 1e9)

    @property
    def reads_labels(self) -> bool:
        return False

    def choose(self, known: Known) -> np.ndarray:
        return keep_or_update(known, known.since >= self.windows)
