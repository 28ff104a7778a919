"""Audits: tests equal to scipy's, detectable drops and planted drops against simulations, flips against loops."""

from __future__ import annotations

import dataclasses
from math import sqrt
from typing import Any

import numpy as np
import pytest
from histories import record_of, record_with_samples, sample_results
from scipy.stats import binomtest, false_discovery_control

import cl_lib
from cl_lib.drift.alarms import adjusted
from cl_lib.errors import InputError
from cl_lib.record import Record
from cl_lib.service.auditing import audit
from cl_lib.service.flips import compare, detectable_drop, mcnemar


# ---------------------------------------------------------------------- statistics
def test_mcnemar_is_the_exact_binomial_test() -> None:
    b, c = (part.ravel() for part in np.meshgrid(np.arange(26), np.arange(26)))
    b, c = np.append(b, [400, 90, 0, 1000]), np.append(c, [350, 140, 300, 1100])
    found = mcnemar(b, c)
    expected = [binomtest(int(x), int(x + y), 0.5).pvalue if x + y else 1.0 for x, y in zip(b, c, strict=True)]
    assert np.abs(found - expected).max() < 1e-12
    assert np.array_equal(found, mcnemar(c, b))


@pytest.mark.parametrize("count", [1, 2, 7, 24, 100])
def test_adjustment_is_that_of_benjamini_and_hochberg(count: int) -> None:
    rng = np.random.default_rng(count)
    for power in (1, 3):
        p = rng.random(count) ** power
        p[: count // 3] = p[0]  # ties
        assert np.abs(adjusted(p, "bh") - false_discovery_control(p, method="bh")).max() < 1e-12


def test_slices_are_adjusted_over_all_columns_without_empty_ones() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(4000) < 0.9, rng.random(4000) < 0.88
    slices = {"site": rng.choice([0, 1, 3, 6], 4000), "hour": rng.integers(0, 5, 4000)}
    _, by_slice = compare(before, after, slices)
    losses = [
        binomtest(int(n), int(n + p), 0.5, alternative="greater").pvalue if n + p else 1.0
        for name in slices
        for n, p in zip(by_slice[name].negative, by_slice[name].positive, strict=True)
    ]
    p = np.array(losses)
    tested = np.concatenate([by_slice[name].count for name in slices]) > 0
    q = np.concatenate([by_slice[name].adjusted for name in slices])
    assert tested.sum() == 9
    assert np.allclose(q[tested], false_discovery_control(p[tested], method="bh"), rtol=0, atol=1e-12)
    assert (q[~tested] == 1).all()
    assert np.isnan(by_slice["site"].drop[2])
    assert not by_slice["site"].flagged[2]
    assert by_slice["site"].detectable[2] == 1


def simulated_power(drop: float, share: float, n: int, alpha: float, rng: np.random.Generator) -> float:
    draws = rng.multinomial(n, [(share + drop) / 2, (share - drop) / 2, 1 - share], 4000)
    negative, positive = draws[:, 0], draws[:, 1]
    return float(((mcnemar(negative, positive) < alpha) & (negative > positive)).mean())


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 24])
@pytest.mark.parametrize(("n", "share"), [(400, 0.1), (400, 0.3), (1000, 0.08), (1000, 0.2), (5000, 0.05), (5000, 0.5)])
def test_a_detectable_drop_is_found_four_times_in_five(n: int, share: float, alpha: float) -> None:
    drop = float(detectable_drop(np.array([n]), np.array([share * n]), alpha)[0])
    assert abs(simulated_power(drop, share, n, alpha, np.random.default_rng(0)) - 0.8) < 0.05


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 24])
@pytest.mark.parametrize(("n", "changed"), [(20, 0), (50, 1), (100, 2), (400, 0), (4000, 4)])
def test_a_detectable_drop_with_few_changes_so_far(n: int, changed: int, alpha: float) -> None:
    """A drop needs as many changed predictions; the exact test then finds it at least about as often as stated."""
    drop = float(detectable_drop(np.array([n]), np.array([changed]), alpha)[0])
    assert drop >= changed / n
    power = simulated_power(drop, drop, n, alpha, np.random.default_rng(0))
    assert power > 0.74
    assert simulated_power(drop / 2, drop / 2, n, alpha, np.random.default_rng(0)) < 0.5


