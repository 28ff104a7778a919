"""Backtests: bounds equal to enumeration, no look-ahead, the zero and one of skill, costs, bad input."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from math import comb, sqrt
from typing import Any

import numpy as np
import pytest
from histories import random_losses, record_of, record_with_samples, sample_results

import cl_lib
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
)
from cl_lib.record import Record
from cl_lib.service import Tuned, backtest, best_schedules, random_schedules, tune
from cl_lib.service.backtest import table as printed
from cl_lib.service.history import in_time
from cl_lib.service.resampling import block_samples


@dataclasses.dataclass(frozen=True)
class Schedule(Policy):
    """Update before given windows of a replica's own schedule."""

    times: tuple[tuple[int, ...], ...]

    def choose(self, known: Known) -> np.ndarray:
        update = np.array([known.window in times for times in self.times])
        return np.where(update, known.newest, known.serving)


def enumerated(losses: np.ndarray, delay: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """Mean over all schedules and loss of the best, for each k and window ``(W, W)``, and the best schedules' times."""
    windows = losses.shape[-1]
    served = range(delay + 1, windows)
    n = len(served) - 1
    mean, best, times = np.empty((n + 1, n + 1)), np.empty((n + 1, n + 1)), []
    for k in range(n + 1):
        found = []
        for chosen in itertools.combinations(served[1:], k):
            row, path = 1, []
            for w in served:
                row = w - delay if w in chosen else row
                path.append(losses[row, w])
            found.append((path, chosen))
        assert len(found) == comb(n, k)
        table = np.array([path for path, _ in found])
        place = int(table.mean(1).argmin())
        mean[k], best[k] = table.mean(0), table[place]
        times.append(found[place][1])
    return mean, best, times


# ---------------------------------------------------------------------- bounds
@pytest.mark.parametrize("delay", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_bounds_equal_enumeration(seed: int, delay: int) -> None:
    losses = random_losses(np.random.default_rng([seed, delay]), replicas=2)
    if seed == 4:
        losses = np.round(losses * 3) / 3 + 0.0  # ties
    result = backtest(record_of(losses), Every(2), delay=delay)
    for r, table in enumerate(losses):
        mean, best, _ = enumerated(table, delay)
        assert np.abs(result.random_loss[r] - mean).max() < 1e-12
        assert np.abs(result.oracle_loss[r].mean(-1) - best.mean(-1)).max() < 1e-12
        if seed < 4:  # the best schedule is unique
            assert np.abs(result.oracle_loss[r] - best).max() < 1e-12
    k = result.updates
    assert np.array_equal(result.random, result.random_loss.mean(-1)[np.arange(2), k])
    assert np.array_equal(result.oracle, result.oracle_loss.mean(-1)[np.arange(2), k])
    assert np.array_equal(result.never, result.random_loss[:, 0])
    assert np.allclose(result.always, result.oracle_loss[:, -1], rtol=0, atol=1e-12)


def test_bounds_of_a_stretch_of_windows() -> None:
    losses = random_losses(np.random.default_rng(0), windows=12)
    result = backtest(record_of(losses), Every(), delay=1, start=4, until=9)
    rows = np.arange(3, 8)
    table = losses[:, rows][:, :, 4:9]
    assert np.array_equal(result.path[0], rows)
    assert result.windows == ["4", "5", "6", "7", "8"]
    for r in range(2):
        paths = []
        for chosen in itertools.combinations(range(1, 5), 2):
            last = [max([u for u in chosen if u <= w], default=0) for w in range(5)]
            paths.append([table[r, u, w] for w, u in enumerate(last)])
        assert np.allclose(result.random_loss[r, 2], np.mean(paths, 0), rtol=0, atol=1e-12)
        assert np.isclose(result.oracle_loss[r, 2].mean(), min(map(np.mean, paths)), rtol=0, atol=1e-12)


def test_schedules_that_meet_a_diverged_model() -> None:
    losses = random_losses(np.random.default_rng(1), replicas=1, windows=6)[:, 1:]
    losses[:, 3:] = np.nan
    mean, best = random_schedules(losses), best_schedules(losses)
    assert np.isfinite(mean[0, 0]).all()
    assert np.isnan(mean[0, 1:].mean(-1)).all()
    assert np.isfinite(best[0, :3]).all()
    assert np.isnan(best[0, 3:]).all()


def test_bounds_of_many_windows_are_finite() -> None:
    losses = np.random.default_rng(0).random((1, 200, 200))
    mean, best = random_schedules(losses), best_schedules(losses)
    assert np.isfinite(mean).all()
    assert (best.mean(-1) <= mean.mean(-1) + 1e-12).all()


# ---------------------------------------------------------------------- skill
def test_skill_of_the_best_schedule_is_one() -> None:
    for delay in (0, 1, 3):
        losses = random_losses(np.random.default_rng(delay), replicas=3)
        record = record_of(losses)
        tables = [enumerated(table, delay)[2] for table in losses]
        for k in range(1, 12 - delay - 2):
            result = backtest(record, Schedule(tuple(times[k] for times in tables)), delay=delay)
            assert result.updates.tolist() == [k] * 3
            assert np.abs(result.skill - 1).max() < 1e-10


def test_skill_is_null_without_updates_and_with_all() -> None:
    record = record_of(random_losses(np.random.default_rng(0)))
    for policy, count in ((Never(), 0), (Every(), 10)):
        result = backtest(record, policy)
        assert result.updates.tolist() == [count] * 2
        assert np.isnan(result.skill).all()
        assert np.isnan(result.interval()).all()
        assert "–" in str(result)
    assert np.isfinite(backtest(record, Every(2)).skill).all()


def test_skill_is_null_where_all_schedules_are_alike() -> None:
    assert np.isnan(backtest(record_of(np.ones((2, 9, 8))), Every(3)).skill).all()


@pytest.mark.parametrize("delay", [0, 2])
def test_skill_of_a_random_policy_is_zero(delay: int) -> None:
    losses = random_losses(np.random.default_rng(7), replicas=1)
    record = record_of(np.repeat(losses, 300, 0))
    result = backtest(record, Random(0.4), delay=delay)
    skill = result.skill[np.isfinite(result.skill)]
    assert len(skill) > 290
    assert abs(skill.mean()) < 3 * skill.std(ddof=1) / sqrt(len(skill))
    assert skill.std() > 0.1


@pytest.mark.parametrize("k", [1, 4, 9])
def test_skill_of_a_random_schedule_with_k_updates_is_zero(k: int) -> None:
    rng = np.random.default_rng(k)
    losses = np.repeat(random_losses(rng, replicas=1), 300, 0)
    times = tuple(tuple(rng.choice(np.arange(2, 12), k, replace=False).tolist()) for _ in range(300))
    skill = backtest(record_of(losses), Schedule(times)).skill
    assert abs(skill.mean()) < 3 * skill.std(ddof=1) / sqrt(300)


def test_every_replica_is_compared_at_its_own_number_of_updates() -> None:
    losses = random_losses(np.random.default_rng(3), replicas=3)
    times = ((3,), (3, 5, 8), ())
    result = backtest(record_of(losses), Schedule(times))
    assert result.updates.tolist() == [1, 3, 0]
    for r in range(2):
        alone = backtest(record_of(losses[r : r + 1]), Schedule(times[r : r + 1]))
        assert alone.skill[0] == result.skill[r]
        served = [max([u for u in (1, *times[r]) if u <= w]) for w in range(1, 12)]
        mean, best, _ = enumerated(losses[r], 0)
        k = len(times[r])
        loss = losses[r, served, np.arange(1, 12)].mean()
        expected = (mean[k].mean() - loss) / (mean[k].mean() - best[k].mean())
        assert np.isclose(result.skill[r], expected, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- losses, alarms and costs
def test_parts_of_a_result_against_a_loop() -> None:
    results = sample_results(np.random.default_rng(2))
    record = record_with_samples(results)
    for delay, metric in itertools.product((0, 2), ("nll", "error", "brier")):
        result = backtest(record, Gated(OnDecay(0.05), (NoWorse("error"),)), delay=delay, metric=metric)
        table = {
            "nll": record.arrays["matrix.nll"],
            "error": 1 - record.arrays["matrix.accuracy"],
            "brier": record.arrays["matrix.brier"],
        }[metric]
        for r in range(3):
            asked = helped = right = harmful = updates = 0
            for place, w in enumerate(range(delay + 1, 10)):
                row, newest = result.path[r, place], w - delay
                before = result.path[r, max(place - 1, 0)]
                assert result.loss[r, place] == table[r, row, w]
                assert result.always[r, place] == table[r, newest, w]
                assert result.kept[r, place] == table[r, before, w]
                if place == 0:
                    assert row == 1
                    assert not result.alarms[r, 0]
                    continue
                helpful = table[r, newest, w] < table[r, before, w]
                asked += result.alarms[r, place]
                helped += helpful
                right += bool(result.alarms[r, place]) and helpful
                updates += row != before
                harmful += row != before and not table[r, row, w] < table[r, before, w]
            assert (result.updates[r], result.harmful[r]) == (updates, harmful)
            assert np.isclose(result.precision[r], right / asked if asked else np.nan, equal_nan=True)
            assert np.isclose(result.recall[r], right / helped if helped else np.nan, equal_nan=True)
            assert result.steps[r] == 10 * (9 - delay)  # a gate reads every candidate and every label
            assert result.labels[r] == 80 * (9 - delay)
            planned = backtest(record, Every(3), delay=delay, metric=metric)
            assert planned.steps[r] == 10 * len(set(planned.path[r]))
            assert planned.labels[r] == 80 * planned.path[r].max()
        assert result.alarms.any()
        assert str(result).splitlines()[0].split()[:3] == ["policy", "delay", metric]


def test_three_windows_are_enough() -> None:
    result = backtest(record_of(random_losses(np.random.default_rng(0), replicas=1, windows=3)), Every())
    assert result.path.tolist() == [[1, 2]]
    assert np.isnan(result.skill).all()
    assert str(result)
    with pytest.raises(InputError, match="delay=1: leaves no decision with 3 windows; at most 0"):
        backtest(record_of(LOSSES[:, :4, :3]), Every(), delay=1)


def test_delay_shifts_every_row() -> None:
    record = record_of(random_losses(np.random.default_rng(0)))
    for delay in range(10):
        result = backtest(record, Every(), delay=delay)
        assert result.path[0].tolist() == list(range(1, 12 - delay))
        assert result.first == delay + 1
        assert np.array_equal(result.loss, result.always)


def test_blocks_are_consecutive_and_cover_every_window() -> None:
    draws = block_samples(20, 5, 500, 0)
    assert draws.shape == (500, 20)
    assert set(draws.ravel()) == set(range(20))
    steps = np.diff(draws, axis=1)
    inside = np.arange(1, 20) % 5 != 0
    assert (steps[:, inside] == 1).all()


@pytest.mark.parametrize("delay", [0, 1])
def test_p_values_are_those_of_all_permutations(delay: int) -> None:
    losses = random_losses(np.random.default_rng(3), windows=8)
    result = backtest(record_of(losses), Random(0.4), delay=delay)
    width = len(result.windows)
    every = []
    for order in itertools.permutations(range(1, width)):
        parts = []
        for r, updated in enumerate(result.updated):
            row, total = result.first - delay, 0.0
            for w in range(width):
                row = result.first - delay + w if w and updated[order[w - 1]] else row
                total += losses[r, row, result.first + w] / width
            parts.append(total)
        every.append(np.mean(parts))
    exact = np.mean(np.array(every) <= result.mean_loss.mean() + 1e-12)
    assert abs(result.p_value(20000) - exact) < 0.015


def test_random_times_are_seldom_better_than_chance() -> None:
    age = np.cumsum(np.random.default_rng(0).normal(size=(3, 21)), 1)
    record = record_of(np.abs(age[:, :, None] - age[:, None, 1:]) + 0.1)  # losses by distance on a random walk
    p = [float(backtest(record, Random(0.2, seed=seed)).p_value(199)) for seed in range(200)]
    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert 0.4 < np.mean(p) < 0.6


def test_p_values_that_are_not_defined() -> None:
    record = record_of(random_losses(np.random.default_rng(0)))
    assert np.isnan(backtest(record, Never()).p_value())
    assert np.isnan(backtest(record, Every()).p_value())
    grid = backtest(record, Every(), grid={"windows": [1, 2, 20]}).p_value()
    assert np.isnan(grid).tolist() == [True, False, True]
    assert grid[1] == backtest(record, Every(2)).p_value()
    with pytest.raises(InputError, match="resamples=0"):
        backtest(record, Every(2)).p_value(resamples=0)
    losses = random_losses(np.random.default_rng(0), replicas=3)
    losses[1, 6:] = np.nan
    both = backtest(record_of(losses), Every(2)).p_value()
    assert both == backtest(record_of(losses[[0, 2]]), Every(2)).p_value()


def test_interval_holds_the_estimate() -> None:
    record = record_of(random_losses(np.random.default_rng(0), replicas=4, windows=30))
    grid = backtest(record, OnDecay(), grid={"rise": [0.1, 0.5]})
    for name, values in (("skill", grid.skill), ("mean_loss", grid.mean_loss)):
        low, high = grid.interval(name).T
        assert grid.interval(name).shape == (2, 2)
        assert (low < values.mean(-1)).all()
        assert (values.mean(-1) < high).all()
    assert np.array_equal(grid.interval(), grid.interval())
    assert not np.array_equal(grid.interval(), grid.interval(seed=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "loss"}, "name='loss': must be one of skill, mean_loss"),
        ({"block": 0}, "block=0"),
        ({"resamples": 0}, "resamples=0"),
    ],
    ids=str,
)
def test_intervals_that_cannot_be_given(options: dict[str, Any], message: str) -> None:
    result = backtest(record_of(LOSSES), Every(2))
    with pytest.raises(InputError, match=message):
        result.interval(**options)
    assert np.array_equal(result.interval(block=99), result.interval(block=3))  # at most half of the windows


def test_a_table_has_a_line_for_each_point() -> None:
    record = record_of(LOSSES)
    results = [backtest(record, OnDecay(), grid={"rise": [0.1, 0.5]}), backtest(record, Every(2), delay=1)]
    lines = printed(results, ["decay", "every 2"]).splitlines()
    starts = ["policy", "never", "always", "decay rise=0.1", "decay rise=0.5", "never", "always", "every 2"]
    assert [line.split("  ")[0] for line in lines] == starts
    one = backtest(record, OnDecay(0.5))
    values = [one.mean_loss, one.random, one.oracle, one.skill]
    assert lines[4].split()[3:7] == [f"{v[np.isfinite(v)].mean():.4f}" for v in values]
    assert lines[4].split()[7:9] == [f"{one.updates.mean():.1f}", f"{one.harmful.mean():.1f}"]


# ---------------------------------------------------------------------- no look-ahead
BLIND: list[Policy] = [
    Never(),
    Every(2),
    Random(0.5),
    OnDecay(0.1),
    OnGain(0.3),
    OnGain(1),
    CostAware(0.2, "error"),
    *(OnDrift(kind(), alpha=0.3, effect=0.0) for kind in (watches.Confidence, watches.Errors, watches.Labels)),
    OnDrift(watches.PredictedLabels(), alpha=0.4, effect=0.0, m=1, n=2),
    OnDrift(watches.Inputs(), alpha=0.4, effect=0.0),
    Gated(Every(), (NoWorse(tolerance=0.05), NoSliceDrop("group", 0.1, minimum=10))),
]


def without_the_future(results: dict[str, np.ndarray], window: int, delay: int) -> dict[str, np.ndarray]:
    """Results before a window is served; later ones are changed: NaN where they are numbers, other values elsewhere."""
    newest = window - delay
    out = {name: values.copy() for name, values in results.items()}
    out["nll"][:, newest + 1 :] = out["nll"][:, :, newest:] = np.nan
    out["correct"][:, newest + 1 :] ^= True
    out["correct"][:, : newest + 1, newest:] ^= True
    for name, low in (("predicted", window), ("confidence", window)):
        later = np.zeros(out[name].shape, bool)
        later[:, newest + 1 :] = later[:, :, low:] = True
        out[name] = np.where(later, 2 if name == "predicted" else np.float16(0.99), out[name])
    out["label"][newest:] = 2
    out["group"][newest:] = 0
    out["inputs"][window:] = 8
    return out


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_later_results_change_no_decision(delay: int) -> None:
    windows = 6
    decided = 0
    for seed in range(67):  # with three delays, 201 records
        results = sample_results(
            np.random.default_rng([seed, delay]), replicas=2, windows=windows, samples=50, groups=2
        )
        record = record_with_samples(results)
        window = delay + 2 + seed % (windows - delay - 2)
        hidden = record_with_samples(without_the_future(results, window, delay))
        for values in hidden.arrays.values():  # in case that a policy reads losses
            if values.ndim == 3 and values.dtype.kind == "f" and values is not hidden.arrays["support"]:
                values[:, window - delay + 1 :] = values[:, :, window - delay :] = np.nan
        until = min(window + 1, windows)
        for policy in BLIND:
            expected = backtest(record, policy, delay=delay)
            found = backtest(hidden, policy, delay=delay, until=max(until, delay + 3))
            known = until - delay - 1
            assert np.array_equal(found.path[:, :known], expected.path[:, :known]), policy
            assert np.array_equal(found.alarms[:, :known], expected.alarms[:, :known]), policy
            decided += int(expected.updated[:, :known].sum())
    assert decided > 500


# ---------------------------------------------------------------------- start, until, tuned
def test_start_and_until_cut_the_windows() -> None:
    losses = random_losses(np.random.default_rng(0))
    record = record_of(losses)
    whole = backtest(record, Every())
    part = backtest(record, Every(), start=4, until=9)
    assert part.path[0].tolist() == [4, 5, 6, 7, 8]
    assert np.array_equal(part.loss, whole.loss[:, 3:8])
    assert backtest(record, Never(), start=4).path[0].tolist() == [4] * 8
    late = backtest(record, Never(), start=5, delay=2)
    assert late.path[0].tolist() == [3] * 7
    assert np.array_equal(late.loss, losses[:, 3, 5:])


def test_tuned_is_scored_on_the_other_windows() -> None:
    record = record_of(random_losses(np.random.default_rng(0)))
    tuned = tune(record, OnDecay(), {"rise": [0.1, 0.5, 2.0]}, until=6)
    assert isinstance(tuned, Tuned)
    result = backtest(record, tuned)
    assert (result.first, len(result.windows)) == (6, 6)
    assert backtest(record, tuned, start=8).first == 8
    with pytest.raises(InputError, match="start=5: the policy was tuned on the windows before 6"):
        backtest(record, tuned, start=5)


def test_tune_chooses_the_best_point_from_the_first_windows_only() -> None:
    losses = random_losses(np.random.default_rng(4), replicas=3)
    changed = losses.copy()
    changed[:, 8:] = changed[:, :, 7:] = 9.0
    values = [0.0, 0.2, 0.6, 3.0]
    for by, part in (("skill", "skill"), ("loss", "mean_loss")):
        tuned = [tune(record_of(t), OnDecay(1), {"rise": values}, 7, by=by) for t in (losses, changed)]
        assert tuned[0] == tuned[1]
        scores = [getattr(backtest(record_of(losses), OnDecay(v), until=7), part) for v in values]
        known = [s[np.isfinite(s)].mean() if np.isfinite(s).any() else -np.inf for s in scores]
        best = int(np.argmax(known) if by == "skill" else np.argmin(known))
        assert tuned[0].policy == OnDecay(values[best])


@pytest.mark.parametrize("until", [None, 2, 13, 4.0])
def test_tune_needs_a_window_before_which_it_stops(until: Any) -> None:
    with pytest.raises(InputError, match=f"^until={until}"):
        tune(record_of(LOSSES), OnDecay(1), {"rise": [0.1]}, until)


@pytest.mark.parametrize("grid", [[1], "rise", {1: [2]}])
def test_a_grid_maps_names_to_numbers(grid: Any) -> None:
    with pytest.raises(InputError, match=r"^grid"):
        backtest(record_of(LOSSES), OnDecay(1), grid=grid)


def test_a_tuned_value_is_kept_as_it_is() -> None:
    """A policy made with a whole number keeps fractions of the grid."""
    record = record_of(random_losses(np.random.default_rng(0)))
    assert tune(record, OnDecay(1), {"rise": [0.25]}, 8).policy == OnDecay(0.25)
    assert tune(record, Every(1), {"windows": [2.5]}, 8).policy == Every(2.5)


# ---------------------------------------------------------------------- bad input
LOSSES = random_losses(np.random.default_rng(0), windows=8)


def changed(change: Callable[[Record], None], losses: np.ndarray = LOSSES, **options: Any) -> Record:
    record = record_of(losses, **options)
    change(record)
    return record


def with_stream(**stream: Any) -> Record:
    return record_of(LOSSES, **stream)


def rows_every_2() -> Record:
    record = record_of(LOSSES)
    arrays = {name: v[:, ::2] if v.ndim == 3 else v for name, v in record.arrays.items()}
    return dataclasses.replace(record, rows=record.rows[::2], arrays=arrays)


def joint() -> Record:
    return changed(lambda record: record.arrays["before"].fill(0))


def empty_window() -> Record:
    return changed(lambda record: record.arrays["support"][:, :, 3].fill(0))


def other_test_sets() -> Record:
    return changed(lambda record: record.arrays["support"][1, :, 3].fill(77))


RECORDS: list[tuple[str, Callable[[], Record], str]] = [
    ("two_windows", lambda: record_of(LOSSES[:, :3, :2]), "has 2 windows; at least 3 are needed"),
    (
        "49_samples",
        lambda: record_of(LOSSES, support=[90, 49] + [90] * 6),
        r"window 1 has 49 test samples; at least 50",
    ),
    ("empty_window", empty_window, "window 3 has 0 test samples"),
    (
        "out_of_order",
        lambda: record_of(LOSSES, columns=["1", "2", "4", "3", "5", "6", "7", "8"]),
        r"window 3 comes after window 4; give stream\.order in time",
    ),
    (
        "repeated",
        lambda: record_of(LOSSES, columns=["1", "2", "2.0", "3", "5", "6", "7", "8"]),
        "window 2.0 comes after",
    ),
    ("seen", lambda: with_stream(eval_classes="seen"), "class-incremental"),
    ("class", lambda: with_stream(scenario="class"), "class-incremental"),
    ("eval_every_2", rows_every_2, "eval_every must be 1"),
    ("online", lambda: with_stream(experiences=80), "80 experiences and 8 test sets"),
    ("task_incremental", lambda: with_stream(scenario="task"), "synthetic is task-incremental"),
    ("blurry", lambda: with_stream(options={"kind": "blurry"}), "windows exchange training samples"),
    (
        "blurry_parent",
        lambda: with_stream(options={"kind": "online", "parent": {"kind": "blurry"}}),
        "windows exchange training samples",
    ),
    ("joint", joint, "does not train one window after the other"),
    ("other_test_sets", other_test_sets, "test sets of the replicas differ"),
    ("no_arrays", lambda: changed(lambda record: record.arrays.clear()), r"has no arrays\.npz; copy it together"),
]


@pytest.mark.parametrize(("make", "message"), [r[1:] for r in RECORDS], ids=[r[0] for r in RECORDS])
def test_records_that_cannot_be_used(make: Callable[[], Record], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        backtest(make(), Never())
    assert "\n" not in str(caught.value)


NEEDS: list[Policy] = [
    OnGain(),
    OnDrift(),
    OnDrift(watches.Inputs()),
    OnDrift(watches.Labels()),
    OnDrift(watches.PredictedLabels()),
    Gated(Every(), (NoSliceDrop("group"),)),
]


@pytest.mark.parametrize("policy", NEEDS, ids=repr)
def test_policies_that_need_predictions(policy: Policy) -> None:
    with pytest.raises(InputError, match="run with save_predictions=true"):
        backtest(record_of(LOSSES), policy)


@pytest.mark.parametrize(
    "policy", [OnGain(1), OnDecay(), CostAware(), Gated(Every(), (NoWorse(),)), OnDrift(watches.Errors())], ids=repr
)
def test_policies_that_need_no_predictions(policy: Policy) -> None:
    assert backtest(record_of(LOSSES), policy).path.shape == (2, 7)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"delay": -1}, "delay=-1: must be a whole number, 0 or more"),
    ({"delay": 1.0}, "delay=1.0"),
    ({"delay": True}, "delay=True"),
    ({"delay": 6}, "delay=6: leaves no decision with 8 windows; at most 5"),
    ({"delay": 8}, "delay=8: leaves no decision"),
    ({"delay": 100}, "delay=100: leaves no decision"),
    ({"metric": "accuracy"}, "metric='accuracy': must be one of nll, error, brier"),
    ({"start": 0}, "start=0: must be a window from 1 to 6"),
    ({"start": 7}, "start=7"),
    ({"start": 1.5}, "start=1.5"),
    ({"start": 2, "delay": 2}, "start=2: must be a window from 3 to 6"),
    ({"until": 2}, "until=2: must be a window from 3 to 8"),
    ({"until": 9}, "until=9"),
    ({"start": 4, "until": 5}, "until=5: must be a window from 6 to 8"),
    ({"policy": "never"}, "policy='never': must be a cl_lib.policies.Policy"),
    ({"policy": Never}, "must be a cl_lib.policies.Policy"),
    ({"policy": Tuned(Never(), 7)}, "start=7: must be a window from 1 to 6"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[str(o) for o, _ in OPTIONS])
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        backtest(record_of(LOSSES), **{"policy": Never(), **options})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (lambda known: known.serving + 0.0, "an array of float64"),
        (lambda known: [1, 1], "returned a list"),
        (lambda known: None, "returned a NoneType"),
        (lambda known: known.serving[:1], r"shape \(1,\); must be \(2,\)"),
        (lambda known: known.serving * 0, "row 0 before window 2; rows 1 to 2 are trained"),
        (lambda known: known.serving * 0 - 3, "row -3"),
        (lambda known: known.serving * 0 + known.window + 1, "row 3 before window 2"),
        (lambda known: known.loss(1, known.newest) > 0, "reads the labels of window 2"),
        (lambda known: known.loss(known.newest + 1, 0) > 0, "reads row 3"),
        (lambda known: known.loss(-1, 0) > 0, "reads row -1"),
        (lambda known: known.loss(1, -1) > 0, "reads the labels of window -1"),
        (lambda known: known.counts("errors", 1, range(1, 3)), "reads errors of window 2"),
        (lambda known: known.loss(1, 0, "nlll"), "metric='nlll': unknown; did you mean nll"),
    ],
    ids=lambda v: str(v)[:25],
)
def test_a_policy_that_returns_or_reads_what_it_must_not(row: Callable[[Known], Any], message: str) -> None:
    class Wrong(Policy):
        def choose(self, known: Known) -> np.ndarray:
            return row(known)

    with pytest.raises(InputError, match=message):
        backtest(record_of(LOSSES), Wrong())


