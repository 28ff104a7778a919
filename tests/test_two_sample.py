"""Two-sample tests against SciPy, float64 loops and enumeration; uniform p-values and power of the permutation test."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from cl_lib.drift import chi_square, chi_squares, kolmogorov_smirnov, mean_shift, mmd
from cl_lib.errors import InputError


# ---------------------------------------------------------------------- chi-square
def merged(a: np.ndarray, b: np.ndarray, least: float) -> list[list[int]]:
    """The cells of two windows after merging, by a plain loop: categories from the smallest, until a cell is full."""
    share = min(a.sum(), b.sum()) / (a.sum() + b.sum())
    cells: list[list[int]] = [[0, 0]]
    for k in sorted(range(len(a)), key=lambda k: (a[k] + b[k], k)):
        total = sum(cells[-1])
        if total > 0 and total * share >= least:
            cells.append([0, 0])
        cells[-1][0] += int(a[k])
        cells[-1][1] += int(b[k])
    if len(cells) > 1 and sum(cells[-1]) * share < least:
        last = cells.pop()
        cells[-1] = [u + v for u, v in zip(cells[-1], last, strict=True)]
    return cells


def reference(a: np.ndarray, b: np.ndarray, least: float = 5.0, merge=merged) -> tuple[float, float, float]:
    cells = merge(a, b, least)
    if len(cells) < 2:
        return 0.0, 1.0, 0.0
    table = np.array(cells).T
    found = stats.chi2_contingency(table, correction=False)
    return found.statistic, found.pvalue, stats.contingency.association(table, method="cramer")


def windows(seed: int, tables: int = 200, categories: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of windows with frequent and rare categories."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(categories, 0.4), size=tables)
    n = rng.integers(1, 300, (2, tables))
    return rng.multinomial(n[0], p), rng.multinomial(n[1], p)


@pytest.mark.parametrize("least", [0, 0.5, 5, 20])
def test_chi_square_is_scipys_on_the_merged_table(least):
    a, b = windows(int(least))
    for left, right, *found in zip(a, b, *chi_squares(a, b, least), strict=True):
        np.testing.assert_allclose(found, reference(left, right, least), rtol=1e-12, atol=1e-12)


def test_merging_leaves_no_small_cell_and_loses_nothing():
    small = 0
    for a, b in zip(*windows(1), strict=True):
        cells = merged(a, b, 5)
        assert np.sum(cells, axis=0).tolist() == [a.sum(), b.sum()]
        if len(cells) > 1:
            assert stats.contingency.expected_freq(np.array(cells).T).min() >= 5
        small += len(cells) < np.count_nonzero(a + b)
    assert small > 100, "most of these tables have small cells"


@pytest.mark.parametrize(
    ("merge", "what"),
    [
        (lambda a, b, least: [[x, y] for x, y in zip(a, b, strict=True) if x + y], "no merging"),
        (lambda a, b, least: merged(a[::-1], b[::-1], 0), "only empty ones"),
        (lambda a, b, least: merged(b, a, 2 * least), "twice the expected count"),
    ],
)
def test_another_rule_of_merging_would_be_noticed(merge, what):
    a, b = windows(2)
    ours = chi_squares(a, b).p_value
    others = [reference(left, right, 5, merge)[1] for left, right in zip(a, b, strict=True)]
    assert np.mean(np.abs(ours - others) > 1e-6) > 0.5, what


def test_one_table_is_as_among_many():
    a, b = windows(3)
    many = chi_squares(a.reshape(10, 20, -1), b.reshape(10, 20, -1))
    assert many.p_value.shape == (10, 20)
    one = [chi_square(left, right) for left, right in zip(a, b, strict=True)]
    assert all(type(value) is float for value in one[0])
    np.testing.assert_array_equal(np.array(one).T, np.array([values.ravel() for values in many]))
    shared = chi_squares(a[0], b)
    np.testing.assert_array_equal(shared.statistic, [chi_square(a[0], right).statistic for right in b])


def test_merging_by_hand():
    # totals 3, 5, 6, 26 and 40 of 40 in each: 3 + 5 is too few, 3 + 5 + 6 is enough
    a, b = [20, 2, 3, 12, 3], [20, 1, 2, 14, 3]
    assert chi_square(a, b).statistic == pytest.approx(stats.chi2_contingency([[8, 12, 20], [6, 14, 20]])[0], rel=1e-12)
    # the last cell is too small and joins the one before it
    assert chi_square([3, 3], [3, 2]) == (0.0, 1.0, 0.0)
    assert chi_square([6, 1], [6, 1], 6.0) == (0.0, 1.0, 0.0)
    assert chi_square([7], [9]) == (0.0, 1.0, 0.0)


def test_categories_nobody_has_change_nothing():
    a, b = np.array([40, 30, 20, 10]), np.array([30, 30, 20, 20])
    padded = chi_square([0, *a, 0, 0], [0, *b, 0, 0])
    assert padded == chi_square(a, b)
    assert chi_square([*a, 0], [*b, 0], min_expected=0) == chi_square(a, b)


def test_effect_of_disjoint_and_equal_windows():
    assert chi_square([50, 0], [0, 30]).effect_size == pytest.approx(1.0)
    assert chi_square([50, 30], [50, 30]) == (0.0, 1.0, 0.0)
    small, large = chi_square([50, 50], [40, 60]), chi_square([5000, 5000], [4000, 6000])
    assert large.effect_size == pytest.approx(small.effect_size)
    assert large.p_value < 1e-20 < small.p_value


def test_level_of_chi_square_under_the_null():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(20, 0.5))
    found = chi_squares(rng.multinomial(200, p, 4000), rng.multinomial(120, p, 4000))
    assert 0.035 <= np.mean(found.p_value < 0.05) <= 0.065


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        ([1, 2], [1, 2, 3], {}, "a, b: must have the same categories; they have 2 and 3"),
        ([1, -2], [1, 2], {}, "a: 1 of 2 counts are NaN, infinite, negative or fractions"),
        ([1, 2], [0.5, math.nan], {}, "b: 2 of 2 counts are NaN"),
        ([0, 0], [1, 2], {}, "a: 1 of 1 windows are empty"),
        ([], [], {}, "a: must be a non-empty array of counts"),
        (["x"], [1], {}, "a: must be a non-empty array of counts"),
        (3, 4, {}, "a: must be a non-empty array of counts"),
        ([[1, 2], [3]], [1, 2], {}, "a: must be an array of counts"),
        ([[1, 2]], [[1, 2]], {}, "a, b: must have one dimension"),
        ([1, 2], [1, 2], {"min_expected": -1}, "min_expected=-1: must be a number, 0 or more"),
        ([1, 2], [1, 2], {"min_expected": math.nan}, "min_expected=nan: must be"),
    ],
)
def test_wrong_counts(a, b, options, words):
    with pytest.raises(InputError, match=f"^{words}"):
        chi_square(a, b, **options)


def test_windows_that_do_not_fit():
    with pytest.raises(InputError, match=r"a, b: shapes \(2, 3\) and \(4, 3\) do not fit each other"):
        chi_squares(np.ones((2, 3)), np.ones((4, 3)))
    with pytest.raises(InputError, match="b: 2 of 3 windows are empty"):
        chi_squares([1, 1], [[0, 0], [1, 0], [0, 0]])


# ---------------------------------------------------------------------- Kolmogorov-Smirnov
def distance(a, b) -> float:
    """D by a loop."""
    return max(abs(np.mean(np.asarray(a) <= t) - np.mean(np.asarray(b) <= t)) for t in [*a, *b])


@pytest.mark.parametrize(("m", "n", "digits"), [(1, 1, 9), (4, 5, 9), (30, 50, 9), (200, 300, 1)])
def test_ks_is_scipys_and_the_loops(m, n, digits):
    rng = np.random.default_rng(m)
    a, b = rng.normal(size=m).round(digits), (rng.normal(size=n) + 0.3).round(digits)
    found, expected = kolmogorov_smirnov(a, b), stats.ks_2samp(a, b)
    assert found == pytest.approx((expected.statistic, expected.pvalue, expected.statistic), abs=1e-12)
    assert found.statistic == pytest.approx(distance(a, b), abs=1e-12)


def test_ks_p_value_by_enumeration():
    a, b = [0.1, 0.4, 0.5, 1.7], [0.2, 1.1, 1.3, 1.9, 2.2]
    pooled, found = np.array(a + b), kolmogorov_smirnov(a, b)
    splits = [np.isin(np.arange(9), chosen) for chosen in itertools.combinations(range(9), 4)]
    larger = [distance(pooled[s], pooled[~s]) >= found.statistic - 1e-9 for s in splits]
    assert found.p_value == pytest.approx(np.mean(larger), abs=1e-12)


def test_ks_of_large_and_of_equal_samples():
    rng = np.random.default_rng(0)
    assert kolmogorov_smirnov(rng.normal(size=9_000), rng.normal(size=8_999) + 2).p_value < 1e-100
    assert kolmogorov_smirnov([1, 1, 1], [1, 1]) == (0.0, 1.0, 0.0)
    assert kolmogorov_smirnov([True, False], [False, True]) == (0.0, 1.0, 0.0)


# ---------------------------------------------------------------------- mean
@pytest.mark.parametrize(("m", "n"), [(2, 2), (5, 9), (200, 120)])
def test_mean_shift_is_scipys_and_the_loops(m, n):
    rng = np.random.default_rng(m)
    a, b = rng.normal(size=m), 2 * rng.normal(size=n) + 0.7
    found, expected = mean_shift(a, b), stats.ttest_ind(b, a, equal_var=False)
    assert found[:2] == pytest.approx((expected.statistic, expected.pvalue), abs=1e-12)
    mean = [math.fsum(v) / len(v) for v in (a, b)]
    squares = [math.fsum((x - mu) ** 2 for x in v) for v, mu in zip((a, b), mean, strict=True)]
    assert found.effect_size == pytest.approx((mean[1] - mean[0]) / math.sqrt(sum(squares) / (m + n - 2)), abs=1e-12)
    back = mean_shift(b, a)
    assert back == pytest.approx((-found.statistic, found.p_value, -found.effect_size), abs=1e-12)


def test_mean_shift_recovers_a_known_effect_at_every_size():
    rng = np.random.default_rng(0)
    for n in (1_000, 100_000):
        assert mean_shift(rng.normal(size=n), rng.normal(size=n) + 0.5).effect_size == pytest.approx(0.5, abs=0.15)


def test_constant_samples():
    assert mean_shift([0.1] * 3, [0.1] * 7) == (0.0, 1.0, 0.0)
    assert mean_shift([0, 0], [1, 1, 1]) == (math.inf, 0.0, math.inf)
    assert mean_shift([1, 1], [0, 0]) == (-math.inf, 0.0, -math.inf)
    assert mean_shift([0.0, 0.0], [0.0, 1e-170]) == pytest.approx((math.inf, 0.0, math.inf))
    half = mean_shift([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
    assert half == (0.0, 1.0, 0.0)


# ---------------------------------------------------------------------- MMD
def discrepancy(x, y, h) -> tuple[float, float]:
    """MMD² and H by loops over pairs."""

    def mean(u, v, same):
        pairs = [(p, q) for i, p in enumerate(u) for j, q in enumerate(v) if not (same and i == j)]
        return math.fsum(math.exp(-(math.dist(p, q) ** 2) / (2 * h * h)) for p, q in pairs) / len(pairs)

    across = mean(x, y, False)
    square = mean(x, x, True) + mean(y, y, True) - 2 * across
    return square, max(0.0, square) / (2 * (1 - across))


@pytest.mark.parametrize(("m", "n", "d"), [(2, 2, 1), (6, 9, 1), (12, 7, 3)])
@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_mmd_is_the_loops(m, n, d, bandwidth):
    rng = np.random.default_rng(m)
    x, y = rng.normal(size=(m, d)), rng.normal(size=(n, d)) + 0.5
    pooled = [*x, *y]
    h = bandwidth or math.sqrt(np.median([math.dist(u, v) ** 2 for u, v in itertools.combinations(pooled, 2)]))
    found = mmd(x, y, 20, bandwidth=bandwidth)
    assert (found.statistic, found.effect_size) == pytest.approx(discrepancy(x, y, h), abs=1e-12)


def test_the_median_distance_is_the_bandwidth():
    x, y = np.array([0.0, 1.0]), np.array([3.0, 3.0])  # distances 0, 1, 2, 2, 3, 3
    assert mmd(x, y, 1).statistic == pytest.approx(discrepancy(x[:, None], y[:, None], 2.0)[0], abs=1e-12)
    rare = np.array([0.0] * 9 + [3.0])  # most distances are 0
    assert mmd(rare, rare, 1).statistic == pytest.approx(discrepancy(rare[:, None], rare[:, None], 3.0)[0], abs=1e-12)


def test_the_p_value_tends_to_that_of_all_splits():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=(5, 2)) + 0.9
    pooled, found = np.concatenate([x, y]), mmd(x, y, 20_000, bandwidth=1.0)
    splits = [np.isin(np.arange(9), chosen) for chosen in itertools.combinations(range(9), 4)]
    exact = np.mean([discrepancy(pooled[s], pooled[~s], 1.0)[0] >= found.statistic - 1e-9 for s in splits])
    assert 0.02 < exact < 0.6
    assert found.p_value == pytest.approx(exact, abs=0.012)


def test_ties_count_as_larger():
    """Two of the six splits are as far apart as the observed one."""
    assert mmd([0.0, 0.0], [1.0, 1.0], 3_000).p_value == pytest.approx(1 / 3, abs=0.03)


def p_values(shift: float, n: int = 40, runs: int = 200, d: int = 2) -> list[float]:
    out = []
    for seed in range(runs):
        rng = np.random.default_rng([7, seed])
        x, y = rng.normal(size=(n, d)), rng.normal(size=(n + 15, d))
        y[:, 0] += shift
        out.append(mmd(x, y, 199, seed=seed).p_value)
    return out


def test_p_values_are_uniform_under_the_null():
    found = np.array(p_values(0.0))
    assert np.allclose(found * 200, np.round(found * 200))
    assert found.min() >= 1 / 200
    jitter = np.random.default_rng(0).random(200) / 200  # a p-value on a grid is uniform within its step
    assert stats.kstest(found - jitter, "uniform").pvalue > 0.01
    slightly = np.array(p_values(0.25)) - jitter
    assert stats.kstest(slightly, "uniform").pvalue < 0.01, "the check sees a difference of a quarter"


@pytest.mark.slow
@pytest.mark.parametrize("d", range(1, 6))
def test_power_at_half_a_standard_deviation(d):
    """The shift is in one feature only."""
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng([8, seed])
        x, y = rng.normal(size=(500, d)), rng.normal(size=(500, d))
        y[:, 0] += 0.5
        hits += mmd(x, y, 100, seed=seed).p_value < 0.05
    assert hits >= 0.95 * 40


def test_the_effect_does_not_grow_with_the_sample():
    rng = np.random.default_rng(0)
    small, large = (
        np.mean([mmd(rng.normal(size=n), rng.normal(size=n) + 1, 1).effect_size for _ in range(20)]) for n in (100, 400)
    )
    assert 0.15 < large < 0.22
    assert small == pytest.approx(large, abs=0.04)
    assert mmd([0.0] * 20, [1.0] * 30, 99) == pytest.approx((2 - 2 * math.exp(-0.5), 0.01, 1.0))


def test_constant_tied_and_extreme_samples():
    assert mmd([3.0, 3.0], [3.0, 3.0, 3.0]) == (0.0, 1.0, 0.0)
    bits = np.random.default_rng(0).integers(0, 2, (2, 60))
    assert mmd(bits[0], bits[1]).p_value > 0.05
    outlier = mmd([0.0, 1.0, 2.0, 1e140], [0.5, 1.5, 2.5])
    assert all(map(math.isfinite, outlier))
    assert mmd([0.0, 1e-170], [1e-170, 0.0]).p_value == 1
    for h in (1e-100, 1e100):
        assert all(map(math.isfinite, mmd([0.0, 1.0, 2.0], [2.0, 3.0], bandwidth=h)))


def test_the_seed_decides_and_large_samples_are_bounded():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), rng.normal(size=(400, 2)) + 0.05
    assert mmd(x, y, seed=1) == mmd(x, y, seed=1)
    assert mmd(x, y, seed=1).p_value != mmd(x, y, seed=2).p_value
    assert mmd(x, y, 20, seed=1).statistic == mmd(x, y, 20, seed=2).statistic
    assert mmd(x, y, 20, seed=1, most=100).statistic != mmd(x, y, 20, seed=2, most=100).statistic
    assert mmd(x, y, 20, most=400) == mmd(x, y, 20)
    long = rng.normal(size=(50_000, 1))
    tracemalloc.start()
    mmd(long, long, 5, most=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]], {}, r"x: must hold at least 2 values; its shape is \(1, 2\)"),
        ([[1.0, 2.0]] * 2, [1.0, 2.0], {}, "x, y: must have the same features; they have 2 and 1"),
        ([1.0, 2.0], [1.0, math.inf], {}, "y: 1 of 2 values is NaN or infinite"),
        ([1.0, 2.0], [1.0, 2.0], {"permutations": 0}, "permutations=0: must be a whole number, 1 or more"),
        ([1.0, 2.0], [1.0, 2.0], {"seed": -1}, "seed=-1: must be a whole number, 0 or more"),
        ([1.0, 2.0], [1.0, 2.0], {"most": 1}, "most=1: must be a whole number, 2 or more"),
        ([1.0, 2.0], [1.0, 2.0], {"bandwidth": 0}, "bandwidth=0: must be a number above 0"),
        ([1.0, 2.0], [1.0, 2.0], {"bandwidth": math.nan}, "bandwidth=nan: must be a number above 0"),
    ],
)
def test_wrong_input_of_mmd(x, y, options, words):
    with pytest.raises(InputError, match=f"^{words}"):
        mmd(x, y, **options)


@pytest.mark.parametrize("test", [kolmogorov_smirnov, mean_shift])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "must hold at least"),
        ([1.0, math.nan, math.inf, 2.0], "2 of 4 values are NaN or infinite; all must be finite"),
        ([1.0, 1e200], "1 of 2 values is beyond"),
        ([None, 1.0], "must be an array of numbers; got object"),
        (["a", "b"], "must be an array of numbers"),
        ([1j, 2j], "must be an array of numbers; got complex128"),
        ([[1.0], [1.0, 2.0]], "must be an array of numbers"),
        ([[1.0, 2.0]], r"must have 1 dimension; its shape is \(1, 2\)"),
    ],
)
def test_wrong_samples_are_named(test, values, words):
    with pytest.raises(InputError, match=f"^a: {words}"):
        test(values, [1.0, 2.0])
    with pytest.raises(InputError, match=f"^b: {words}"):
        test([1.0, 2.0], values)
