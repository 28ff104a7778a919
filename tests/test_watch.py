"""Watches against scipy on hand-made counts, alarms at the stated rate, and explanations that add up."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from histories import record_of, record_with_samples, sample_results
from scipy.stats import chi2_contingency, false_discovery_control

from cl_lib.drift import (
    Confidence,
    Errors,
    Inputs,
    Labels,
    PredictedLabels,
    TwoSample,
    Watch,
    adjusted,
    calibrate,
    chi_squares,
    decompose,
    explain,
    signals,
)
from cl_lib.drift.alarms import repeated
from cl_lib.errors import InputError
from cl_lib.policies import Known, WindowHistory

REPLICAS, WINDOWS, SAMPLES, KINDS, FEATURES = 3, 9, 400, 4, 3
WATCHES: list[type[Watch]] = [Inputs, Labels, PredictedLabels, Confidence, Errors]


def counts_by_hand() -> dict[str, np.ndarray]:
    """Counts of each window, drifting, with enough samples in every category; (R, T + 1, E, K) where rows matter."""
    rng = np.random.default_rng(0)
    shares = np.stack([rng.dirichlet(np.full(KINDS, 8.0)) for _ in range(WINDOWS)]) * 0.8 + 0.05

    def draw(*lead: int) -> np.ndarray:
        p = np.broadcast_to(shares, (*lead, WINDOWS, KINDS))
        return rng.multinomial(SAMPLES, p / p.sum(-1, keepdims=True))

    wrong = rng.binomial(SAMPLES, np.linspace(0.1, 0.4, WINDOWS), (REPLICAS, WINDOWS + 1, WINDOWS))
    return {
        "inputs": draw(FEATURES).swapaxes(0, 1),
        "labels": draw(),
        "predicted": draw(REPLICAS, WINDOWS + 1),
        "confidence": draw(REPLICAS, WINDOWS + 1),
        "errors": np.stack([wrong, SAMPLES - wrong], -1),
    }


COUNTS = counts_by_hand()


def known(window: int, delay: int, serving: Any) -> Known:
    losses = {"error": COUNTS["errors"][..., 0] / SAMPLES, "nll": COUNTS["errors"][..., 0] / SAMPLES}
    parts = {
        "labels": lambda: COUNTS["labels"],
        "inputs": lambda: COUNTS["inputs"],
        "predicted": lambda row: COUNTS["predicted"][:, row],
        "confidence": lambda row: COUNTS["confidence"][:, row],
    }
    history = WindowHistory(losses, np.full(WINDOWS, SAMPLES), np.arange(REPLICAS), parts)
    serving = np.asarray(serving)
    return Known(window, window - delay, serving, np.ones(serving.shape, int), history)


def total(kind: str, r: int, row: int, windows: range, feature: int) -> np.ndarray:
    out = np.zeros(COUNTS[kind].shape[-1], int)
    for w in windows:
        if kind == "inputs":
            out += COUNTS[kind][w, feature]
        elif kind == "labels":
            out += COUNTS[kind][w]
        else:
            out += COUNTS[kind][r, row, w]
    return out


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize(("reference", "recent"), [(1, 1), (2, 1), (1, 2), (3, 3)])
@pytest.mark.parametrize("watch", WATCHES, ids=lambda w: w.__name__)
def test_a_watch_is_a_chi_square_test(watch: type[Watch], reference: int, recent: int, delay: int) -> None:
    tested = 0
    for window in range(delay + 2, WINDOWS):
        newest = window - delay
        serving = np.array([1, max(1, newest - 2), newest - 1])
        for back in (0, 1):
            found = watch(reference, recent).measure(known(window, delay, serving), back)
            features = FEATURES if watch is Inputs else 1
            assert found.p_value.shape in ((REPLICAS, features), (REPLICAS, 1))  # nothing to test, nothing by feature
            found = TwoSample(*(np.broadcast_to(part, (REPLICAS, features)) for part in found))
            for r, row in enumerate(serving.tolist()):
                first = range(row, row + reference) if watch is Errors else range(max(0, row - reference), row)
                end = (newest if watch in (Labels, Errors) else window) - back
                last = range(end - recent, end)
                for f in range(features):
                    if last.start < first.stop:
                        assert [float(part[r, f]) for part in found] == [0, 1, 0]
                        continue
                    table = np.stack([total(watch.kind, r, row, part, f) for part in (first, last)])
                    statistic, p, _, expected = chi2_contingency(table, correction=False)
                    assert expected.min() >= 5
                    assert abs(found.statistic[r, f] - statistic) < 1e-9
                    assert abs(found.p_value[r, f] - p) < 1e-12
                    assert abs(found.effect_size[r, f] - sqrt(statistic / table.sum())) < 1e-12
                    tested += 1
    assert tested > 5 or reference + recent > 2


@pytest.mark.parametrize("watch", WATCHES, ids=lambda w: w.__name__)
def test_a_grid_measures_each_point(watch: type[Watch]) -> None:
    serving = np.array([[1, 3, 5], [2, 2, 2], [6, 1, 4]])
    whole = watch().measure(known(8, 1, serving))
    for g, rows in enumerate(serving):
        for part, one in zip(whole, watch().measure(known(8, 1, rows)), strict=True):
            assert np.array_equal(part[g], one)


@pytest.mark.parametrize("watch", WATCHES, ids=lambda w: w.__name__)
def test_windows_to_come_cannot_be_counted(watch: type[Watch]) -> None:
    now = known(6, 2, [1, 2, 3])
    limit = 4 if watch in (Labels, Errors) else 6
    assert now.counts(watch.kind, 1, range(limit - 1, limit)).sum() > 0
    with pytest.raises(InputError, match=f"before window 6 those of windows below {limit} are known"):
        now.counts(watch.kind, 1, range(limit, limit + 1))
    with pytest.raises(InputError, match="below"):
        now.counts(watch.kind, 1, range(-1, 1))
    with pytest.raises(InputError, match="reads row 5"):
        now.counts(watch.kind, 5, range(1))


def test_a_diverged_model_is_always_wrong() -> None:
    now = known(6, 0, [1, 2, 3])
    error = now.history.losses["error"].copy()
    error[1, 2:] = np.nan
    now.history.losses["error"] = error
    assert now.counts("errors", 2, range(2, 4))[1, 0].tolist() == [2 * SAMPLES, 0]
    found = Errors().measure(now)
    assert np.isfinite(found.p_value).all()


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1"])
@pytest.mark.parametrize("name", ["reference", "recent"])
def test_numbers_of_windows_that_cannot_be_used(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"watch\.{name}="):
        Confidence(**{name: value}).check()


# ---------------------------------------------------------------------- alarms
def test_holm_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = np.round(rng.random(6) ** 3, 2)
        expected, high = np.empty(6), 0.0
        for rank, place in enumerate(sorted(range(6), key=lambda i: p[i])):
            high = max(high, p[place] * (6 - rank))
            expected[place] = min(high, 1)
        assert np.allclose(adjusted(p, "holm"), expected, rtol=0, atol=1e-15)
        assert np.allclose(adjusted(p, "bh"), false_discovery_control(p), rtol=0, atol=1e-15)
        assert adjusted(p, "none") is p


def test_a_signal_needs_significance_and_effect_in_one_feature() -> None:
    p, effect = np.array([[0.001, 0.9], [0.9, 0.001]]), np.array([[0.05, 0.5], [0.05, 0.5]])
    assert signals(TwoSample(p, p, effect), 0.01, 0.1).tolist() == [False, True]
    grid = signals(TwoSample(p, p, effect), np.array([[0.01], [1e-6]]), np.array([[0.0], [0.0]]))
    assert grid.tolist() == [[True, True], [False, False]]
    assert signals(TwoSample(p, p, effect), 0.01, 0.5).tolist() == [False, True]  # the floor itself counts


def test_m_of_n_and_rest() -> None:
    history = np.array([[True, False, True], [True, False, False], [False, False, True]])
    assert repeated(history, 1).tolist() == [True, False, True]
    assert repeated(history, 2).tolist() == [True, False, True]
    assert repeated(history, 3).tolist() == [False, False, False]


def alarms(stream: np.ndarray, level: float, effect: float, m: int, n: int) -> np.ndarray:
    """Alarms in the windows of a stream, of which the first is the reference, once n windows have been tested."""
    test = chi_squares(np.broadcast_to(stream[:1], stream[1:].shape), stream[1:])
    found = signals(test, level, effect)
    return np.array([repeated(found[i - n + 1 : i + 1], m) for i in range(n - 1, len(found))])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "m", "n", "features"), [(0.05, 1, 1, 1), (0.1, 1, 1, 3), (0.05, 2, 3, 1), (0.1, 1, 3, 1), (0.1, 3, 3, 1)]
)
def test_calibrated_alarms_have_the_stated_rate(rate: float, m: int, n: int, features: int) -> None:
    rng = np.random.default_rng(0)
    shares = [0.4, 0.3, 0.2, 0.1]

    def stream() -> np.ndarray:
        return rng.multinomial(300, shares, (13, features))

    rates = []
    for number in range(30):
        level = calibrate(stream(), rate, effect=0.0, m=m, n=n, draws=60, seed=number)
        rates.append(np.mean([alarms(stream(), level, 0.0, m, n).mean() for _ in range(25)]))
    assert abs(np.mean(rates) - rate) < 1.96 * np.std(rates, ddof=1) / sqrt(len(rates))


def test_calibration_is_needed_where_one_reference_serves_many_windows() -> None:
    """An alarm in one of three windows at level .1 is not an alarm at rate .1."""
    counts = np.random.default_rng(0).multinomial(300, [0.25] * 4, (20, 1))
    one, three = (calibrate(counts, 0.1, effect=0.0, m=1, n=n) for n in (1, 3))
    assert three < 0.7 * one
    assert calibrate(counts, 0.1, effect=0.0, m=2, n=3) > one * 0.9


def test_calibration_with_an_effect_that_chance_never_reaches() -> None:
    counts = np.random.default_rng(0).multinomial(3000, [0.25] * 4, (10, 1))
    assert calibrate(counts, 0.05, effect=0.5) == 1 - 1e-9
    assert calibrate(counts, 0.05, effect=0.0) == calibrate(counts, 0.05, effect=0.0)
    assert calibrate(counts, 0.01, effect=0.0) < calibrate(counts, 0.2, effect=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, r"rate=0: must be a number in \(0, 1\)"),
        ({"rate": 1}, "rate=1"),
        ({"effect": -1}, "effect=-1"),
        ({"m": 3, "n": 2}, "m=3, n=2"),
        ({"draws": 0}, "draws=0"),
        ({"adjust": "sidak"}, "adjust='sidak'"),
        ({"counts": np.ones((1, 1, 4), int)}, "at least 2 windows"),
        ({"counts": np.ones((3, 4), int)}, r"expected \(W, F, K\)"),
        ({"counts": np.ones((3, 1, 4), int), "n": 3}, "at least 4 windows"),
        ({"counts": np.full((3, 1, 4), 0.5)}, "fractions"),
        ({"counts": np.full((3, 1, 4), np.nan)}, "counts"),
        ({"counts": -np.ones((3, 1, 4), int)}, "counts"),
        ({"counts": np.zeros((3, 1, 4), int)}, "empty"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_calibration_that_cannot_be_done(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(**{"counts": np.full((5, 1, 4), 20), **options})


# ---------------------------------------------------------------------- explanations
def test_rate_and_mix_add_up() -> None:
    rng = np.random.default_rng(0)
    for case in range(100):
        slices = int(rng.integers(1, 8))
        counts = rng.integers(0, 30, (2, slices)) * (rng.random((2, slices)) < 0.7)
        counts[:, 0] += 1
        wrong = rng.binomial(counts, rng.random((4, 2, slices)))  # four replicas
        rate, mix = decompose(counts[0], wrong[:, 0], counts[1], wrong[:, 1])
        change = wrong[:, 1].sum(-1) / counts[1].sum() - wrong[:, 0].sum(-1) / counts[0].sum()
        assert np.abs((rate + mix).sum(-1) - change).max() < 1e-12, case
        for s in range(slices):
            p, q = counts[0, s] / counts[0].sum(), counts[1, s] / counts[1].sum()
            for r in range(4):
                e = wrong[r, 0, s] / counts[0, s] if counts[0, s] else None
                f = wrong[r, 1, s] / counts[1, s] if counts[1, s] else None
                if e is None or f is None:  # all mix
                    one = f if e is None else e
                    assert rate[r, s] == 0
                    assert abs(mix[r, s] - (q - p) * (0 if one is None else one)) < 1e-15
                else:
                    assert abs(rate[r, s] - (p + q) / 2 * (f - e)) < 1e-15
                    assert abs(mix[r, s] - (q - p) * (e + f) / 2) < 1e-15


@pytest.mark.parametrize("by", ["group", "class"])
def test_explanations_of_a_record(by: str) -> None:
    rng = np.random.default_rng(1)
    results = sample_results(rng, samples=60, groups=4)
    results["group"][3][results["group"][3] == 1] = 2  # a slice without samples in one window
    results["group"][5] = 0  # a window with one slice
    record = record_with_samples(results)
    codes = results["group" if by == "group" else "label"]
    for row, window, reference in [(1, 5, None), (2, 3, None), (4, 4, None), (3, 6, 5), (10, 0, 9), (1, 3, 0)]:
        found = explain(record, row, window, by, reference)
        first = reference if reference is not None else (row if row < window else row - 1)
        wrong = ~results["correct"][:, row]
        assert np.allclose(found.change, wrong[:, window].mean(-1) - wrong[:, first].mean(-1), rtol=0, atol=1e-12)
        assert np.abs((found.rate + found.mix).sum(-1) - found.change).max() < 1e-12
        for s in range(len(found.labels)):
            for side, w in enumerate((first, window)):
                inside = codes[w] == s
                assert found.share[side, s] == inside.mean()
                for r in range(3):
                    error = wrong[r, w][inside].mean() if inside.any() else np.nan
                    assert np.isclose(found.error[r, side, s], error, rtol=0, atol=1e-12, equal_nan=True)
        names = record.stream["columns"]
        between = f"change of the error of row {row} from window {names[first]} to {names[window]}: "
        assert str(found).startswith(between)


def test_the_slice_that_carries_the_change_comes_first() -> None:
    results = sample_results(np.random.default_rng(0), samples=300)
    results["correct"][:] = True
    results["correct"][:, :, 4] = results["group"][4] != 2
    found = explain(record_with_samples(results), 1, 4, "group")
    assert found.mix[:, :2].tolist() == [[0.0, 0.0]] * 3
    assert str(found).splitlines()[2].startswith("g2")
    assert (found.rate[:, 2] > 0.25).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": 0}, "row=0: must be a whole number from 1 to 10"),
        ({"row": 11}, "row=11"),
        ({"row": 1.0}, "row=1.0"),
        ({"row": "a"}, "row='a': must be a whole number"),
        ({"window": None}, "window=None: must be a whole number"),
        ({"by": None}, "by=None: the record has no such column"),
        ({"window": 10}, "window=10: must be a whole number from 0 to 9"),
        ({"window": -1}, "window=-1"),
        ({"window": "2025-W05"}, "window='2025-W05': must be a whole number from 0 to 9"),
        ({"reference": 10}, "reference=10"),
        ({"by": "grup"}, "by='grup': the record has no such column; did you mean group"),
    ],
    ids=str,
)
def test_explanations_that_cannot_be_given(options: dict[str, Any], message: str) -> None:
    record = record_with_samples(sample_results(np.random.default_rng(0)))
    with pytest.raises(InputError, match=message):
        explain(record, **{"row": 1, "window": 3, "by": "group", **options})


def test_explanations_need_predictions() -> None:
    with pytest.raises(InputError, match="run with save_predictions=true"):
        explain(record_of(np.ones((1, 5, 4))), 1, 2, "class")
