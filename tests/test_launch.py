"""Several steps at once: as on CUDA, but what is recorded is run again instead of replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pretended_graphs
import pytest
import torch
from pretended_graphs import DEFAULT, Graph, on_stream, recording
from running import final
from torch import Tensor

from cl_lib import SGD, Memory, Schedule, strategies
from cl_lib.checks import toy_data
from cl_lib.datasets import from_arrays
from cl_lib.engine import blocks, launch
from cl_lib.engine.trace import Program
from cl_lib.harness.assembly import make_learners, make_plan
from cl_lib.harness.job import Job
from cl_lib.harness.session import Interrupted, Session
from cl_lib.models import MLP
from cl_lib.streams import split

STRATEGIES = {
    "er": strategies.ER(Memory(20, 8)),
    "derpp": strategies.DERpp(Memory(20, 8)),
    "ewc": strategies.EWC(mode="online", samples=30),
    "icarl": strategies.ICaRL(Memory(20, 8, "strategy")),
    "joint": strategies.Joint(),
}
launched = 0


def again(body: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
    """Stands in for a CUDA graph: warming up changes nothing, a replay does what was recorded."""
    before = [t.clone() for t in state]
    body()
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)

    def replay() -> None:
        global launched
        launched += 1
        body()

    return replay


def session(strategy: Any, **options: Any) -> Session:
    options = {
        "model": MLP.factory(hidden=(12,)),
        "batch_size": 2,
        "optim": SGD(0.05, momentum=0.5, schedule=Schedule("cosine")),
        "seeds": 2,
    } | options
    return Session(Job(split(toy_data(), 2), strategy, **options))


@pytest.mark.parametrize("lift", ["never", "auto"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_sixteen_steps_a_launch_learn_what_single_steps_do(
    name: str, lift: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = final(session(STRATEGIES[name], lift=lift))
    monkeypatch.setattr(blocks, "recorder", lambda device: again)
    before = launched
    together = final(session(STRATEGIES[name], lift=lift))
    assert launched > before
    assert all(torch.equal(a, b) for a, b in zip(single, together, strict=True))


def test_batch_statistics_keep_their_odd_last_batch_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(shape: Any, classes: int) -> torch.nn.Module:
        hidden = torch.nn.Linear(shape[0], 8)
        return torch.nn.Sequential(hidden, torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, classes))

    options = {"model": model, "batch_size": 3}
    single = final(session(STRATEGIES["er"], **options))
    monkeypatch.setattr(blocks, "recorder", lambda device: again)
    assert all(torch.equal(a, b) for a, b in zip(single, final(session(STRATEGIES["er"], **options)), strict=True))


def test_a_run_stopped_between_launches_goes_on_from_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "recorder", lambda device: again)
    whole = final(session(STRATEGIES["derpp"]))
    job = session(STRATEGIES["derpp"]).job
    stopped = Session(job, tmp_path)
    monkeypatch.setattr(stopped, "_stops", lambda done: done >= 10)
    with pytest.raises(Interrupted) as caught:
        list(stopped)
    assert caught.value.step == launch.LAUNCH
    resumed = final(Session(job, tmp_path, resume=True))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording fails as on CUDA: after warming up, its end raising too, and its stream stays the current one."""

    @contextmanager
    def graph(graph: Graph, stream: Any = None, **options: Any) -> Iterator[None]:
        with recording(graph, stream):
            graph.failed = True
            raise RuntimeError("not permitted\nmore")
            yield

    replaced = {
        "CUDAGraph": Graph,
        "Stream": pretended_graphs.Stream,
        "current_stream": lambda: pretended_graphs.Stream.current,
        "stream": on_stream,
        "graph": graph,
    }
    for name, new in replaced.items():
        monkeypatch.setattr(torch.cuda, name, new)
    monkeypatch.setattr(pretended_graphs.Stream, "current", DEFAULT)
    monkeypatch.setattr(blocks, "recorder", lambda device: launch.cuda_graph)


