"""Accuracy and calibration by slice of the test samples, in NumPy.

A slice is any group of `GroupSums`: a class, a label of a slice column, or the classes of similar recency. The recency
of a class (``age``) is the number of steps since a sample of the class was last trained on, replay excluded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.errors import InputError
from cl_lib.metrics.calibration import ece
from cl_lib.metrics.matrix import Floats

MINIMUM = 30  # number of samples below which the accuracy of a slice is mostly noise


@dataclass(frozen=True, eq=False)
class SliceTable:
    """Labels (G names) of slices, and their support, accuracy and ece, each of shape (..., G).

    Accuracy and calibration error are NaN for a slice without samples.
    """

    labels: tuple[str, ...]
    support: Floats
    accuracy: Floats
    ece: Floats


def slice_table(labels: Sequence[str], count: ArrayLike, correct: ArrayLike, bins: ArrayLike) -> SliceTable:
    """Accuracy and expected calibration error of every slice.

    Parameters
    ----------
    labels : sequence of str, length G
    count, correct : array-like, shape (..., G)
        Samples and hits of each slice, as in `GroupSums`.
    bins : array-like, shape (..., G, B, 3)
        [count, confidence sum, hit sum] of each slice and confidence bin.

    Returns
    -------
    SliceTable

    Raises
    ------
    InputError
        If the shapes do not match.

    Examples
    --------
    >>> table = slice_table(["cat", "dog"], [8, 0], [2, 0], [[[4, 1.0, 0], [4, 3.0, 2]], [[0, 0, 0], [0, 0, 0]]])
    >>> table.accuracy, table.ece
    (array([0.25,  nan]), array([0.25,  nan]))
    """
    support, hits = np.asarray(count, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    errors = ece(bins)
    if not support.shape == hits.shape == errors.shape or support.shape[-1:] != (len(labels),):
        raise InputError(
            f"{len(labels)} labels, but count {support.shape}, correct {hits.shape} and bins of slices {errors.shape}"
        )
    with np.errstate(invalid="ignore"):
        return SliceTable(tuple(labels), support, hits / support, errors)


def worst(accuracy: ArrayLike, support: ArrayLike, minimum: int = MINIMUM) -> Floats:
    """Accuracy of the worst slice among the slices with enough samples.

    Parameters
    ----------
    accuracy, support : array-like, shape (..., G)
        Broadcast against each other: replicas may share the support.
    minimum : int, default 30
        Number of samples that a slice needs to be eligible, at least 1.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1]. NaN if no slice is eligible, or an eligible slice is NaN.

    Raises
    ------
    InputError
        If ``minimum`` is below 1.

    References
    ----------
    Sagawa et al., Distributionally Robust Neural Networks, ICLR 2020 (worst-group accuracy).

    Examples
    --------
    >>> float(worst([0.9, 0.6, 0.1], [100, 50, 3]))
    0.6
    """
    values, eligible = _eligible(accuracy, support, minimum)
    return np.where(eligible.any(-1), np.where(eligible, values, np.inf).min(-1), np.nan)


def gap(accuracy: ArrayLike, support: ArrayLike, minimum: int = MINIMUM) -> Floats:
    """Accuracy of the best slice minus accuracy of the worst, among the slices with enough samples.

    Parameters
    ----------
    accuracy, support : array-like, shape (..., G)
        Broadcast against each other: replicas may share the support.
    minimum : int, default 30
        Number of samples that a slice needs to be eligible, at least 1.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1]. NaN if fewer than two slices are eligible, or an eligible slice is NaN.

    Raises
    ------
    InputError
        If ``minimum`` is below 1.

    Examples
    --------
    >>> round(float(gap([0.9, 0.6, 0.1], [100, 50, 3])), 6)
    0.3
    """
    values, eligible = _eligible(accuracy, support, minimum)
    best = np.where(eligible.sum(-1) > 1, np.where(eligible, values, -np.inf).max(-1), np.nan)
    return best - worst(accuracy, support, minimum)


def slice_forgetting(history: ArrayLike) -> Floats:
    r"""Forgetting of each slice, `max_past`: best past accuracy minus last accuracy.

    .. math:: F_g = \max_{1 \le i < T} a_{i,g} - a_{T,g}

    Parameters
    ----------
    history : array-like, shape (..., T + 1, G)
        Accuracy of each slice after each evaluation; row 0 is the untrained network and is not used.

    Returns
    -------
    ndarray of float64, shape (..., G)
        In [-1, 1]; negative if the last accuracy is the best. NaN if T < 2 or a row is NaN.

    Raises
    ------
    InputError
        If there are fewer than two axes, or no row.

    References
    ----------
    Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018, where it is defined for experiences.

    Examples
    --------
    >>> slice_forgetting([[0.5, 0.5], [1.0, 0.25], [0.75, 0.5]])
    array([ 0.25, -0.25])
    """
    values = np.asarray(history, dtype=np.float64)
    if values.ndim < 2 or values.shape[-2] < 1:
        raise InputError(f"a history must have the shape (..., T + 1, G); got {values.shape}")
    if values.shape[-2] < 3:
        return np.full(values.shape[:-2] + values.shape[-1:], np.nan)
    return values[..., 1:-1, :].max(-2) - values[..., -1, :]


def age_groups(age: ArrayLike) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Group classes by steps since last trained (recency), in powers of ten.

    Parameters
    ----------
    age : array-like of int, shape (..., C)
        Steps since a sample of the class was last trained on, replay excluded; -1 if never.

    Returns
    -------
    group : ndarray of int64, shape (..., C)
        Index of the label of each class.
    labels : tuple of str
        "0-9 steps", "10-99 steps" and so on, up to the largest number of steps, then "never trained".

    Raises
    ------
    InputError
        If ``age`` is not integer or has values below -1.

    Examples
    --------
    >>> group, labels = age_groups([0, 9, 10, 250, -1])
    >>> group.tolist(), labels
    ([0, 0, 1, 2, 3], ('0-9 steps', '10-99 steps', '100-999 steps', 'never trained'))
    """
    ages = np.asarray(age)
    if not np.issubdtype(ages.dtype, np.integer) or ages.min(initial=0) < -1:
        raise InputError("`age` must contain integers: numbers of steps, or -1 for never")
    decades = len(str(ages.max(initial=0)))
    group = np.searchsorted(10 ** np.arange(1, decades), ages, side="right")
    spans = (f"{10**d if d else 0}-{10 ** (d + 1) - 1} steps" for d in range(decades))
    return np.where(ages < 0, decades, group), (*spans, "never trained")


