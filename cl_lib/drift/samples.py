"""What a test on two samples answers, and the checks that all samples pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.errors import InputError

Floats = NDArray[np.float64]
LARGEST = 1e150
"""Squares of larger values have no float."""


class TwoSample(NamedTuple):
    """Answer of a test on a reference and a new sample.

    In large samples every difference is significant; the effect size, which does not grow with the sample, says
    whether it matters.

    Attributes
    ----------
    statistic : float, or array with one value for each pair of samples
    p_value : the same, in [0, 1]
        Of the null hypothesis that both samples come from one distribution.
    effect_size : the same
        0 where the samples do not differ; its unit depends on the test.
    """

    statistic: Any
    p_value: Any
    effect_size: Any


SAME = TwoSample(0.0, 1.0, 0.0)
"""The answer where there is nothing to compare."""


def numbers(name: str, values: ArrayLike, least: int = 1, ndim: int = 1) -> Floats:
    """``values`` in float64.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    values : array_like, shape (n,) or (n, d)
    least : int, default 1
        The smallest number of rows.
    ndim : int, default 1
        Number of dimensions; a list is a single column where it is 2.

    Raises
    ------
    InputError
        If ``values`` are not numbers, of another shape, too few, or NaN, infinite or beyond 1e150.

    Examples
    --------
    >>> numbers("a", [1.0, float("nan"), 2.0])
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: a: 1 of 3 values is NaN or infinite; all must be finite
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: must be an array of numbers ({error})") from None
    if array.size and array.dtype.kind not in "biuf":
        raise InputError(f"{name}: must be an array of numbers; got {array.dtype}")
    if ndim == 2 and array.ndim == 1:
        array = array[:, None]
    if array.ndim != ndim:
        raise InputError(f"{name}: must have {ndim} dimension{'s' if ndim > 1 else ''}; its shape is {array.shape}")
    if len(array) < least or not array.size:
        raise InputError(
            f"{name}: must hold at least {least} value{'s' if least > 1 else ''}; its shape is {array.shape}"
        )
    array = array.astype(np.float64)
    for wrong, what in ((~np.isfinite(array), "NaN or infinite"), (np.abs(array) > LARGEST, f"beyond {LARGEST:g}")):
        if count := int(wrong.sum()):
            verb = "value is" if count == 1 == array.size else "values is" if count == 1 else "values are"
            raise InputError(f"{name}: {count} of {array.size} {verb} {what}; all must be finite")
    return array
