"""Policies in a run: decisions as in a backtest, decliners unchanged, replicas independent, resumable at every step."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import shared_traces
from torch.utils import _pytree as pytree

import cl_lib
from cl_lib import Memory, policies, streams
from cl_lib.datasets import digits, from_arrays
from cl_lib.drift import Inputs
from cl_lib.harness import runner
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.models import MLP
from cl_lib.policies import Every, Known, Never, OnDrift, OnGain, Policy, Random
from cl_lib.service import backtest
from cl_lib.strategies import DER, ER, EWC, SI, SLDA, Finetune, FromScratch, Joint

STREAM = streams.rotated(digits(), experiences=4)
SMALL = MLP.factory(hidden=(16,))
STRATEGIES: dict[str, Any] = {
    "finetune": Finetune(),
    "er": ER(Memory(capacity=50, batch=10)),
    "ewc": EWC(lam=10.0),
    "ewc_online": EWC(lam=10.0, mode="online"),
    "si": SI(),
    "slda": SLDA(),
}


@dataclass(frozen=True)
class Chosen(Policy):
    """Accept the updates of the windows in ``rows`` for seeds with an even number, all others for odd ones."""

    rows: tuple[int, ...] = (3,)
    shadow: bool = False
    candidates: bool = field(default=False, init=False)  # type: ignore[misc]

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", self.shadow)

    def choose(self, known: Known) -> np.ndarray:
        update = (known.newest in self.rows) ^ (known.seeds % 2 == 1)
        return np.where(update, known.newest, known.serving)


def run(strategy: Any, policy: Policy | None, seeds: Any = 3, **options: Any) -> cl_lib.Record:
    options = {"model": SMALL, "save_predictions": True, "lift": "always", "batch_size": 50, **options}
    with shared_traces(PROGRAMS):
        return cl_lib.run(STREAM, strategy, policy=policy, seeds=seeds, **options)


PROGRAMS: dict[Any, Any] = {}
"""Traced programs, shared by runs of the same strategy."""


@cache
def finished(strategy: str, policy: Policy) -> cl_lib.Record:
    return run(STRATEGIES[strategy], policy)


# ---------------------------------------------------------------------- decisions
@pytest.mark.parametrize("windows", [1, 2, 3])
def test_from_scratch_live_is_the_backtest(windows: int) -> None:
    live = run(FromScratch(), Every(windows))
    result = backtest(run(FromScratch(), None), Every(windows))
    assert np.array_equal(live.arrays["served"][:, 1:-1], result.path)
    rows = range(1, 4)
    for name, loss in (("nll", "nll"), ("brier", "brier")):
        served = np.stack([live.arrays[f"matrix.{name}"][:, w, w] for w in rows], 1)
        expected = backtest(run(FromScratch(), None), Every(windows), metric=loss).loss
        assert np.array_equal(served, expected)


def test_always_is_a_run_without_a_policy() -> None:
    live, plain = finished("er", Every(1)), run(STRATEGIES["er"], None)
    for name, values in plain.arrays.items():
        if name != "age":
            assert np.array_equal(live.arrays[name], values, equal_nan=True), name


def test_backtests_need_a_model_of_every_window() -> None:
    with pytest.raises(cl_lib.InputError, match=r"is of a run with policy=Never.*backtest a run without policy"):
        backtest(finished("er", Never()), Every())
    assert backtest(finished("er", Every()), Every()).updates.tolist() == [2] * 3
    with pytest.raises(cl_lib.InputError, match="record='runs/er': must be a record; read that of a directory"):
        backtest("runs/er", Every())  # type: ignore[arg-type]


def test_the_printed_record_counts_updates() -> None:
    for policy, updates in ((Never(), "0.0"), (Every(), "2.0")):
        record = finished("er", policy)
        nll = np.mean([record.arrays["matrix.nll"][:, w, w] for w in (1, 2, 3)])
        line = f"policy {type(policy).__name__}: {updates} updates, NLL {nll:.4f} in 3 windows served"
        assert line in str(record)
    assert f"NLL {backtest(finished('er', Every()), Every()).mean_loss.mean():.4f} in" in str(finished("er", Every()))
    assert "policy" not in str(run(FromScratch(), None))


def test_never_serves_the_first_model() -> None:
    record = finished("er", Never())
    assert record.arrays["served"].tolist() == [[0, 1, 1, 1, 1]] * 3
    matrix = record.arrays["matrix.nll"]
    assert np.array_equal(matrix[:, 1:], np.repeat(matrix[:, 1:2], 4, 1))
    assert not record.arrays["flips.negative"][:, 1:].any()


def test_decisions_see_candidates_that_were_declined() -> None:
    record = finished("finetune", OnGain(alpha=1.0))
    serving = record.arrays["served"]
    candidate = np.array([record.arrays["candidate.nll"][:, row, row] for row in range(1, 4)]).T  # row i on window i
    matrix = record.arrays["matrix.nll"]
    for r in range(3):
        for newest in range(2, 5):
            before = serving[r, newest - 1]
            better = candidate[r, newest - 2] < matrix[r, newest - 1, newest - 1] and newest - 1 > before
            assert serving[r, newest] == (newest if better else before)


# ---------------------------------------------------------------------- independence
@pytest.mark.parametrize(
    "policy", [Chosen(), Chosen(shadow=True), OnGain(), Random(0.5)], ids=["chosen", "shadow", "gain", "random"]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_replica_alone_is_the_same_as_in_company(strategy: str, policy: Policy) -> None:
    together = finished(strategy, policy)
    for seed in range(3):
        alone = run(STRATEGIES[strategy], policy, [seed])
        for name, values in together.arrays.items():
            assert np.array_equal(values[seed], alone.arrays[name][0], equal_nan=True), name


def test_a_watch_sees_the_inputs_of_each_replica() -> None:
    """The angles of rotated images differ by seed, and so do the histograms."""
    policy = OnDrift(Inputs(), effect=0.8)
    options: dict[str, Any] = {"model": SMALL, "lift": "always", "batch_size": 50}
    stream, seeds = streams.rotated(digits(), experiences=6), [0, 1, 2]
    together = cl_lib.run(stream, Finetune(), policy=policy, seeds=seeds, save_predictions=True, **options)
    assert together.predictions is not None
    assert together.predictions.arrays["inputs"].shape[:2] == (3, 6)
    assert len(np.unique(together.arrays["served"], axis=0)) == 3
    for seed in seeds:
        alone = cl_lib.run(stream, Finetune(), policy=policy, seeds=[seed], save_predictions=True, **options)
        assert alone.predictions is not None
        assert np.array_equal(together.predictions.arrays["inputs"][seed], alone.predictions.arrays["inputs"])
        assert np.array_equal(together.arrays["served"][seed], alone.arrays["served"][0])


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_decliners_keep_their_state(strategy: str, shadow: bool) -> None:
    """The state of a replica changes in the windows that it accepts and in no other."""
    job = Job(STREAM, STRATEGIES[strategy], model=SMALL, seeds=3, batch_size=50, policy=Chosen(shadow=shadow))
    session = Session(job)
    states: list[list[torch.Tensor]] = []
    for _ in session:
        assert session.learner is not None
        states.append([leaf.clone() for leaf in pytree.tree_leaves(session.learner.tree)])
    served = session.result().groups[0].rows
    for row, (before, after) in enumerate(itertools.pairwise(states[1:]), start=2):
        accepted = served[row].arrays["served"] == row
        assert set(accepted) == {True, False}
        for replica in range(3):
            same = all(torch.equal(a[replica], b[replica]) for a, b in zip(before, after, strict=True))
            assert same != accepted[replica]


# ---------------------------------------------------------------------- resuming
class Stopped(Session):
    at = 0

    def _stops(self, done: int) -> bool:
        return done == self.at


@pytest.mark.parametrize("policy", [Chosen(), Chosen(shadow=True), OnGain()], ids=["chosen", "shadow", "gain"])
@pytest.mark.parametrize("strategy", ["er", "ewc_online"])
def test_a_run_resumed_within_a_window_is_the_same(
    strategy: str, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished(strategy, policy)
    steps = int(whole.rows[-1]["step"])
    resumed = 0
    for at in range(10, steps, 19):
        out = tmp_path / str(at)
        Stopped.at = at
        with monkeypatch.context() as patch:
            patch.setattr(runner, "Session", Stopped)
            try:
                run(STRATEGIES[strategy], policy, out=out)
                continue  # at steps of windows that no replica trained there is nothing to stop
            except cl_lib.Interrupted:
                resumed += 1
        again = run(STRATEGIES[strategy], policy, out=out, resume=True)
        predicted = [record.predictions.arrays for record in (whole, again) if record.predictions is not None]
        for ours, theirs in ((whole.arrays, again.arrays), (predicted[0], predicted[1])):
            for name, values in ours.items():
                assert np.array_equal(values, theirs[name], equal_nan=True), (at, name)
    assert resumed >= 3


def test_another_policy_does_not_resume(tmp_path: Path) -> None:
    run(Finetune(), Never(), out=tmp_path / "run")
    with pytest.raises(cl_lib.InputError, match=r"other options.*policy"):
        run(Finetune(), Every(2), out=tmp_path / "run", resume=True)


# ---------------------------------------------------------------------- record
def test_the_record_says_what_was_decided() -> None:
    record = finished("er", Chosen())
    assert record.job["policy"] == {"name": "Chosen", "rows": [3], "shadow": False, "candidates": False}
    assert "age" not in record.arrays
    assert record.slices["age"]["reason"].startswith("a policy")
    assert record.arrays["served"].shape == (3, 5)
    windows = np.diff(record.arrays["step"], axis=1)
    assert record.cost["steps"] == (windows * (record.arrays["served"][:, 1:] == np.arange(1, 5))).sum(1).mean()
    assert finished("er", Chosen(shadow=True)).cost["steps"] == windows[0].sum()


# ---------------------------------------------------------------------- bad input
@dataclass(frozen=True)
class Older(Policy):
    def choose(self, known: Known) -> np.ndarray:
        return np.ones(known.shape, int) if known.newest == 4 else np.full(known.shape, known.newest)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (DER(Memory(capacity=20, batch=5)), {}, "policy: DER keeps outputs of the model"),
        (Joint(), {}, "policy: Joint trains on windows to come"),
        (Finetune(), {"eval_every": 2}, "eval_every=2: must be 1 with a policy"),
        (Finetune(), {"policy": 3}, "policy=3: must be a cl_lib.policies.Policy"),
        (Finetune(), {"policy": Every(0)}, "policy.windows=0: must be a number"),
        (Finetune(), {"policy": OnDrift(), "save_predictions": False}, "policy: OnDrift needs predictions"),
        (
            Finetune(),
            {"policy": policies.Gated(Every(1), (policies.NoWorse(),))},
            "policy: a gate deploys an older model",
        ),
        (Finetune(), {"policy": Older()}, "policy Older: chooses row 1, whose state is not kept"),
    ],
)
def test_what_a_run_refuses(strategy: Any, options: dict[str, Any], message: str) -> None:
    policy = options.pop("policy", Never())
    with pytest.raises(cl_lib.InputError, match=re.escape(message)):
        run(strategy, policy, **options)


def by_month(months: list[str], samples: int = 200) -> streams.Stream:
    x, month = np.random.default_rng(0).normal(size=(len(months) * samples, 2)), np.repeat(months, samples)
    data = from_arrays((x, np.arange(len(x)) % 2), 0.5, columns={"month": month})
    return streams.by_column(data, "month", order=months)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (streams.split(digits()), "split_digits is class-incremental"),
        (streams.split(digits(), eval_classes="all"), "split_digits is class-incremental"),
        (streams.split(digits(), scenario="task"), "split_digits is task-incremental"),
        (streams.online(STREAM), "a window must be one experience"),
        (streams.blurry(by_month(["Jan", "Feb", "Mar"])), "is blurry"),
        (streams.rotated(digits(), experiences=2), "has 2 windows; at least 3 are needed"),
        (by_month(["Jan", "Mar", "Feb"]), "window Feb comes after window Mar; give stream.order in time"),
        (by_month(["Jan", "Feb", "Mar"], 80), "window Mar has 37 test samples; at least 50 are needed"),
    ],
)
def test_streams_that_are_not_windows_in_time_are_refused(stream: streams.Stream, message: str) -> None:
    with pytest.raises(cl_lib.InputError, match=f"^policy: .*{message}"):
        cl_lib.run(stream, Finetune(), policy=Never())


def test_a_plain_learner_is_refused() -> None:
    class Constant:
        def observe(self, batch: Any) -> None: ...

        def end_experience(self, data: Any) -> None: ...

        def predict(self, x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 10), 0.1).log()

    with pytest.raises(cl_lib.InputError, match="policy: a plain Learner"):
        cl_lib.run(STREAM, lambda seed: Constant(), policy=Never())
