"""Forgetting, backward transfer and forward transfer.

Definitions differ between papers and libraries; the variant is therefore named: forgetting is `max_past`, backward
transfer is `last_row`, and forward transfer subtracts the accuracy of the untrained network.
"""

import numpy as np
from numpy.typing import ArrayLike

from cl_lib.metrics.matrix import Floats, checked, rows_before, rows_learned


def forgetting(matrix: ArrayLike, learned: ArrayLike | None = None) -> Floats:
    r"""Forgetting, `max_past`: best past accuracy minus last accuracy.

    .. math:: F = \frac{1}{|L|} \sum_{j \in L} \Bigl( \max_{1 \le i < T} R_{i,j} - R_{T,j} \Bigr),
              \qquad L = \{j : \text{learned}_j < T\}

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies; row 0 is not used. NaN propagates, so every row must be measured for the experiences in L.
    learned : array-like of int, shape (E,), optional
        Row at which each experience was first finished. Default: row j + 1 for column j, which needs T = E.

    Returns
    -------
    ndarray of float64, shape (...)
        In [-1, 1]; negative if the last accuracy is the best. NaN if no experience was learned before the last row,
        for example with one experience.

    Raises
    ------
    InputError
        If a shape or a row is wrong.

    References
    ----------
    Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018.

    Examples
    --------
    >>> round(float(forgetting([[0.5, 0.5], [0.9, 0.6], [0.7, 0.8]])), 6)
    0.2
    """
    values = checked(matrix)
    last = values.shape[-2] - 1
    old = rows_learned(values, learned) < last
    if not old.any():
        return _unmeasured(values)
    return (values[..., 1:last, old].max(-2) - values[..., last, old]).mean(-1)


def bwt(matrix: ArrayLike, learned: ArrayLike | None = None) -> Floats:
    r"""Backward transfer, `last_row`: last accuracy minus accuracy right after learning.

    .. math:: BWT = \frac{1}{|L|} \sum_{j \in L} \bigl( R_{T,j} - R_{\text{learned}_j, j} \bigr),
              \qquad L = \{j : \text{learned}_j < T\}

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies; row 0 is not used.
    learned : array-like of int, shape (E,), optional
        Row at which each experience was first finished. Default: row j + 1 for column j, which needs T = E.

    Returns
    -------
    ndarray of float64, shape (...)
        In [-1, 1]; negative if past experiences were forgotten. NaN if no experience was learned before the last row.

    Raises
    ------
    InputError
        If a shape or a row is wrong.

    References
    ----------
    Lopez-Paz & Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017.

    Examples
    --------
    >>> round(float(bwt([[0.5, 0.5], [0.9, 0.6], [0.7, 0.8]])), 6)
    -0.2
    """
    values = checked(matrix)
    rows = rows_learned(values, learned)
    last = values.shape[-2] - 1
    old = np.flatnonzero(rows < last)
    if not old.size:
        return _unmeasured(values)
    return (values[..., last, old] - values[..., rows[old], old]).mean(-1)


def fwt(matrix: ArrayLike, before: ArrayLike | None = None) -> Floats:
    r"""Forward transfer: accuracy just before an experience minus accuracy of the untrained network.

    .. math:: FWT = \frac{1}{|N|} \sum_{j \in N} \bigl( R_{\text{before}_j, j} - R_{0,j} \bigr),
              \qquad N = \{j : \text{before}_j > 0\}

    For ordinary streams N contains every experience but the first. An experience that began before the first
    evaluation has no measured row in between, and is omitted rather than counted as zero.

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies; row 0 is the untrained network.
    before : array-like of int, shape (E,), optional
        Last row before the training of each experience began. Default: row j for column j, which needs T = E.

    Returns
    -------
    ndarray of float64, shape (...)
        In [-1, 1]; positive if earlier training helps. NaN if N is empty, for example with one experience. With a class
        mask that excludes unseen classes the value is meaningless, and the harness does not report it.

    Raises
    ------
    InputError
        If a shape or a row is wrong.

    References
    ----------
    Lopez-Paz & Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017.

    Examples
    --------
    >>> round(float(fwt([[0.5, 0.5], [0.9, 0.6], [0.7, 0.8]])), 6)
    0.1
    """
    values = checked(matrix)
    rows = rows_before(values, before)
    new = np.flatnonzero(rows > 0)
    if not new.size:
        return _unmeasured(values)
    return (values[..., rows[new], new] - values[..., 0, new]).mean(-1)


def next_experience(matrix: ArrayLike, before: ArrayLike | None = None) -> Floats:
    r"""Mean value on each experience just before it is trained: what a model in service meets.

    .. math:: \frac{1}{|N|} \sum_{j \in N} R_{\text{before}_j, j}, \qquad N = \{j : \text{before}_j > 0\}

    For ordinary streams this is the mean of the superdiagonal. With a stream by time it is the accuracy of a model that
    is trained after every window, on the window that follows; a matrix of the NLL gives its NLL.

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies or any other measure; row 0 is not used.
    before : array-like of int, shape (E,), optional
        Last row before the training of each experience began. Default: row j for column j, which needs T = E.

    Returns
    -------
    ndarray of float64, shape (...)
        In the unit of ``matrix``. NaN where N is empty, as with one experience.

    Raises
    ------
    InputError
        If a shape or a row is wrong.

    References
    ----------
    Lin et al., The CLEAR Benchmark, NeurIPS 2021 (next-domain accuracy).

    Examples
    --------
    >>> float(next_experience([[0.5, 0.5], [0.9, 0.6], [0.7, 0.8]]))
    0.6
    """
    values = checked(matrix)
    rows = rows_before(values, before)
    new = np.flatnonzero(rows > 0)
    if not new.size:
        return _unmeasured(values)
    return values[..., rows[new], new].mean(-1)


def _unmeasured(values: Floats) -> Floats:
    return np.full(values.shape[:-2], np.nan)
