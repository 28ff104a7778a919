"""Validation of the accuracy matrix, and the rows at which each experience began and ended.

``matrix`` has the shape (..., T + 1, E). Row 0 is the untrained network, row i the network at the i-th
evaluation, which for ordinary streams is the end of experience i. Column j is the test set of the (j + 1)-th
experience. Leading axes are replicas. NaN means "not measured" or "diverged" and propagates.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.errors import InputError

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def checked(matrix: ArrayLike) -> Floats:
    """Return the accuracy matrix as float64.

    Parameters
    ----------
    matrix : array-like, shape (..., T + 1, E)
        Accuracies in [0, 1]; row 0 is the untrained network.

    Returns
    -------
    ndarray of float64, shape (..., T + 1, E)

    Raises
    ------
    InputError
        If there are fewer than two axes, fewer than two rows, or no column.

    Examples
    --------
    >>> checked([[0, 1], [1, 0]]).dtype
    dtype('float64')
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim < 2 or values.shape[-2] < 2 or values.shape[-1] < 1:
        raise InputError(
            f"an accuracy matrix must have the shape (..., T + 1, E) with T >= 1 and E >= 1; got {values.shape}"
        )
    return values


def rows_learned(matrix: Floats, learned: ArrayLike | None = None) -> Rows:
    """Row at which the training of each experience was first finished.

    Parameters
    ----------
    matrix : ndarray, shape (..., T + 1, E)
    learned : array-like of int, shape (E,), optional
        Row of each experience, 1 to T. Default: row j + 1 for column j, which needs T = E.

    Returns
    -------
    ndarray of int64, shape (E,)

    Raises
    ------
    InputError
        If ``learned`` has the wrong shape, type or range, or is missing although T and E differ.

    Examples
    --------
    >>> rows_learned(np.zeros((4, 3)))
    array([1, 2, 3])
    """
    return _rows(matrix, learned, first=1, name="learned")


def rows_before(matrix: Floats, before: ArrayLike | None = None) -> Rows:
    """Last row before the training of each experience began.

    Parameters
    ----------
    matrix : ndarray, shape (..., T + 1, E)
    before : array-like of int, shape (E,), optional
        Row of each experience, 0 to T. Default: row j for column j, which needs T = E.

    Returns
    -------
    ndarray of int64, shape (E,)

    Raises
    ------
    InputError
        If ``before`` has the wrong shape, type or range, or is missing although T and E differ.

    Examples
    --------
    >>> rows_before(np.zeros((4, 3)))
    array([0, 1, 2])
    """
    return _rows(matrix, before, first=0, name="before")


def _rows(matrix: Floats, rows: ArrayLike | None, first: int, name: str) -> Rows:
    last, experiences = matrix.shape[-2] - 1, matrix.shape[-1]
    if rows is None:
        if last != experiences:
            raise InputError(
                f"{last} evaluations of {experiences} experiences: pass `{name}`, the row of each experience"
            )
        return np.arange(experiences, dtype=np.int64) + first
    given = np.asarray(rows)
    if given.shape != (experiences,) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(
            f"`{name}` must contain one integer for each of the {experiences} experiences; "
            f"got shape {given.shape} and dtype {given.dtype}"
        )
    if given.min() < first or given.max() > last:
        raise InputError(f"`{name}` must contain rows from {first} to {last}; got {given.tolist()}")
    return given.astype(np.int64)
