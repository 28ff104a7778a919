"""Accuracy of the final network, averaged over the evaluations, and right after each experience."""

import numpy as np
from numpy.typing import ArrayLike

from cl_lib.errors import InputError
from cl_lib.metrics.matrix import Floats, checked, rows_before, rows_learned


def accuracy(matrix: ArrayLike) -> Floats:
    r"""Mean accuracy over all experiences after the last one.

    .. math:: A = \frac{1}{E} \sum_{j=1}^{E} R_{T,j}

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies; row 0 is the untrained network. A NaN in the last row makes the result NaN.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1], the unit of the matrix.

    Raises
    ------
    InputError
        If the matrix has the wrong shape.

    References
    ----------
    Lopez-Paz & Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017 (ACC).

    Examples
    --------
    >>> float(accuracy([[0.5, 0.5], [0.9, 0.6], [0.7, 0.8]]))
    0.75
    """
    return checked(matrix)[..., -1, :].mean(-1)


def average_accuracy(matrix: ArrayLike, before: ArrayLike | None = None) -> Floats:
    r"""Mean over the evaluations of the mean accuracy over the experiences seen so far.

    .. math:: \bar A = \frac{1}{T} \sum_{i=1}^{T} \frac{1}{|S_i|} \sum_{j \in S_i} R_{i,j},
              \qquad S_i = \{j : \text{before}_j < i\}

    An experience counts as seen from the first row after its training began. For ordinary streams, evaluated at the
    end of each experience, these are the entries of the lower triangle including the diagonal.

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies; row 0 is not used. Unseen experiences may be NaN; a NaN of a seen experience makes the result NaN.
    before : array-like of int, shape (E,), optional
        Last row before the training of each experience began. Default: row j for column j, which needs T = E.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1], the unit of the matrix.

    Raises
    ------
    InputError
        If a shape or a row is wrong, or no experience had been seen by the first evaluation.

    References
    ----------
    Rebuffi et al., iCaRL, CVPR 2017 (average incremental accuracy, here with equal weights for experiences).

    Examples
    --------
    Rows 1 and 2 give 0.9 and (0.7 + 0.8) / 2:

    >>> round(float(average_accuracy([[0.5, 0.5], [0.9, 0.6], [0.7, 0.8]])), 6)
    0.825
    """
    values = checked(matrix)
    seen = np.arange(1, values.shape[-2])[:, None] > rows_before(values, before)
    support = seen.sum(-1)
    if support.min() == 0:
        raise InputError("`before`: no experience was seen before row 1; at least one must begin at row 0")
    return (np.where(seen, values[..., 1:, :], 0.0).sum(-1) / support).mean(-1)


def learning_accuracy(matrix: ArrayLike, learned: ArrayLike | None = None) -> Floats:
    r"""Mean accuracy on each experience right after it was learned, a measure of plasticity.

    .. math:: LA = \frac{1}{E} \sum_{j=1}^{E} R_{\text{learned}_j, j}

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies; row 0 is the untrained network.
    learned : array-like of int, shape (E,), optional
        Row at which each experience was first finished. Default: row j + 1 for column j, which needs T = E.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1], the unit of the matrix.

    Raises
    ------
    InputError
        If a shape or a row is wrong.

    References
    ----------
    Riemer et al., Learning to Learn without Forgetting (MER), ICLR 2019.

    Examples
    --------
    >>> round(float(learning_accuracy([[0.5, 0.5], [0.9, 0.6], [0.7, 0.8]])), 6)
    0.85
    """
    values = checked(matrix)
    rows = rows_learned(values, learned)
    return values[..., rows, np.arange(len(rows))].mean(-1)
