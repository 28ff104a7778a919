"""Predictions that change from one evaluation to the next: right to wrong, and wrong to right."""

import numpy as np
from numpy.typing import ArrayLike

from cl_lib.errors import InputError
from cl_lib.metrics.matrix import Floats


def flip_rate(flips: ArrayLike, support: ArrayLike, learned: ArrayLike) -> Floats:
    r"""Share of samples whose predictions changed in a given way, over all updates and experiences trained before.

    .. math:: \frac{1}{|S|} \sum_{(i, j) \in S} \frac{f_{i,j}}{n_j},
              \qquad S = \{(i, j) : 1 \le \text{learned}_j \le i < T\}

    where update i leads from row i of the accuracy matrix to row i + 1. With the samples that were correct in row i
    and are wrong in row i + 1 as ``flips`` it is the negative flip rate, the regressions of an update; an update may
    have them though its accuracy rises. The negative flip rate minus the positive flip rate is the mean loss of
    accuracy per update. A worse model has fewer correct predictions to lose: read flip rates together with accuracy.

    Parameters
    ----------
    flips : array-like, shape (..., T, E)
        Number of samples of each test set that changed in each update, the first one that of the untrained network.
    support : array-like, shape (E,)
        Number of samples of each test set.
    learned : array-like of int, shape (E,)
        Row at which the training of each experience was first finished, 1 to T.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1]. NaN where no experience was trained before the last update.

    Raises
    ------
    InputError
        If the shapes differ.

    References
    ----------
    Yan et al., Positive-Congruent Training: Towards Regression-Free Model Updates, CVPR 2021.

    Examples
    --------
    Two experiences of 10 samples; the second update loses two samples of the first experience:

    >>> float(flip_rate([[1, 0], [2, 0]], support=[10, 10], learned=[1, 2]))
    0.2
    """
    changed = np.asarray(flips, dtype=np.float64)
    count, rows = np.asarray(support, dtype=np.float64), np.asarray(learned)
    if changed.ndim < 2 or count.shape != changed.shape[-1:] or rows.shape != changed.shape[-1:]:
        raise InputError(
            f"flips (..., T, E), support (E,) and learned (E,) must agree; got {changed.shape}, {count.shape} and "
            f"{rows.shape}"
        )
    counted = (rows >= 1) & (rows <= np.arange(changed.shape[-2])[:, None])
    if not counted.any():
        return np.full(changed.shape[:-2], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (changed / count)[..., counted].mean(-1)