def test_a_diverged_replica_has_no_skill_and_its_updates_are_harmful() -> None:
    losses = LOSSES.copy()
    losses[0, 4:] = np.nan
    result = backtest(record_of(losses), Every(2))
    assert np.isnan(result.skill[0])
    assert np.isfinite(result.skill[1])
    assert np.isnan(result.mean_loss[0])
    diverged = result.updated[0] & (result.path[0] >= 4)
    assert diverged.sum() >= 2
    assert result.harmful[0] >= diverged.sum()
    alone = backtest(record_of(LOSSES), Every(2))
    assert result.skill[1] == alone.skill[1]
    assert str(result)
    assert np.isfinite(result.interval()).all()  # from the other replica


def test_all_replicas_diverged() -> None:
    result = backtest(record_of(LOSSES * np.nan), Every(2))
    assert np.isnan(result.skill).all()
    assert (result.harmful == result.updates).all()
    assert "–" in str(result)


@pytest.mark.parametrize(
    "policy",
    [OnGain(), OnDecay(), CostAware(), OnDrift(watches.Errors()), OnDrift(), Gated(Every(), (NoWorse(),))],
    ids=repr,
)
def test_policies_meet_a_diverged_replica(policy: Policy) -> None:
    """A replica that diverges leaves the decisions of the others as they are."""
    results = sample_results(np.random.default_rng(0))
    expected = backtest(record_with_samples(results), policy)
    results["nll"][0, 4:] = np.nan
    results["confidence"][0, 4:] = np.nan
    results["correct"][0, 4:] = False
    record = record_with_samples(results)
    record.arrays["matrix.accuracy"][0, 4:] = np.nan
    found = backtest(record, policy)
    assert np.array_equal(found.path[1:], expected.path[1:])
    assert np.isnan(found.skill[0])