def merge_groups(sums: ArrayLike, group: ArrayLike, groups: int) -> Floats:
    """Merge the sums of fine slices, such as classes, into the sums of coarse slices, such as ranges of recency.

    Parameters
    ----------
    sums : array-like, shape (*L, C, *rest)
        Sums to add up along the class axis.
    group : array-like of int, shape (*L, C)
        Coarse slice of each class, from 0 to ``groups`` - 1. The last axis of this shape is the class axis.
    groups : int
        Number of coarse slices, G.

    Returns
    -------
    ndarray of float64, shape (*L, G, *rest)

    Raises
    ------
    InputError
        If the shapes do not match or a group is out of range.

    Examples
    --------
    >>> merge_groups([5.0, 2.0, 1.0], [0, 2, 0], groups=3)
    array([6., 0., 2.])
    """
    values, index = np.asarray(sums, dtype=np.float64), np.asarray(group)
    if index.ndim < 1 or values.shape[: index.ndim] != index.shape:
        raise InputError(f"groups of shape {index.shape} do not fit sums of shape {values.shape}")
    if index.min(initial=0) < 0 or index.max(initial=0) >= groups:
        raise InputError(f"groups must lie between 0 and {groups - 1}")
    merged = np.zeros((*index.shape[:-1], groups, *values.shape[index.ndim :]))
    np.add.at(merged, (*np.indices(index.shape)[:-1], index), values)
    return merged


def _eligible(accuracy: ArrayLike, support: ArrayLike, minimum: int) -> tuple[Floats, NDArray[np.bool_]]:
    if minimum < 1:
        raise InputError(f"`minimum` must be at least 1; got {minimum}")
    values, eligible = np.broadcast_arrays(
        np.asarray(accuracy, dtype=np.float64), np.asarray(support, dtype=np.float64) >= minimum
    )
    return values, eligible
