"""Never update: the first model serves all windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy


@dataclass(frozen=True)
class Never(Policy):
    """Keep the model that was deployed first: the reference for what updates gain.

    Examples
    --------
    >>> Never()
    Never()
    """

    @property
    def reads_labels(self) -> bool:
        return False

    def choose(self, known: Known) -> np.ndarray:
        return known.serving