@pytest.mark.parametrize(
    ("names", "place"),
    [
        (["9", "10", "11"], None),
        (["9", "11", "10"], 2),
        (["2013-01", "2013-02", "2014-01"], None),
        (["2013-W52", "2014-W01"], None),
        (["2014-01-02", "2014-01-01"], 1),
        (["2014-01-01T00:00Z", "2014-01-02T00:00Z", "2013-12-31T00:00Z"], 2),
        (["2014-01-02 00:00:00+02:00", "2014-01-01 00:00:00+02:00"], 1),
        (["January", "Mar", "Feb"], 2),
        (["2013 Q4", "2013 Q3"], 1),
        (["january", "February", "march"], None),
        (["Mon", "Sun", "Tue"], 2),
        (["Oslo", "Rome", "Bern"], None),
        (["1", "1"], 1),
        (["-1", "0.5", "1e3"], None),
    ],
    ids=str,
)
def test_order_of_windows(names: list[str], place: int | None) -> None:
    assert in_time(names) == place


# ---------------------------------------------------------------------- a real run
@pytest.fixture(scope="module")
def real() -> Record:
    stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6)
    return cl_lib.run(stream, cl_lib.strategies.FromScratch(), seeds=2, save_predictions=True)


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Every(2), OnGain(), OnDrift(), OnDrift(watches.Inputs())], ids=repr)
def test_a_real_record(real: Record, policy: Policy) -> None:
    result = backtest(real, policy, metric="error")
    matrix = 1 - real.arrays["matrix.accuracy"]
    windows = np.arange(1, 6)
    assert np.array_equal(result.loss, matrix[np.arange(2)[:, None], result.path, windows])
    assert (result.oracle <= result.random + 1e-12).all()


def test_a_tuned_policy_is_for_its_delay_and_data() -> None:
    record = record_of(random_losses(np.random.default_rng(0)))
    tuned = tune(record, OnDecay(), {"rise": [0.1, 0.5]}, until=6)
    with pytest.raises(InputError, match="delay=1: the policy was tuned with delay=0"):
        backtest(record, tuned, delay=1)
    other = dataclasses.replace(tuned, data="another")
    with pytest.raises(InputError, match="the policy was tuned with data=another"):
        backtest(record, other)
