"""Statistics over seeds: bootstrap intervals, exact paired tests, and limits of small numbers of seeds.

No function assumes a normal distribution. Values of diverged replicas (None or NaN) are dropped and not counted in
``n``.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cl_lib.errors import InputError

Floats = NDArray[np.float64]
RESAMPLES = 9_999
PERMUTATIONS = 99_999
EXACT_PAIRS = 40  # two halves of 2**20 signed sums each, which take about a second and ten megabytes


class Summary(NamedTuple):
    """Mean, standard deviation (ddof = 1), 95 % interval (low, high) and number of values.

    Undefined statistics are None: all of them without values, deviation and interval with a single value.
    """

    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    n: int


class PairedDifference(NamedTuple):
    """Mean of a - b, its 95 % interval, two-sided p-value, number of pairs, and whether the p-value is exact."""

    mean: float | None
    ci95: tuple[float, float] | None
    p_value: float | None
    n: int
    exact: bool


def summarise(values: Iterable[float | None], seed: int = 0) -> Summary:
    """Compute mean, standard deviation and 95 % bootstrap interval of the mean.

    The interval is bias-corrected and accelerated (BCa), from 9,999 resamples, or the percentile interval if BCa is
    undefined. Equal values give an interval of width 0. With very few values any bootstrap interval is too narrow,
    since it cannot exceed the range of the values.

    Parameters
    ----------
    values : iterable of float or None
        One value a seed; None and NaN are dropped.
    seed : int, default 0
        Seed of the resampling.

    Returns
    -------
    Summary
        In the unit of the values. With an infinite value, only the mean is given.

    References
    ----------
    Efron, Better Bootstrap Confidence Intervals, JASA 1987.

    Examples
    --------
    >>> summary = summarise([0.71, 0.64, 0.78, 0.73, 0.69, 0.75, None])
    >>> round(summary.mean, 6), round(summary.std, 6), summary.n
    (0.716667, 0.048854, 6)
    >>> tuple(round(bound, 3) for bound in summary.ci95)
    (0.675, 0.748)
    """
    kept = _floats(values)
    kept = kept[~np.isnan(kept)]
    if not kept.size:
        return Summary(None, None, None, 0)
    equal = bool((kept == kept[0]).all())
    with np.errstate(over="ignore"):  # the NLL of float64 runs that nearly diverge
        mean = float(kept[0] if equal else kept.mean())  # the computed mean of equal values may have a rounding error
    if kept.size == 1 or not math.isfinite(mean):
        return Summary(mean, None, None, kept.size)
    if equal:
        return Summary(mean, 0.0, (mean, mean), kept.size)
    with np.errstate(over="ignore"):
        std = float(kept.std(ddof=1))
    if not math.isfinite(std):  # the squares overflow
        scale = float(np.abs(kept).max())
        std = scale * float((kept / scale).std(ddof=1))
    return Summary(mean, std, _interval(kept, seed), kept.size)


def paired_difference(a: Iterable[float | None], b: Iterable[float | None], seed: int = 0) -> PairedDifference:
    r"""Compare two methods on the same seeds.

    .. math:: p = 2^{-n} \, \bigl| \{ s \in \{-1, 1\}^n : |\textstyle\sum_i s_i d_i| \ge |\sum_i d_i| \} \bigr|,
              \qquad d = a - b

    Under the null hypothesis that the methods do not differ, both signs of each difference are equally likely. With up
    to 40 pairs, all sign patterns are counted exactly: the signed sums of one half of the pairs are sorted, and those
    of the other half are located in them by binary search. With more pairs, p is estimated from 99,999 random patterns.

    Parameters
    ----------
    a, b : iterable of float or None
        One value a seed, in the same order; pairs with a None or NaN are dropped.
    seed : int, default 0
        Seed of the bootstrap, and of the permutations with more than 40 pairs.

    Returns
    -------
    PairedDifference
        Mean and 95 % BCa interval of a - b, the p-value in [2**(1 - n), 1], the number of pairs, and whether the
        p-value is exact.

    Raises
    ------
    InputError
        If a and b differ in length or contain infinities.

    References
    ----------
    Fisher, The Design of Experiments, 1935; Pagano & Tritchler, JASA 1983.

    Examples
    --------
    >>> result = paired_difference([0.75, 1.0, 0.5, 1.0], [0.5, 0.5, 0.375, 0.25])
    >>> result.mean, result.p_value, result.n, result.exact
    (0.40625, 0.125, 4, True)
    """
    left, right = _floats(a), _floats(b)
    if left.shape != right.shape:
        raise InputError(f"a and b must have the same length; got {left.size} and {right.size} values")
    if np.isinf(left).any() or np.isinf(right).any():
        raise InputError("a and b must not contain infinite values")
    valid = ~(np.isnan(left) | np.isnan(right))
    left, right = left[valid], right[valid]
    difference = left - right
    summary = summarise(difference.tolist(), seed)
    exact = difference.size <= EXACT_PAIRS
    if not difference.size:
        return PairedDifference(None, None, None, 0, exact)
    # Ties must be detected despite rounding errors, which are relative to the values, not to their differences.
    tolerance = 1e-12 * float(np.abs(left).sum() + np.abs(right).sum())
    p_value = _sign_flips(difference, tolerance) if exact else _random_flips(difference, seed)
    return PairedDifference(summary.mean, summary.ci95, p_value, difference.size, exact)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    r"""Holm's step-down correction for several comparisons.

    .. math:: \tilde p_{(i)} = \min\bigl(1, \max_{k \le i} (m - k + 1) \, p_{(k)}\bigr)

    Parameters
    ----------
    p_values : sequence of float or None
        In [0, 1]. None and NaN are passed through and do not count towards m.

    Returns
    -------
    list of float or None
        Adjusted p-values in the given order, in [0, 1], to be compared with the significance level.

    Raises
    ------
    InputError
        If a p-value is outside [0, 1].

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.

    Examples
    --------
    >>> holm([0.25, None, 0.03125, 0.0625])
    [0.25, None, 0.09375, 0.125]
    """
    adjusted = list(p_values)
    ordered = sorted((p, place) for place, p in enumerate(p_values) if p is not None and not math.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(ordered):
        if not 0 <= p <= 1:
            raise InputError(f"p-values must be between 0 and 1; got {p}")
        largest = max(largest, min(1.0, (len(ordered) - rank) * p))
        adjusted[place] = largest
    return adjusted


def unreachable(n: int, m: int, level: float = 0.05) -> bool:
    """Whether n pairs cannot reach the level after Holm's correction over m comparisons, whatever their values.

    The smallest two-sided p-value of n pairs is 2**(1 - n), and Holm multiplies the smallest one by m.

    Parameters
    ----------
    n : int
        Number of pairs (seeds), at least 1.
    m : int
        Number of comparisons, at least 1.
    level : float, default 0.05
        Significance level, in (0, 1).

    Returns
    -------
    bool

    Raises
    ------
    InputError
        If an argument is out of range.

    Examples
    --------
    >>> unreachable(5, 1), unreachable(6, 1)
    (True, False)
    """
    if n < 1 or m < 1 or not 0 < level < 1:
        raise InputError(f"expected n >= 1, m >= 1 and 0 < level < 1; got n={n}, m={m}, level={level}")
    return 2.0 ** (1 - n) > level / m


def unreachable_note(n: int, m: int, level: float = 0.05) -> str | None:
    """Sentence for the report if the level is unreachable, else None.

    Parameters
    ----------
    n, m, level
        As for `unreachable`.

    Returns
    -------
    str or None

    Raises
    ------
    InputError
        If an argument is out of range.

    Examples
    --------
    >>> print(unreachable_note(3, 5))
    with 3 seeds the smallest possible p-value is 0.25, so no difference can reach 0.05 after Holm's correction over
    5 comparisons; 8 seeds would do
    """
    if not unreachable(n, m, level):
        return None
    enough = next(more for more in range(n + 1, n + 2_000) if not unreachable(more, m, level))
    seeds = "1 seed" if n == 1 else f"{n} seeds"
    correction = f" after Holm's correction over {m} comparisons" if m > 1 else ""
    return (
        f"with {seeds} the smallest possible p-value is {2.0 ** (1 - n):.3g}, so no difference can reach "
        f"{level:g}{correction}; {enough} seeds would do"
    )


def _floats(values: Iterable[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _interval(values: Floats, seed: int) -> tuple[float, float]:
    from scipy import stats  # its import takes longer than that of all of cl_lib

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():  # BCa degenerates on nearly equal values; the fallback handles that
            warnings.simplefilter("ignore")
            result = stats.bootstrap(
                (values,),
                np.mean,
                n_resamples=RESAMPLES,
                batch=_batch(values.size),
                method=method,
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(result.low) and math.isfinite(result.high):
            break
    return float(result.low), float(result.high)


def _sign_flips(difference: Floats, tolerance: float) -> float:
    """Exact fraction of sign patterns whose sum is at least as far from zero as the observed sum."""
    bound = abs(float(difference.sum())) - tolerance
    if bound <= 0:
        return 1.0
    half = difference.size // 2
    first_sums, second_sums = _signed_sums(difference[:half]), np.sort(_signed_sums(difference[half:]))
    # Patterns come in pairs of opposite sign, so one tail is counted and doubled.
    tail = first_sums.size * second_sums.size - int(np.searchsorted(second_sums, bound - first_sums).sum())
    return 2 * tail / 2**difference.size


def _signed_sums(values: Floats) -> Floats:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return np.sort(sums)


def _random_flips(difference: Floats, seed: int) -> float:
    from scipy import stats

    result = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        batch=_batch(difference.size),
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _batch(size: int) -> int:
    """Number of resamples per batch, such that memory stays at about ten megabytes."""
    return max(1, 1_000_000 // size)
