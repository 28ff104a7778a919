"""Slices: support, worst, gap, forgetting, and ages."""

import numpy as np
import pytest

from cl_lib.errors import InputError
from cl_lib.metrics import age_groups, ece, gap, merge_groups, slice_forgetting, slice_table, worst


def test_table_with_replicas() -> None:
    rng = np.random.default_rng(0)
    count = rng.integers(1, 50, (2, 3, 4, 16)).astype(float)
    bins = np.stack([count, count * rng.random(count.shape), count * rng.random(count.shape)], -1)
    table = slice_table("abcd", count.sum(-1), bins[..., 2].sum(-1), bins)
    assert table.labels == ("a", "b", "c", "d")
    assert table.support.shape == table.accuracy.shape == (2, 3, 4)
    np.testing.assert_allclose(table.accuracy, bins[..., 2].sum(-1) / count.sum(-1))
    np.testing.assert_array_equal(table.ece, ece(bins))
    with pytest.raises(InputError, match="3 labels"):
        slice_table("abc", count.sum(-1), count.sum(-1), bins)


def test_worst_and_gap() -> None:
    accuracy = np.array([[0.9, 0.6, 0.1], [0.8, np.nan, 0.7], [0.5, 0.4, np.nan]])
    support = np.array([100, 30, 29])
    np.testing.assert_array_equal(worst(accuracy, support), [0.6, np.nan, 0.4])
    np.testing.assert_allclose(gap(accuracy, support), [0.3, np.nan, 0.1])
    np.testing.assert_array_equal(worst(accuracy, support, minimum=1)[0], 0.1)
    assert np.isnan(worst(accuracy, [29, 0, 3])).all()
    assert np.isnan(gap(accuracy, [29, 0, 3])).all()
    assert np.isnan(gap([0.7, 0.2], [30, 2]))  # one eligible slice has nothing to differ from
    with pytest.raises(InputError, match="minimum"):
        worst(accuracy, support, minimum=0)


def test_forgetting() -> None:
    history = np.random.default_rng(0).random((2, 6, 3))
    result = slice_forgetting(history)
    for r in range(2):
        for g in range(3):
            assert result[r, g] == max(history[r, i, g] for i in range(1, 5)) - history[r, 5, g]
    assert np.isnan(slice_forgetting(history[:, :2])).all()
    with pytest.raises(InputError, match="history"):
        slice_forgetting([0.5])


def test_ages() -> None:
    group, labels = age_groups([[0, 9, 10, 99], [100, 999, 1000, -1]])
    assert group.tolist() == [[0, 0, 1, 1], [2, 2, 3, 4]]
    assert labels == ("0-9 steps", "10-99 steps", "100-999 steps", "1000-9999 steps", "never trained")
    group, labels = age_groups([-1, -1])
    assert (group.tolist(), labels) == ([1, 1], ("0-9 steps", "never trained"))
    assert age_groups([10])[1] == ("0-9 steps", "10-99 steps", "never trained")
    for bad in ([0.5], [-2, 3]):
        with pytest.raises(InputError, match="must contain integers"):
            age_groups(bad)


def test_merge_classes_into_ages() -> None:
    rng = np.random.default_rng(0)
    bins, group = rng.random((2, 5, 16, 3)), rng.integers(0, 3, (2, 5))
    expected = np.zeros((2, 4, 16, 3))
    for r in range(2):
        for c in range(5):
            expected[r, group[r, c]] += bins[r, c]
    np.testing.assert_allclose(merge_groups(bins, group, 4), expected)
    bins[0] = np.nan
    np.testing.assert_allclose(merge_groups(bins, group, 4)[1], expected[1])
    with pytest.raises(InputError, match="do not fit"):
        merge_groups(bins, group[:, 1:], 4)
    with pytest.raises(InputError, match="between 0 and 1"):
        merge_groups(bins, np.full((2, 5), 2), 2)
