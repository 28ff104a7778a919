"""Two-sample tests that say how large a difference is: each returns statistic, p-value and effect size."""

from __future__ import annotations

import math
import warnings

from numpy.typing import ArrayLike

from cl_lib.drift.contingency import chi_square, chi_squares
from cl_lib.drift.kernel import mmd
from cl_lib.drift.samples import SAME, Floats, TwoSample, numbers

__all__ = ["TwoSample", "chi_square", "chi_squares", "kolmogorov_smirnov", "mean_shift", "mmd"]


def kolmogorov_smirnov(a: ArrayLike, b: ArrayLike) -> TwoSample:
    r"""Kolmogorov-Smirnov test of two samples of a number.

    .. math:: D = \max_t |F_a(t) - F_b(t)|

    with the empirical distribution functions F. The p-value is exact up to 10,000 values, asymptotic beyond; with ties
    it is conservative.

    Parameters
    ----------
    a, b : array_like, shapes (m,) and (n,)
        Reference and new sample.

    Returns
    -------
    TwoSample
        D in [0, 1], the two-sided p-value, and D again as the effect size.

    Raises
    ------
    InputError
        If a sample is empty, or holds NaN or infinite values.

    References
    ----------
    Hodges, The significance probability of the Smirnov two-sample test, Arkiv for Matematik 1958.

    Examples
    --------
    >>> result = kolmogorov_smirnov([1, 2, 3, 4], [3, 4, 5, 6])
    >>> result.statistic, round(result.p_value, 4), result.effect_size
    (0.5, 0.7714, 0.5)
    """
    from scipy import stats  # takes longer to import than all of cl_lib

    first, second = numbers("a", a), numbers("b", b)
    with warnings.catch_warnings():  # where the exact p-value underflows, SciPy takes the asymptotic one and warns
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.ks_2samp(first, second)
    return TwoSample(float(result.statistic), float(result.pvalue), float(result.statistic))


def mean_shift(a: ArrayLike, b: ArrayLike) -> TwoSample:
    r"""Welch's t-test of a shift of the mean.

    .. math:: t = \frac{\bar b - \bar a}{\sqrt{s_a^2 / m + s_b^2 / n}}, \qquad d = \frac{\bar b - \bar a}{s}, \qquad
              s^2 = \frac{(m - 1) s_a^2 + (n - 1) s_b^2}{m + n - 2}

    Parameters
    ----------
    a, b : array_like, shapes (m,) and (n,)
        Reference and new sample, at least two values each.

    Returns
    -------
    TwoSample
        t, the two-sided p-value, and the standardised mean difference d (Cohen's d), both positive where the new mean
        is larger. Constant samples: 0, 1 and 0 if they are equal, else infinite, 0 and infinite.

    Raises
    ------
    InputError
        If a sample has fewer than two values, or holds NaN or infinite values.

    References
    ----------
    Welch, The generalization of Student's problem when several different population variances are involved,
    Biometrika 1947; Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988.

    Examples
    --------
    >>> result = mean_shift([1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 8.0])
    >>> round(result.statistic, 3), round(result.p_value, 4), round(result.effect_size, 3)
    (1.987, 0.1048, 1.405)
    """
    from scipy import stats

    first, second = numbers("a", a, 2), numbers("b", b, 2)
    m, n = first.size, second.size
    (low, var), (high, new_var) = _moments(first), _moments(second)
    pooled = ((m - 1) * var + (n - 1) * new_var) / (m + n - 2)
    if pooled == 0:
        infinite = math.copysign(math.inf, high - low)
        return SAME if low == high else TwoSample(infinite, 0.0, infinite)
    with warnings.catch_warnings():  # one of them may be constant
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.ttest_ind(second, first, equal_var=False)
    return TwoSample(float(result.statistic), float(result.pvalue), (high - low) / math.sqrt(pooled))


def _moments(values: Floats) -> tuple[float, float]:
    """Mean and variance, without rounding where the values are equal."""
    if (values == values[0]).all():
        return float(values[0]), 0.0
    return float(values.mean()), float(values.var(ddof=1))