def test_detectable_drop_at_its_ends() -> None:
    found = detectable_drop(np.array([0, 1, 3, 10**6]), np.array([0, 1, 3, 10]), 0.05)
    assert (found[:3] == 1).all()  # not even the loss of every prediction is significant
    assert 0 < found[3] < 1e-4
    sizes = np.array([50, 100, 1000, 10_000])
    assert (np.diff(detectable_drop(sizes, sizes // 10, 0.05)) < 0).all()
    assert (detectable_drop(sizes, sizes // 10, 0.01) > detectable_drop(sizes, sizes // 10, 0.05)).all()


# ---------------------------------------------------------------------- planted drops
SLICES, EACH = 24, 1000


def planted(rng: np.random.Generator, drop: float, churn: float = 0.03) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models of accuracy .9 of which predictions change at random; slice 0 loses ``drop``, the others gain it."""
    codes = np.repeat(np.arange(SLICES), EACH)
    negative = np.full(SLICES, churn) + np.where(np.arange(SLICES) == 0, drop, 0)
    positive = np.full(SLICES, churn) + np.where(np.arange(SLICES) == 0, 0, drop / (SLICES - 1))
    before = rng.random(len(codes)) < 0.9
    lost = rng.random(len(codes)) < (negative / 0.9)[codes]
    gained = rng.random(len(codes)) < (positive / 0.1)[codes]
    return before, np.where(before, ~lost, gained), codes


@pytest.mark.parametrize(("churn", "least"), [(0.01, 0.97), (0.02, 0.97), (0.03, 0.95)])
def test_a_planted_drop_is_found_under_a_flat_whole(churn: float, least: float) -> None:
    """The more predictions change at random, the harder."""
    rng = np.random.default_rng(0)
    found, false, changes = 0, [], []
    for _ in range(200):
        before, after, codes = planted(rng, 0.05, churn)
        whole, by_slice = compare(before, after, {"site": codes})
        flagged = by_slice["site"].flagged
        found += bool(flagged[0])
        false.append(flagged[1:].sum() / max(flagged.sum(), 1))
        changes.append(float(whole.drop[0]))
    assert abs(np.mean(changes)) < 0.001
    assert found >= least * 200
    assert np.mean(false) <= 0.06


def test_without_a_change_few_audits_have_a_flag() -> None:
    rng = np.random.default_rng(1)
    flags = 0
    for _ in range(200):
        before, after, codes = planted(rng, 0.0)
        flags += bool(compare(before, after, {"site": codes})[1]["site"].flagged.any())
    assert flags / 200 <= 0.05 + 1.96 * sqrt(0.05 * 0.95 / 200)


def test_a_drop_of_the_whole_is_not_silent() -> None:
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(4), 1000)
    before = rng.random(4000) < 0.9
    after = before & (rng.random(4000) > 0.1)
    whole, by_slice = compare(before, after, {"site": codes})
    assert (by_slice["site"].adjusted < 0.05).all()
    assert whole.p_value[0] < 0.05
    assert not by_slice["site"].flagged.any()


def test_a_gain_of_the_whole_hides_no_slice() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(4), 1000)
    before = rng.random(4000) < 0.7
    after = np.where(codes == 2, before & (rng.random(4000) > 0.1), before | (rng.random(4000) < 0.5))
    whole, by_slice = compare(before, after, {"site": codes})
    assert whole.drop[0] < 0
    assert by_slice["site"].flagged.tolist() == [False, False, True, False]


def test_the_level_of_the_whole_is_the_one_given() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.random(2000) < 0.8, rng.random(2000) < 0.8
    strict, loose = (compare(before, after, {}, alpha)[0] for alpha in (0.001, 0.2))
    assert strict.detectable[0] > loose.detectable[0]
    assert compare(before, after, {}, 0.05)[1] == {}


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan"), "0.05", True, None])
def test_levels_that_cannot_be_used(alpha: Any) -> None:
    with pytest.raises(InputError, match="alpha="):
        compare(np.ones(3, bool), np.ones(3, bool), {}, alpha)
    with pytest.raises(InputError, match="alpha="):
        audit(synthetic(), alpha=alpha)


# ---------------------------------------------------------------------- flips
def synthetic(seed: int = 0) -> Record:
    return record_with_samples(sample_results(np.random.default_rng(seed)))


def counted(results: dict[str, np.ndarray], r: int, rows: tuple[int, int], windows: list[int], name: str, code: int):
    count = negative = positive = 0
    for w in windows:
        for n in range(results["nll"].shape[-1]):
            if name and results[name][w, n] != code:
                continue
            count += 1
            was, now = (bool(results["correct"][r, row, w, n]) for row in rows)
            negative += was and not now
            positive += now and not was
    return count, negative, positive


@pytest.mark.parametrize("on", ["next", "seen", "all"])
def test_flips_are_those_of_a_loop(on: Any) -> None:
    results = sample_results(np.random.default_rng(0))
    record = record_with_samples(results)
    found = audit(record, on=on)
    last = {"next": 9, "seen": 10, "all": 10}[on]
    assert [pair[:2] for pair in found.updates] == [(i - 1, i) for i in range(2, last + 1)]
    for u, (before, after, windows) in enumerate(found.updates):
        assert windows == {"next": [after], "seen": list(range(before)), "all": list(range(10))}[on]
        for r in range(3):
            whole = found.whole[u][r]
            numbers = [int(part[0]) for part in (whole.count, whole.negative, whole.positive)]
            assert numbers == list(counted(results, r, (before, after), windows, "", 0))
            for name, key in (("class", "label"), ("group", "group")):
                flips = found.by_slice[u][r][name]
                for code in range(3):
                    numbers = [int(part[code]) for part in (flips.count, flips.negative, flips.positive)]
                    assert numbers == list(counted(results, r, (before, after), windows, key, code))
                assert np.array_equal(found.drops(name)[r, u], flips.drop)
                assert np.array_equal(found.flags(name)[r, u], flips.flagged)


def test_chosen_rows() -> None:
    record = synthetic()
    assert [p[:2] for p in audit(record, row=4).updates] == [(3, 4)]
    assert [p[:2] for p in audit(record, row=8, against=3).updates] == [(3, 8)]
    rollback = audit(record, row=3, against=8)
    assert rollback.updates == [(8, 3, [8])]
    assert [p[:2] for p in audit(record, against=7).updates] == [(7, 8), (7, 9)]
    forth, back = audit(record, row=5, against=3, on="all"), audit(record, row=3, against=5, on="all")
    for one, other in zip(forth.whole[0], back.whole[0], strict=True):
        assert np.array_equal(one.negative, other.positive)
        assert np.array_equal(one.p_value, other.p_value)
    assert audit(record, "class").labels.keys() == {"class"}
    assert audit(record, ["group", "class"]).labels.keys() == {"group", "class"}


def test_a_planted_drop_is_printed() -> None:
    results = sample_results(np.random.default_rng(0), windows=4, samples=4000)
    rng = np.random.default_rng(1)
    results["correct"][:] = rng.random((3, 1, 4, 4000)) < 0.8
    inside = results["group"][None, 3] == 1
    results["correct"][:, 3, 3] &= ~(inside & (rng.random((3, 4000)) < 0.1))
    results["correct"][:, 3, 3] |= ~inside & (rng.random((3, 4000)) < 0.2)
    text = str(audit(record_with_samples(results), "group"))
    assert "group g1" in text
    assert "no slice" not in text
    assert "no slice" in str(audit(synthetic(), "group"))


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "grop"}, "by='grop': the record has no such column; did you mean group"),
        ({"by": None}, "by=None: must be a column or a list of columns"),
        ({"by": [3]}, "by=3: the record has no such column"),
        ({"by": ["class", "origin"]}, "by='origin': the record has no such column"),
        ({"on": "last"}, "on='last': must be one of next, seen, all"),
        ({"row": 0}, "row=0: must be a row from 1 to 10"),
        ({"row": 11}, "row=11"),
        ({"row": 2.0}, "row=2.0"),
        ({"against": -1}, "against=-1"),
        ({"row": 10}, r"row 10 has no update with windows to compare on \(on=next\)"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        audit(synthetic(), **options)


def test_records_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="run with save_predictions=true"):
        audit(record_of(np.random.default_rng(0).random((2, 5, 4))))
    with pytest.raises(InputError, match=r"has no arrays\.npz"):
        audit(dataclasses.replace(synthetic(), arrays={}))


# ---------------------------------------------------------------------- a real run
@pytest.mark.slow
def test_a_real_run() -> None:
    stream = cl_lib.streams.split(cl_lib.datasets.digits())
    record = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2, save_predictions=True)
    found = audit(record, on="all")
    negative, positive = (record.arrays[f"flips.{name}"] for name in ("negative", "positive"))
    for u, (before, after, _) in enumerate(found.updates):
        assert after == before + 1
        for r in range(2):
            assert found.whole[u][r].negative[0] == negative[r, before].sum()
            assert found.whole[u][r].positive[0] == positive[r, before].sum()
            assert np.array_equal(found.by_slice[u][r]["class"].count, record.arrays["class.count"][r, after])
    assert str(found)
