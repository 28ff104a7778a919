"""Chi-square test on counts of categories, for one pair of windows or many at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.drift.samples import Floats, TwoSample
from cl_lib.errors import InputError
from cl_lib.validation import is_number


def chi_square(a: ArrayLike, b: ArrayLike, min_expected: float = 5.0) -> TwoSample:
    r"""Chi-square test of homogeneity of two samples of K categories, small cells merged.

    .. math:: \chi^2 = \sum_{s \in \{a, b\}} \sum_k \frac{(s_k - E_{sk})^2}{E_{sk}}, \qquad
              E_{sk} = \frac{n_s (a_k + b_k)}{n_a + n_b}, \qquad V = \sqrt{\frac{\chi^2}{n_a + n_b}}

    The approximation by the chi-square distribution needs expected counts that are not small. Categories are therefore
    taken in ascending order of their total (ties in the order given) and merged, one after the other, until the merged
    cell has an expected count of at least ``min_expected`` in both samples; what remains at the end joins the cell
    before it. Which categories are merged depends on their totals only, not on which sample they come from.

    Parameters
    ----------
    a, b : array_like, shape (K,)
        Counts of each category in the reference and in the new window: whole numbers, 0 or more, not all 0.
    min_expected : float, default 5
        Smallest expected count of a cell, 0 or more. With 0, only empty categories are merged.

    Returns
    -------
    TwoSample
        Statistic in [0, n_a + n_b], p-value with (cells - 1) degrees of freedom, and Cramer's V in [0, 1]. With fewer
        than two cells the statistic is 0, the p-value 1 and the effect 0.

    Raises
    ------
    InputError
        If counts are negative, fractions, NaN, of two shapes, or all 0.

    References
    ----------
    Cochran, Some methods for strengthening the common chi-square tests, Biometrics 1954; Cramer, Mathematical Methods
    of Statistics, 1946.

    Examples
    --------
    >>> result = chi_square([40, 30, 28, 2], [20, 30, 46, 4])
    >>> round(result.statistic, 3), round(result.p_value, 4), round(result.effect_size, 3)
    (9.287, 0.0096, 0.215)
    """
    left, right = _counts("a", a), _counts("b", b)
    if left.ndim != 1 or right.ndim != 1:
        raise InputError(f"a, b: must have one dimension; their shapes are {left.shape} and {right.shape}")
    return TwoSample(*(float(values) for values in chi_squares(left, right, min_expected)))


def chi_squares(a: ArrayLike, b: ArrayLike, min_expected: float = 5.0) -> TwoSample:
    """`chi_square` of many pairs of windows at once.

    Parameters
    ----------
    a, b : array_like, shape (..., K)
        Counts. Leading axes are broadcast, so that one reference serves many windows.
    min_expected : float, default 5
        As for `chi_square`.

    Returns
    -------
    TwoSample
        Arrays of the leading shape.

    Raises
    ------
    InputError
        As for `chi_square`.

    Examples
    --------
    >>> result = chi_squares([40, 30, 30], [[40, 30, 30], [20, 30, 50]])
    >>> result.p_value.round(4)
    array([1.    , 0.0029])
    """
    from scipy import stats  # takes longer to import than all of cl_lib

    if not is_number(min_expected) or not 0 <= min_expected < np.inf:
        raise InputError(f"min_expected={min_expected!r}: must be a number, 0 or more")
    left, right = _counts("a", a), _counts("b", b)
    if left.shape[-1] != right.shape[-1]:
        raise InputError(f"a, b: must have the same categories; they have {left.shape[-1]} and {right.shape[-1]}")
    try:
        left, right = np.broadcast_arrays(left, right)
    except ValueError:
        raise InputError(f"a, b: shapes {left.shape} and {right.shape} do not fit each other") from None
    lead = left.shape[:-1]
    both = np.stack([left, right]).reshape(2, -1, left.shape[-1])
    cells = _merged(both, min_expected)
    total, size = cells.sum(0), cells.sum(2, keepdims=True)
    n = total.sum(1)
    expected = size * total / n[:, None]
    terms = np.divide((cells - expected) ** 2, expected, out=np.zeros_like(cells), where=expected > 0)
    freedom = (total > 0).sum(1) - 1
    statistic = np.where(freedom > 0, terms.sum((0, 2)), 0.0)
    p_value = np.where(freedom > 0, stats.chi2.sf(statistic, np.maximum(freedom, 1)), 1.0)
    effect = np.sqrt(np.minimum(statistic / n, 1.0))
    return TwoSample(*(values.reshape(lead) for values in (statistic, p_value, effect)))


def _merged(counts: Floats, min_expected: float) -> Floats:
    """Counts `(2, N, K)` after merging small cells; cells that are no longer needed are 0."""
    total, size = counts.sum(0), counts.sum(2)
    tables, categories = total.shape
    order = np.argsort(total, axis=1, kind="stable")
    smaller, n = size.min(0), size.sum(0)
    cell: NDArray[np.int64] = np.zeros(tables, np.int64)
    filled = np.zeros(tables)
    cells = np.empty((tables, categories), np.int64)
    for place in range(categories):
        cells[:, place] = cell
        filled += np.take_along_axis(total, order[:, place : place + 1], 1)[:, 0]
        full = (filled > 0) & (filled * smaller >= min_expected * n)  # whole numbers, exact
        cell += full
        filled[full] = 0
    last = cell - (filled == 0)  # number of the last cell, complete or not
    complete = np.where(filled > 0, np.maximum(last - 1, 0), last)
    cells = np.minimum(cells, complete[:, None]) + categories * np.arange(tables)[:, None]
    ordered = np.take_along_axis(counts, order[None], 2)
    return np.stack(
        [np.bincount(cells.ravel(), s.ravel(), tables * categories).reshape(tables, categories) for s in ordered]
    )


def _counts(name: str, values: ArrayLike) -> Floats:
    try:
        counts = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: must be an array of counts ({error})") from None
    if counts.dtype.kind not in "biuf" or not counts.ndim or not counts.size:
        raise InputError(f"{name}: must be a non-empty array of counts; got {counts.dtype} of shape {counts.shape}")
    counts = counts.astype(np.float64)
    if wrong := int((~np.isfinite(counts) | (counts < 0) | (counts % 1 != 0)).sum()):
        raise InputError(f"{name}: {wrong} of {counts.size} counts are NaN, infinite, negative or fractions")
    if empty := int((counts.sum(-1) == 0).sum()):
        raise InputError(
            f"{name}: {empty} of {counts[..., 0].size} windows are empty; each must hold at least 1 sample"
        )
    return counts
