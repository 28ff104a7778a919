"""Policies: the rules that all obey, mutants that the check must find, and decisions recomputed by plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pytest
from histories import record_with_samples, sample_results
from scipy.stats import binom, chi2_contingency, norm

from cl_lib import drift
from cl_lib.drift import watch as watches
from cl_lib.errors import InputError
from cl_lib.policies import (
    CostAware,
    Every,
    Gated,
    Known,
    Never,
    NoSliceDrop,
    NoWorse,
    OnDecay,
    OnDrift,
    OnGain,
    Policy,
    Random,
    check_policy,
)
from cl_lib.policies.walk import walk
from cl_lib.record import Record
from cl_lib.service import backtest, history_of

WATCHES = [watches.Inputs(), watches.Labels(), watches.PredictedLabels(), watches.Confidence(), watches.Errors()]
POLICIES: dict[str, Policy] = {
    "never": Never(),
    "every_1": Every(),
    "every_3": Every(3),
    "random": Random(0.4, seed=3),
    "on_decay": OnDecay(0.2),
    "on_decay_error": OnDecay(0.1, "error"),
    "on_gain": OnGain(),
    "on_gain_without_alpha": OnGain(alpha=1.0, gain=0.01),
    "cost_aware": CostAware(0.3),
    "cost_aware_brier": CostAware(0.1, "brier"),
    **{f"on_drift_{w.kind}": OnDrift(w, alpha=0.2, effect=0.05) for w in WATCHES},
    "on_drift_2_of_3": OnDrift(watches.Errors(), alpha=0.3, effect=0.0, m=2, n=3, rest=1, adjust="bh"),
    "on_drift_long": OnDrift(watches.Inputs(reference=2, recent=2), alpha=0.3, effect=0.0, adjust="none"),
    "gated": Gated(Every(), (NoWorse(),)),
    "gated_slices": Gated(Every(2), (NoWorse("error", 0.05), NoSliceDrop("site", 0.1)), staleness=2),
    "gated_tested": Gated(OnGain(), (NoSliceDrop("class", 0.02, alpha=0.3),)),
    "gated_twice": Gated(Gated(Every(), (NoWorse(),)), (NoSliceDrop("site"),), staleness=1),
}


# ---------------------------------------------------------------------- rules
@pytest.mark.parametrize("name", POLICIES)
def test_policy_obeys_the_rules(name: str) -> None:
    check_policy(POLICIES[name], seed=1, histories=2)


class Mutant(Policy):
    def __repr__(self) -> str:
        return type(self).__name__


class ReadsALaterWindow(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        better = known.history.losses["nll"][:, 1, known.window] > 0.7
        return np.where(better, known.newest, known.serving)


class ReadsALaterRow(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        ahead = min(known.newest + 1, known.history.windows)
        return np.where(known.history.losses["error"][:, ahead, 0] > 0.5, known.newest, known.serving)


class ReadsLabelsThatAreLate(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        share = known.history.part("labels")[known.window - 1, 0] % 2  # right without a delay
        return np.where(share == 0, known.newest, known.serving)


class ReadsInputsToCome(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        even = known.history.part("inputs")[known.window, 0, 0] % 2 == 0
        return np.where(even, known.newest, known.serving)


class ReadsSamplesToCome(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        assert known.history.samples is not None
        later = known.history.samples(known.newest, known.newest).correct.mean(-1)
        return np.where(later > 0.5, known.newest, known.serving)


class AsksWithLaterResults(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return known.serving

    def alarms(self, known: Known) -> np.ndarray:
        return known.history.losses["nll"][:, 1, known.window] > 0.7


class RandomWithoutSeed(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return np.where(np.random.random(known.shape) < 0.5, known.newest, known.serving)


class DependsOnOtherReplicas(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        loss = known.loss(known.serving, known.newest - 1)
        return np.where(loss > loss.mean(), known.newest, known.serving)


class DependsOnThePosition(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return np.where(np.arange(len(known.seeds)) % 2 == 0, known.newest, known.serving)


class Floats(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return known.serving.astype(float)


class OneNumber(Mutant):
    def choose(self, known: Known) -> Any:
        return known.newest


class AnotherShape(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return known.serving[:, None]


class OneTooFew(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return np.concatenate([known.serving, known.serving[:1]])


class Untrained(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return np.full(known.shape, known.newest + 1)


class UntrainedUnderDelay(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return np.full(known.shape, known.window)


class RowZero(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return np.zeros(known.shape, int)


class FromTheEnd(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return np.full(known.shape, -1)


class Flags(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return known.since > 1


@dataclass(frozen=True, repr=False)
class KeepsAList(Mutant):
    calls: list[int] = field(default_factory=list)

    def choose(self, known: Known) -> np.ndarray:
        self.calls.append(known.window)
        return np.where(len(self.calls) % 3 == 0, known.newest, known.serving) + 0 * known.serving


class KeepsACount(Mutant):
    count = 0

    def choose(self, known: Known) -> np.ndarray:
        self.count += 1
        return np.where(self.count % 3 == 0, known.newest, known.serving) + 0 * known.serving


@dataclass(repr=False)
class NotFrozen(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        return known.serving


MUTANTS: list[tuple[Any, str]] = [
    (ReadsALaterWindow(), "uses later results"),
    (ReadsALaterRow(), "uses later results"),
    (ReadsLabelsThatAreLate(), "uses later results"),
    (ReadsInputsToCome(), "uses later results"),
    (ReadsSamplesToCome(), "uses later results"),
    (AsksWithLaterResults(), "uses later results"),
    (RandomWithoutSeed(), "differently on the same history"),
    (DependsOnOtherReplicas(), "for a replica that is alone"),
    (DependsOnThePosition(), "for a replica that is alone"),
    (Floats(), "an array of float64; must be an integer array"),
    (OneNumber(), "returned a int"),
    (AnotherShape(), r"returned the shape \(3, 1\); must be \(3,\)"),
    (OneTooFew(), r"returned the shape \(4,\)"),
    (Untrained(), "returned row 3 before window 2; rows 1 to 2 are trained"),
    (UntrainedUnderDelay(), "returned row 4 before window 4; rows 1 to 2 are trained"),
    (RowZero(), "returned row 0"),
    (FromTheEnd(), "returned row -1"),
    (Flags(), "an array of bool"),
    (KeepsAList(), "differently on the same history"),
    (KeepsACount(), "differently on the same history"),
    (NotFrozen(), "must be a frozen dataclass"),
    (Every, "must be a cl_lib.policies.Policy"),
]


@pytest.mark.parametrize(("policy", "message"), MUTANTS, ids=lambda v: getattr(v, "__name__", repr(v))[:25])
def test_the_check_rejects(policy: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_policy(policy)


class ChangesInPlace(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        row = known.serving
        row[known.since > 1] = known.newest
        return row


class ChangesTheLosses(Mutant):
    def choose(self, known: Known) -> np.ndarray:
        losses = known.losses()
        losses -= losses.min()
        return known.serving


@pytest.mark.parametrize("policy", [ChangesInPlace(), ChangesTheLosses()], ids=repr)
def test_a_policy_cannot_change_what_it_reads(policy: Policy) -> None:
    before = record().arrays["matrix.nll"].copy()
    with pytest.raises(ValueError, match="read-only"):
        backtest(record(), policy)
    assert np.array_equal(record().arrays["matrix.nll"], before)


def test_an_array_that_a_policy_reuses_does_not_change_the_path() -> None:
    class Reuses(Policy):
        def __init__(self) -> None:
            self.row = np.zeros(3, np.uint64)

        def choose(self, known: Known) -> np.ndarray:
            self.row[:] = known.newest
            return self.row

    result = backtest(record(), Reuses())
    assert np.array_equal(result.path, backtest(record(), Every()).path)
    assert result.path.dtype == np.int64


# ---------------------------------------------------------------------- decisions against plain loops
REPLICAS, WINDOWS, SAMPLES = 3, 12, 80


@cache
def results() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    parts = sample_results(rng, REPLICAS, WINDOWS, SAMPLES)
    shift = np.linspace(0.2, 0.5, WINDOWS)[:, None]
    parts["label"] = (rng.random(parts["label"].shape) < shift).astype(int) + (rng.random(shift.shape) < 0.2)
    return parts


@cache
def record() -> Record:
    return record_with_samples(results())


Decide = Callable[[int, int, int, int, int], int]
"""Row from replica, window, newest row, serving row, windows since the last update."""


def loop(decide: Decide, delay: int, windows: int = WINDOWS) -> np.ndarray:
    path = np.zeros((REPLICAS, windows - delay - 1), int)
    for r in range(REPLICAS):
        serving, since = 1, 0
        for w in range(delay + 1, windows):
            if w > delay + 1:
                since += 1
                row = decide(r, w, w - delay, serving, since)
                since = since if row == serving else 0
                serving = row
            path[r, w - delay - 1] = serving
    return path


def mean(name: str, r: int, row: int, window: int) -> float:
    values = results()["nll" if name == "nll" else "correct"][r, row, window].astype(float)
    return float(values.mean()) if name == "nll" else 1 - float(values.mean())


def on_gain(alpha: float, gain: float) -> Decide:
    def decide(r: int, w: int, newest: int, serving: int, since: int) -> int:
        candidate = last = newest - 1
        if candidate < 1 or candidate <= serving:
            return serving
        nll = results()["nll"][r].astype(float)
        d = nll[candidate, last] - nll[serving, last]
        p = norm.cdf(d.mean() / (d.std(ddof=1) / sqrt(len(d))))
        return newest if -d.mean() > gain and (alpha == 1 or p < alpha) else serving

    return decide


def on_decay(rise: float, metric: str) -> Decide:
    def decide(r: int, w: int, newest: int, serving: int, since: int) -> int:
        now, then = mean(metric, r, serving, newest - 1), mean(metric, r, serving, serving)
        return newest if now > (1 + rise) * then else serving

    return decide


def cost_aware(cost: float, metric: str) -> Decide:
    def decide(r: int, w: int, newest: int, serving: int, since: int) -> int:
        excess = [mean(metric, r, serving, v) - mean(metric, r, v, v) for v in range(serving + 1, newest)]
        return newest if sum(max(0.0, e) for e in excess) > cost else serving

    return decide


def every(k: int) -> Decide:
    return lambda r, w, newest, serving, since: newest if since >= k else serving


def histogram(kind: str, r: int, row: int, windows: range, feature: int = 0) -> np.ndarray:
    total = np.zeros(15)
    for w in windows:
        if kind == "inputs":
            total[:10] += results()["inputs"][w, feature]
            continue
        for n in range(SAMPLES):
            if kind == "labels":
                code = results()["label"][w, n]
            elif kind == "predicted":
                code = results()["predicted"][r, row, w, n]
            elif kind == "confidence":
                code = int(results()["confidence"][r, row, w, n] * np.float32(15))
            else:
                code = int(results()["correct"][r, row, w, n])
            total[code] += 1
    return total


@cache
def alarm(kind: str, r: int, row: int, end: int, alpha: float, effect: float) -> bool:
    """Chi-square test of window ``end - 1`` against the reference of a row, for kinds with one feature."""
    reference = range(row, row + 1) if kind == "errors" else range(row - 1, row)
    if end - 1 < reference.stop:
        return False
    table = np.stack([histogram(kind, r, row, part) for part in (reference, range(end - 1, end))])
    table = table[:, np.argsort(table.sum(0), kind="stable")]
    while table[:, 0].sum() < 10:  # two windows of the same size: fewer than 5 expected in each
        table = np.column_stack([table[:, 0] + table[:, 1], table[:, 2:]])
    statistic, p, _, expected = chi2_contingency(table, correction=False)
    assert expected.min() >= 5
    return p < alpha and sqrt(statistic / table.sum()) >= effect


def on_drift(kind: str, alpha: float, effect: float, m: int, n: int, rest: int) -> Decide:
    def decide(r: int, w: int, newest: int, serving: int, since: int) -> int:
        end = newest if kind in ("labels", "errors") else w
        found = sum(alarm(kind, r, serving, end - back, alpha, effect) for back in range(n))
        return newest if found >= m and since > rest else serving

    return decide


def gated(inner: Decide, staleness: int, gates: list[Callable[[int, int, int, range], bool]]) -> Decide:
    def decide(r: int, w: int, newest: int, serving: int, since: int) -> int:
        candidate = newest - staleness
        if inner(r, w, newest, serving, since) <= serving or candidate <= serving:
            return serving
        windows = range(candidate, newest)
        return candidate if all(gate(r, candidate, serving, windows) for gate in gates) else serving

    return decide


def no_worse(metric: str, tolerance: float) -> Callable[[int, int, int, range], bool]:
    def allows(r: int, candidate: int, serving: int, windows: range) -> bool:
        excess = [mean(metric, r, candidate, w) - mean(metric, r, serving, w) for w in windows]
        return sum(excess) / len(excess) <= tolerance

    return allows


def no_slice_drop(drop: float, alpha: float, minimum: int) -> Callable[[int, int, int, range], bool]:
    def allows(r: int, candidate: int, serving: int, windows: range) -> bool:
        for group in range(3):
            count = was = now = 0
            for w in windows:
                for n in range(SAMPLES):
                    if results()["group"][w, n] == group:
                        count += 1
                        was += int(results()["correct"][r, serving, w, n])
                        now += int(results()["correct"][r, candidate, w, n])
            fell = (was - now) / count > drop
            if alpha < 1:
                fell = fell and binom.cdf(now, count, max(was / count - drop, 0)) < alpha
            if count >= minimum and fell:
                return False
        return True

    return allows


CASES: dict[str, tuple[Policy, Decide]] = {
    "never": (Never(), lambda r, w, newest, serving, since: serving),
    "every_1": (Every(), every(1)),
    "every_2": (Every(2), every(2)),
    "every_5": (Every(5), every(5)),
    "on_gain": (OnGain(0.3), on_gain(0.3, 0)),
    "on_gain_strict": (OnGain(0.05, 0.05), on_gain(0.05, 0.05)),
    "on_gain_floor": (OnGain(0.5, 0.15), on_gain(0.5, 0.15)),
    "on_gain_1": (OnGain(1), on_gain(1, 0)),
    "on_gain_1_gain": (OnGain(1, 0.1), on_gain(1, 0.1)),
    "on_decay": (OnDecay(0.3), on_decay(0.3, "nll")),
    "on_decay_0": (OnDecay(0.0), on_decay(0.0, "nll")),
    "on_decay_error": (OnDecay(0.1, "error"), on_decay(0.1, "error")),
    "cost_aware": (CostAware(0.4), cost_aware(0.4, "nll")),
    "cost_aware_error": (CostAware(0.2, "error"), cost_aware(0.2, "error")),
    "errors": (OnDrift(watches.Errors(), 0.2, 0.05), on_drift("errors", 0.2, 0.05, 1, 1, 0)),
    "errors_2_of_3": (OnDrift(watches.Errors(), 0.4, 0.0, 2, 3, 2), on_drift("errors", 0.4, 0.0, 2, 3, 2)),
    "confidence": (OnDrift(alpha=0.2, effect=0.05), on_drift("confidence", 0.2, 0.05, 1, 1, 0)),
    "confidence_1_of_2": (OnDrift(alpha=0.2, m=1, n=2, rest=1), on_drift("confidence", 0.2, 0.1, 1, 2, 1)),
    "labels": (OnDrift(watches.Labels(), 0.2, 0.1), on_drift("labels", 0.2, 0.1, 1, 1, 0)),
    "predicted": (OnDrift(watches.PredictedLabels(), 0.4, 0.0), on_drift("predicted", 0.4, 0.0, 1, 1, 0)),
    "gated": (Gated(Every(), (NoWorse(),)), gated(every(1), 1, [no_worse("nll", 0)])),
    "gated_3": (
        Gated(Every(), (NoWorse("error", 0.02),), staleness=3),
        gated(every(1), 3, [no_worse("error", 0.02)]),
    ),
    "gated_slices": (
        Gated(Every(2), (NoWorse(tolerance=0.1), NoSliceDrop("group", 0.03)), staleness=2),
        gated(every(2), 2, [no_worse("nll", 0.1), no_slice_drop(0.03, 1, 30)]),
    ),
    "gated_tested": (
        Gated(OnGain(1), (NoSliceDrop("group", 0.0, alpha=0.2, minimum=10),)),
        gated(on_gain(1, 0), 1, [no_slice_drop(0.0, 0.2, 10)]),
    ),
    "gated_small_slices": (
        Gated(Every(), (NoSliceDrop("group", 0.0, minimum=25),)),
        gated(every(1), 1, [no_slice_drop(0.0, 1, 25)]),
    ),
}


@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("name", CASES)
def test_decisions_are_those_of_a_loop(name: str, delay: int) -> None:
    policy, decide = CASES[name]
    assert np.array_equal(backtest(record(), policy, delay=delay).path, loop(decide, delay))


def test_a_large_rise_does_not_overflow_where_a_model_diverged() -> None:
    results = sample_results(np.random.default_rng(0))
    diverged = record_with_samples(results)
    diverged.arrays["matrix.nll"][0, 1:] = np.nan
    assert not backtest(diverged, OnDecay(1e9)).updates.any()


def test_the_cases_decide_in_both_ways() -> None:
    for name, (policy, _) in CASES.items():
        result = backtest(record(), policy)
        decisions = result.updated[:, 1:]
        assert name in ("never", "every_1") or (decisions.any() and not decisions.all()), name


def test_a_gate_says_what_it_refused() -> None:
    policy = Gated(Every(), (NoWorse(tolerance=0.0), NoSliceDrop("group", 0.0)))
    result = backtest(record(), policy)
    assert result.refused.any()
    serving = np.concatenate([result.path[:, :1], result.path[:, :-1]], 1)
    newest = np.arange(1, WINDOWS)
    wanted = (newest - 1 > serving) & (np.arange(WINDOWS - 1) > 0)
    assert np.array_equal(result.alarms, wanted)
    assert np.array_equal(result.refused, wanted & (result.path == serving))


def test_a_gate_refuses_no_rollback() -> None:
    class Back(Policy):
        def choose(self, known: Known) -> np.ndarray:
            return np.full(known.shape, 1 if known.window % 3 == 0 else known.newest)

    path = backtest(record(), Gated(Back(), (NoWorse(tolerance=9.0),))).path[0]
    assert path.tolist() == [1, 1, 1, 3, 4, 1, 6, 7, 1, 9, 10]


def test_a_comparison_of_two_rows_is_a_paired_test() -> None:
    serving = np.array([1, 2, 4])
    known = Known(8, 7, serving, np.ones(3, int), history_of(record()))
    for other in (6, np.array([5, 2, 3])):
        found = known.compare(serving, other, 5)
        assert found.count == SAMPLES
        for r, (before, after) in enumerate(zip(serving, np.broadcast_to(other, 3), strict=True)):
            correct, nll = results()["correct"][r], results()["nll"][r].astype(float)
            assert found.lost[r] == (correct[before, 5] & ~correct[after, 5]).sum()
            assert found.gained[r] == (correct[after, 5] & ~correct[before, 5]).sum()
            d = nll[after, 5] - nll[before, 5]
            assert abs(found.nll[r] - d.mean()) < 1e-12
            assert abs(found.nll_error[r] - d.std(ddof=1) / sqrt(SAMPLES)) < 1e-12
    count, correct = known.slice_counts("group", serving, 3)
    assert count.tolist() == np.bincount(results()["group"][3], minlength=3).tolist()
    for r, row in enumerate(serving):
        right = results()["group"][3][results()["correct"][r, row, 3]]
        assert correct[r].tolist() == np.bincount(right, minlength=3).tolist()
    with pytest.raises(InputError, match="reads the labels of window 7"):
        known.compare(serving, 6, 7)
    with pytest.raises(InputError, match="reads row 8"):
        known.compare(serving, 8, 5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_random_updates_at_its_rate(rate: float) -> None:
    history = history_of(record())
    history.seeds = np.arange(400)
    shape = (400,)
    path, _ = walk(history, Random(rate, seed=1), 0, 1, WINDOWS, shape)
    updated = np.diff(path, axis=1) > 0
    assert abs(updated.mean() - rate) < 4 * sqrt(rate * (1 - rate) / updated.size)
    spread = updated.mean(0) - rate, updated.mean(1) - rate  # by window and by replica
    assert abs(spread[0]).max() < 4 * sqrt(rate * (1 - rate) / 400)
    assert abs(spread[1].std() - sqrt(rate * (1 - rate) / updated.shape[1])) < 0.02
    other, _ = walk(history, Random(rate, seed=2), 0, 1, WINDOWS, shape)
    assert not np.array_equal(path, other)


@pytest.mark.parametrize("rate", [0, 1])
def test_random_at_the_ends_of_its_range(rate: float) -> None:
    always = backtest(record(), Random(rate))
    assert np.array_equal(always.path, backtest(record(), Every() if rate else Never()).path)


# ---------------------------------------------------------------------- grids
GRIDS: dict[str, tuple[Policy, dict[str, list[float]]]] = {
    "every": (Every(), {"windows": [1, 2, 3.5, 7]}),
    "random": (Random(), {"rate": [0, 0.3, 0.7, 1]}),
    "on_decay": (OnDecay(), {"rise": [0, 0.2, 0.5]}),
    "on_gain": (OnGain(), {"alpha": [0.01, 0.3, 1], "gain": [0, 0.1]}),
    "cost_aware": (CostAware(), {"cost": [0.1, 0.4, 2]}),
    "on_drift": (
        OnDrift(watches.Errors(), m=1, n=2),
        {"effect": [0, 0.1, 0.3], "alpha": [0.01, 0.4], "rest": [0, 2]},
    ),
    "inputs": (OnDrift(watches.Inputs()), {"effect": [0, 0.1, 0.3], "alpha": [0.1, 0.6]}),
}


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_equals_each_point_alone(name: str, delay: int) -> None:
    policy, grid = GRIDS[name]
    result = backtest(record(), policy, grid=grid, delay=delay)
    assert result.path.shape == (len(result.points), REPLICAS, WINDOWS - delay - 1)
    for g, point in enumerate(result.points):
        one = backtest(record(), type(policy)(**{**vars(policy), **point}), delay=delay)
        for part in ("path", "alarms", "loss", "kept", "labels", "steps", "updates", "skill", "harmful", "recall"):
            assert np.array_equal(getattr(result, part)[g], getattr(one, part), equal_nan=True), part
    assert len({path.tobytes() for path in result.path}) > 1


@pytest.mark.parametrize(
    ("policy", "grid", "message"),
    [
        (OnGain(), {"alpah": [0.1]}, r"grid\.alpah: OnGain has no such float field; did you mean alpha"),
        (OnGain(), {"alpha": [0.1, 2]}, r"policy\.alpha=2"),
        (OnGain(), {"alpha": []}, r"grid\.alpha=\[\]: must be a list"),
        (OnGain(), {"alpha": "0.1"}, "must be a list"),
        (OnGain(), {"alpha": ["a"]}, "'a' is not a number"),
        (OnDrift(), {"n": [1, 2]}, r"grid\.n: OnDrift has no such float field"),
        (OnDrift(), {"m": [1, 2]}, r"grid\.m: OnDrift has no such float field"),
        (OnDrift(), {"adjust": ["holm"]}, r"grid\.adjust"),
        (OnDrift(), {"alpha": [0.1, 1]}, "alpha=1"),
        (Random(), {"seed": [1, 2]}, r"grid\.seed"),
        (Gated(Every(), (NoWorse(),)), {"staleness": [1, 2]}, r"grid\.staleness"),
        (Never(), {"rate": [1]}, r"grid\.rate: Never has no such float field"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_grids_that_cannot_be_used(policy: Policy, grid: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        backtest(record(), policy, grid=grid)


# ---------------------------------------------------------------------- bad input
class NotAGate:
    pass


BAD: list[tuple[Any, str]] = [
    (OnGain(alpha=0), r"alpha=0: must be a number in \(0, 1\]"),
    (OnGain(alpha=1.5), "alpha=1.5"),
    (OnGain(alpha=float("nan")), "alpha=nan"),
    (OnGain(alpha="0.05"), "alpha='0.05'"),  # type: ignore[arg-type]
    (OnGain(alpha=True), "alpha=True"),
    (OnGain(gain=-0.1), "gain=-0.1"),
    (OnDecay(rise=-0.1), "rise=-0.1"),
    (OnDecay(rise=float("inf")), "rise=inf"),
    (CostAware(cost=0), r"cost=0: must be a number in \(0,"),
    (CostAware(cost=-1), "cost=-1"),
    (Every(0), "windows=0"),
    (Every(-3), "windows=-3"),
    (Random(-0.1), "rate=-0.1"),
    (Random(1.1), "rate=1.1"),
    (Random(seed=-1), "seed=-1"),
    (Random(seed=1.5), "seed=1.5"),  # type: ignore[arg-type]
    (OnDrift(alpha=0), "alpha=0"),
    (OnDrift(alpha=1), "alpha=1"),
    (OnDrift(effect=-0.1), "effect=-0.1"),
    (OnDrift(m=2, n=1), "m=2, n=1"),
    (OnDrift(m=0), "m=0"),
    (OnDrift(n=0), "n=0"),
    (OnDrift(rest=-1), "rest=-1"),
    (OnDrift(adjust="bonferroni"), "adjust='bonferroni'"),  # type: ignore[arg-type]
    (OnDrift(watch="confidence"), "watch='confidence'"),  # type: ignore[arg-type]
    (OnDrift(drift.Confidence(reference=0)), r"watch\.reference=0"),
    (OnDrift(drift.Confidence(recent=-1)), r"watch\.recent=-1"),
    (Gated(Every(), (NoWorse(),), staleness=0), "staleness=0: must be at least 1, since a candidate"),
    (Gated(Every(), (NoWorse(),), staleness=1.5), "staleness=1.5"),  # type: ignore[arg-type]
    (Gated(Every(), ()), "at least one Gate"),
    (Gated(Every(), NoWorse()), "must be a tuple of at least one Gate"),  # type: ignore[arg-type]
    (Gated(Every(), (NotAGate(),)), "must be a Gate"),  # type: ignore[arg-type]
    (Gated(Every(0), (NoWorse(),)), "windows=0"),
    (Gated("every", (NoWorse(),)), "must be a Policy"),  # type: ignore[arg-type]
    (Gated(Every(), (NoWorse(tolerance=-1),)), "tolerance=-1"),
    (Gated(Every(), (NoSliceDrop("group", -0.1),)), "drop=-0.1"),
    (Gated(Every(), (NoSliceDrop("group", 1.1),)), "drop=1.1"),
    (Gated(Every(), (NoSliceDrop("group", float("nan")),)), "drop=nan"),
    (Gated(Every(), (NoSliceDrop("group", alpha=0),)), "alpha=0"),
    (Gated(Every(), (NoSliceDrop("group", minimum=-1),)), "minimum=-1"),
    (Gated(Every(), (NoSliceDrop("grup"),)), "slice 'grup': the predictions have no such column; did you mean group"),
    (Gated(Every(), (NoWorse("nnl"),)), "metric='nnl': unknown; did you mean nll"),
    (OnDecay(metric="eror"), "metric='eror': unknown; did you mean error"),
    (CostAware(metric="accuracy"), "metric='accuracy': unknown"),
]


@pytest.mark.parametrize(("policy", "message"), BAD, ids=[str(message)[:30] for _, message in BAD])
def test_values_that_cannot_be_used(policy: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        backtest(record(), policy)