@pytest.mark.usefixtures("failing")
def test_what_cannot_be_recorded_runs_step_by_step_after_one_warning() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "recorder", lambda device: None)
        single = final(session(STRATEGIES["er"]))
    with pytest.warns(UserWarning, match=r"no CUDA graph can be recorded.*\(not permitted\)") as caught:
        other = final(session(STRATEGIES["er"]))
    assert len(caught) == 1
    assert all(torch.equal(a, b) for a, b in zip(single, other, strict=True))
    assert pretended_graphs.Stream.current is DEFAULT


@pytest.mark.usefixtures("failing")
def test_a_failed_recording_puts_back_what_warming_up_changed() -> None:
    state = torch.zeros(2)
    with pytest.raises(RuntimeError, match="previous error"):
        launch.cuda_graph(lambda: state.add_(1), [state])
    assert state.tolist() == [0, 0]
    assert pretended_graphs.Stream.current is DEFAULT


def test_the_reason_of_a_failed_recording_is_not_what_the_caller_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(body: Any, state: Any) -> Any:
        raise RuntimeError("out of memory")

    def while_handling() -> Any:
        try:
            raise ValueError("something else")
        except ValueError:
            return launch.try_to_record(lambda *t: None, [], [torch.zeros(16)], 0, [], fail)

    with pytest.warns(UserWarning, match=r"\(out of memory\)"):
        assert while_handling() is None


@pytest.mark.parametrize("name", ["er", "icarl", "ewc"])
def test_a_program_knows_which_of_its_inputs_it_changes(name: str) -> None:
    """What the trace of a step says is what a step does."""
    own = session(STRATEGIES[name], epochs=1)
    plan = make_plan(own.job, own.groups[0])
    learner: Any = make_learners(own.job, own.groups[0], plan)
    block = next(iter(plan.experience(0)))
    learner.begin_experience(0)
    learner.observe(block, 0)
    ((run, fixed, varying),) = learner.blocks._calls[1]
    before = [t.clone() for t in (*fixed, *varying)]
    run(*fixed, *varying)
    changed = {i for i, (a, b) in enumerate(zip(before, (*fixed, *varying), strict=True)) if not torch.equal(a, b)}
    known = learner.blocks.program.changes[run]
    assert changed
    assert changed <= set(known)
    assert len(known) < len(before)


@torch.library.custom_op("cl_lib_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return 2 * x


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_only_programs_of_torchs_own_operations_are_recorded() -> None:
    for own, step in ((False, lambda x: 2 * x), (True, torch.ops.cl_lib_tests.twice)):

        def write(static: Any, fixed: Any, varying: Any, step: Any = step) -> None:
            fixed["y"].copy_(step(fixed["x"]))

        program = Program(write)
        run = program.prepare({"x": torch.ones(2), "y": torch.zeros(2)}, {})
        assert program.changes == ({} if own else {run: [1]})


def test_only_cuda_records() -> None:
    assert launch.recorder(torch.device("cpu")) is None
    assert launch.recorder(torch.device("cuda")) is launch.cuda_graph


@pytest.mark.parametrize(("device", "times"), [("cuda", 1), ("cpu", 0)])
def test_the_peak_of_a_devices_memory_is_a_sessions_own(
    device: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back once, before anything is planned or trained, however many groups there are."""
    done: list[str] = []
    train, test = ((part.x.numpy(), part.y.numpy()) for part in (toy_data().train, toy_data().test))
    kept = (train[1] > 0) | (
        np.arange(len(train[1])) % 2 == 0
    )  # fewer of a class: another schedule where it comes later
    stream = split(from_arrays((train[0][kept], train[1][kept]), test, name="uneven"), 2, class_order="seed")
    own = Session(Job(stream, STRATEGIES["er"], seeds=5, batch_size=2, device="cpu"))
    assert len(own.groups) > 1
    learn = own._run

    def run(*args: Any) -> Iterator[Any]:
        done.append("run")
        own.device = torch.device("cpu")  # it trains on the CPU
        yield from learn(*args)
        own.device = torch.device(device)

    own.device = torch.device(device)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *args: done.append("reset"))
    monkeypatch.setattr(
        "cl_lib.harness.session.make_plan", lambda job, group: done.append("plan") or make_plan(job, group)
    )
    monkeypatch.setattr(own, "_run", run)
    assert len(list(own)) > 1
    assert done == ["reset"] * times + ["plan"] * len(own.groups) + ["run"] * len(own.groups)
