"""Two-sample tests that say how large a difference is: statistic, p-value and effect size."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.errors import InputError
from cl_lib.validation import is_number

Floats = NDArray[np.float64]


class TwoSample(NamedTuple):
    """Statistic, p-value in [0, 1] and effect size of a test on a reference and a new sample.

    Floats, or arrays of the leading shape from `chi_square_many`. In a large sample any difference is significant;
    the effect size tells whether it matters.
    """

    statistic: Any
    p_value: Any
    effect_size: Any
