"""Anytime accuracy, for streams that are evaluated during training."""

import numpy as np
from numpy.typing import ArrayLike

from cl_lib.errors import InputError
from cl_lib.metrics.matrix import Floats


def anytime_accuracy(times: ArrayLike, accuracy: ArrayLike) -> Floats:
    r"""Area under the curve of accuracy over steps, divided by the range of the steps.

    .. math:: \frac{1}{t_n - t_1} \sum_{k=1}^{n-1} (t_{k+1} - t_k) \frac{a_k + a_{k+1}}{2}

    Parameters
    ----------
    times : array-like, shape (n,)
        Steps (or seconds) of the evaluations, strictly increasing, at least two.
    accuracy : array-like, shape (..., n)
        Accuracy at each evaluation. NaN propagates.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1], the unit of the accuracies.

    Raises
    ------
    InputError
        If the times do not increase, are fewer than two, or do not match the accuracies.

    References
    ----------
    Koh et al., Online Continual Learning on Class Incremental Blurry Task Configuration with Anytime Inference,
    ICLR 2022 (their area under the curve is the mean over equally spaced evaluations; this function uses the
    trapezoidal rule and allows any spacing).

    Examples
    --------
    >>> float(anytime_accuracy([0, 100, 300], [0.0, 0.5, 1.0]))
    0.5833333333333334
    """
    steps, values = np.asarray(times, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if steps.ndim != 1 or len(steps) < 2 or not (np.diff(steps) > 0).all():
        raise InputError("`times` must be one-dimensional, with at least two strictly increasing numbers")
    if values.shape[-1:] != steps.shape:
        raise InputError(f"{len(steps)} times, but accuracies of shape {values.shape}")
    middles = (values[..., 1:] + values[..., :-1]) / 2
    return (middles * np.diff(steps)).sum(-1) / (steps[-1] - steps[0])
