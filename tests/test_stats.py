"""Intervals and exact paired tests, against SciPy and brute force."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from cl_lib.errors import InputError
from cl_lib.stats import Summary, holm, paired_difference, summarise, unreachable, unreachable_note


def test_summary() -> None:
    values = np.random.default_rng(0).normal(size=12)
    summary = summarise([*values, None, math.nan])
    assert summary.n == 12
    assert summary.mean == pytest.approx(values.mean())
    assert summary.std == pytest.approx(values.std(ddof=1))
    expected = stats.bootstrap((values,), np.mean, random_state=np.random.default_rng(0)).confidence_interval
    assert summary.ci95 == pytest.approx((expected.low, expected.high))
    assert summary == summarise(values)  # the same seed, the same interval
    assert summary.ci95 != summarise(values, seed=1).ci95


def test_interval_covers() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        low, high = summarise(rng.normal(size=20)).ci95  # type: ignore[misc]
        hits += low <= 0 <= high
    assert 51 <= hits <= 60  # 92 % expected at this size


def test_few_and_equal_values() -> None:
    assert summarise([]) == summarise([None, math.nan]) == Summary(None, None, None, 0)
    assert summarise([0.3]) == Summary(0.3, None, None, 1)
    assert summarise([0.1, 0.1, 0.1]) == Summary(0.1, 0.0, (0.1, 0.1), 3)
    two = summarise([1.0, 2.0])
    assert two.mean == 1.5
    assert two.ci95 == (1.0, 2.0)
    near = summarise([1.0, 1.0, 1.0, 1.0 + 1e-15])
    assert near.ci95 is not None
    assert 1.0 <= near.ci95[0] <= near.ci95[1] <= 1.0 + 2e-15
    assert summarise([math.inf, 1.0]) == Summary(math.inf, None, None, 2)


def brute_force(difference: list[float]) -> float:
    observed = abs(sum(difference))
    totals = [
        abs(math.fsum(s * d for s, d in zip(signs, difference, strict=True)))
        for signs in product((1, -1), repeat=len(difference))
    ]
    return sum(total >= observed - 1e-9 for total in totals) / len(totals)


@pytest.mark.parametrize("n", range(1, 13))
def test_paired_against_brute_force(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(size=n) - 0.4
    assert paired_difference(a, b).p_value == brute_force((a - b).tolist())
    # Accuracies in percent: many ties and zeros, and differences that round.
    a, b = rng.integers(88, 93, n) / 100, rng.integers(88, 92, n) / 100
    assert paired_difference(a, b).p_value == brute_force((a - b).tolist())


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_paired_against_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(size=n) - 0.4
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    result = paired_difference(a, b)
    assert result.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    assert result.mean == pytest.approx((a - b).mean())
    assert result.ci95 == summarise(a - b).ci95
    assert paired_difference(b, a).p_value == result.p_value


def test_forty_pairs_are_exact() -> None:
    """All differences 1 but k: the p-value is a binomial tail."""
    difference = np.ones(40)
    difference[:12] = -1
    result = paired_difference(difference, np.zeros(40))
    assert result.exact
    assert result.p_value == pytest.approx(stats.binomtest(12, 40).pvalue, rel=1e-12)
    assert paired_difference(np.ones(40), np.zeros(40)).p_value == 2.0**-39


def test_beyond_forty_pairs() -> None:
    difference = np.ones(50)
    difference[:20] = -1
    result = paired_difference(difference, np.zeros(50))
    assert not result.exact
    assert result.p_value == pytest.approx(stats.binomtest(20, 50).pvalue, abs=0.01)


def test_paired_edges() -> None:
    result = paired_difference([1.0, None, 3.0, math.nan], [0.5, 1.0, None, 2.0])
    assert (result.mean, result.ci95, result.p_value, result.n) == (0.5, None, 1.0, 1)
    assert paired_difference([None], [1.0])[:4] == (None, None, None, 0)
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).p_value == 1.0
    with pytest.raises(InputError, match="must have the same length"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="infinite"):
        paired_difference([math.inf], [1.0])


def test_holm() -> None:
    # Sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04, raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    first, second, third = holm([None, 0.02, math.nan])
    assert first is None
    assert second == 0.02
    assert third is not None
    assert math.isnan(third)
    with pytest.raises(InputError, match="between 0 and 1"):
        holm([1.5])


def test_unreachable() -> None:
    assert unreachable(5, 1)  # 1/16
    assert not unreachable(6, 1)  # 1/32
    assert unreachable(7, 5)  # 1/64 is more than 0.05 / 5
    assert not unreachable(8, 5)  # 1/128 is less
    assert unreachable_note(8, 5) is None
    assert unreachable_note(3, 5) == (
        "with 3 seeds the smallest possible p-value is 0.25, so no difference can reach 0.05 after Holm's "
        "correction over 5 comparisons; 8 seeds would do"
    )
    assert unreachable_note(1, 1) == (
        "with 1 seed the smallest possible p-value is 1, so no difference can reach 0.05; 6 seeds would do"
    )
    # What it promises: the strongest result of that many seeds, beside hopeless comparisons, passes.
    for n, passes in ((7, False), (8, True)):
        p_value = paired_difference(np.arange(1.0, n + 1), np.zeros(n)).p_value
        best = holm([p_value, 1.0, 1.0, 1.0, 1.0])[0]
        assert best is not None
        assert (best <= 0.05) is passes
    for n, m, level in ((0, 1, 0.05), (1, 0, 0.05), (1, 1, 0.0)):
        with pytest.raises(InputError, match="expected n"):
            unreachable(n, m, level)


def test_values_whose_squares_overflow() -> None:
    summary = summarise([1e200, 2e200, 3e200])
    assert summary.std == pytest.approx(1e200)
    assert summarise([1.5e308, 1.6e308, 1.0])[:2] == (math.inf, None)
