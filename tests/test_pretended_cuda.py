"""CUDA's rules on any machine: the numbers of the CPU, steps recorded as graphs, no wait within a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pretended_graphs
import pytest
import torch
from pretended_cuda import DEVICE, Away, Machine, pretended
from pretended_graphs import DEFAULT, Graph, recording
from test_strategies import EVERY
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cl_lib import SGD, Memory, Schedule, strategies
from cl_lib.checks import toy_data
from cl_lib.datasets import Dataset, from_arrays
from cl_lib.engine import launch
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.models import MLP, ConvNet
from cl_lib.strategies import Strategy
from cl_lib.streams import permuted, rotated, split
from cl_lib.streams.stream import Stream

WITHOUT_GRAPH = {
    "gem": "solves its quadratic program on the host",
    "random_guess": "takes no step",
    "frozen": "takes few steps in a short first experience",
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images() -> Dataset:
    """Blobs as images of 4 x 4."""
    data, rng = toy_data(), np.random.default_rng(0)
    mix = rng.normal(size=(6, 16)).astype(np.float32)
    train, test = (((part.x.numpy() @ mix).reshape(-1, 1, 4, 4), part.y.numpy()) for part in (data.train, data.test))
    return from_arrays(train, test, name="toy images")


def uneven() -> Stream:
    """Two experiences, the first of which has fewer steps than a graph: what is recorded is so with memories in use."""
    train, test = ((part.x.numpy(), part.y.numpy()) for part in (toy_data().train, toy_data().test))
    kept = (train[1] > 1) | (np.arange(len(train[1])) % 2 == 0)
    return split(from_arrays((train[0][kept], train[1][kept]), test, name="uneven"), 2)


def normalised(shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network with batch statistics."""
    layers = nn.Linear(shape[0], 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, classes)
    return nn.Sequential(*layers)


def finished(strategy: Any, device: str, **options: Any) -> tuple[dict[str, Tensor], list[dict[str, np.ndarray]]]:
    """A run's last state by its paths, and its rows."""
    defaults = {
        "stream": uneven(),
        "model": MLP.factory(hidden=(12, 9)),
        "optim": SGD(0.05, momentum=0.5, schedule=Schedule("cosine")),
        "batch_size": 3,
        "seeds": 3,
        "dtype": "float64",
    }
    session = Session(Job(strategy=strategy, device=device, **(defaults | options)))
    rows = [row.arrays for row in session]
    assert session.learner is not None
    tree = pytree.tree_map(lambda t: t.host if isinstance(t, Away) else t, session.learner.tree)
    return {pytree.keystr(path): t for path, t in pytree.tree_flatten_with_path(tree)[0]}, rows


def compare(strategy: Any, **options: Any) -> Machine:
    """Run on the CPU and on the pretended device; both must end alike."""
    theirs, before = finished(strategy, "cpu", **options)
    with pretended() as machine:
        ours, after = finished(strategy, "cuda", **options)
        assert pretended_graphs.Stream.current is DEFAULT, "a stream was left the current one"
    assert theirs.keys() == ours.keys()
    for path, a in theirs.items():
        # the row behind a memory's last may hold anything
        last = -1 if "'memory'" in path and a.ndim > 1 else None
        torch.testing.assert_close(
            ours[path][:, :last] if last else ours[path],
            a[:, :last] if last else a,
            rtol=1e-9,
            atol=1e-9,
            equal_nan=True,
            msg=lambda text, path=path: f"{path}: {text}",
        )
    for row, other in zip(before, after, strict=True):
        for name, values in row.items():
            assert np.allclose(values, other[name], rtol=1e-9, atol=1e-9, equal_nan=True), name
    return machine


def in_steps(machine: Machine) -> list[str]:
    """What the host waited for in a step, or where one was recorded."""
    return [why for what, why in machine.waits if what in ("step", "record")]


def check(name: str, long_enough: bool = True, **options: Any) -> None:
    """Equal numbers; graphs without failure, where experiences are long enough for one, and no wait in a step."""
    machine = compare(EVERY[name], **options)
    assert machine.graphs or not long_enough or name in WITHOUT_GRAPH
    assert all(graph.replays and not graph.failed for graph in machine.graphs)
    assert name == "gem" or not in_steps(machine)


# ---------------------------------------------------------------------- every strategy
@pytest.mark.parametrize("name", EVERY)
def test_every_strategy_runs_as_on_the_cpu(name: str) -> None:
    """Streamed where a strategy fills its memory: then a step also writes which rows of the data lie there."""
    check(name, store="streamed" if EVERY[name].fills_memory else "resident")


SEEN = {"scenario": "class", "train_classes": "seen", "eval_classes": "seen"}
LONG = {
    "permuted": lambda: {"stream": permuted(images(), 2)},
    "streamed": lambda: {"stream": split(toy_data(), 2), "store": "streamed"},
    "resident": lambda: {"stream": split(toy_data(), 2), "store": "resident"},
    "convolutions": lambda: {
        "stream": split(images(), 2),
        "model": ConvNet.factory(channels=(3,), hidden=5),
        "lift": "always",
    },
    "batch statistics": lambda: {"model": normalised},
    "one seed": lambda: {"stream": split(toy_data(), 2, **SEEN), "seeds": 1},
    "unlifted": lambda: {"stream": rotated(images(), 2), "seeds": 2, "lift": "never", "store": "streamed"},
    "short experiences": lambda: {"stream": split(toy_data(), 4), "batch_size": 2},
}


SOME = ["finetune", "er", "derpp", "agem", "lwf", "ewc", "icarl", "bic"]


def in_table(name: str, setting: str) -> bool:
    """Whether the long table has it: not what the suite runs anyway, and what records nothing only for some."""
    match setting:
        case "resident":
            return EVERY[name].fills_memory
        case "short experiences":
            return name in SOME
        case "batch statistics":
            return name != "latent_replay"  # which refuses them
    return True


@pytest.mark.long
@pytest.mark.parametrize(("name", "setting"), [(n, s) for s in LONG for n in EVERY if in_table(n, s)])
def test_every_setting_runs_as_on_the_cpu(name: str, setting: str) -> None:
    check(name, setting != "short experiences", **LONG[setting]())


@pytest.mark.long
@pytest.mark.parametrize("name", SOME)
def test_several_heads_run_as_on_the_cpu(name: str) -> None:
    check(name, stream=split(toy_data(), 2, scenario="task"))


# ---------------------------------------------------------------------- recording
def test_a_failed_recording_leaves_state_and_stream_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something waits for the device, so that the end of the recording raises as well; the warning has the reason."""

    record = launch.cuda_graph

    def waiting(body: Any, state: Any) -> Any:
        def waits() -> None:
            body()
            torch.equal(state[0], state[0])

        return record(waits, state)

    monkeypatch.setattr(launch, "cuda_graph", waiting)
    with pytest.warns(UserWarning, match=r"no CUDA graph can be recorded.*\(CUDA error: operation not permitted"):
        machine = compare(strategies.ER(Memory(20, 8)))
    assert [graph.failed for graph in machine.graphs] == [True]


def test_a_program_with_an_operation_of_ones_own_is_never_recorded() -> None:
    """No attempt, and no warning (they are errors here)."""
    machine = compare(EVERY["gem"])
    assert not machine.graphs
    assert in_steps(machine)


# ---------------------------------------------------------------------- that the rules find what breaks them
@dataclass(frozen=True)
class Faulty(Strategy):
    """Fine-tuning that breaks a rule of CUDA in each step."""

    fault: str = ""

    def loss(self, net: Any, state: Any, batch: Any, recalled: Any) -> Any:
        loss, kept = super().loss(net, state, batch, recalled)
        weight = batch.weight.detach()
        match self.fault:
            case "mixed devices":
                odd = weight * torch.ones(len(weight), dtype=weight.dtype)
            case "index of the host":
                odd = weight[torch.zeros(2, dtype=torch.long)]
            case "round trip":
                odd = weight.cpu().to(weight.device)
            case "number of the host":  # is copied into the launch
                odd = weight * torch.ones((), dtype=weight.dtype)
        return loss + 0 * odd.sum(), kept


@dataclass(frozen=True)
class Reading(Strategy):
    """Fine-tuning that reads a number in each step, as only a step that is not traced can."""

    liftable = traceable = False

    def loss(self, net: Any, state: Any, batch: Any, recalled: Any) -> Any:
        loss, kept = super().loss(net, state, batch, recalled)
        return loss * float(batch.weight.max()), kept


def test_operations_that_mix_devices_are_found() -> None:
    with pytest.raises(RuntimeError, match="on the same device"):
        compare(Faulty("mixed devices"))


@pytest.mark.parametrize("fault", ["index of the host", "round trip"])
def test_copies_between_host_and_device_within_a_step_are_found(fault: str) -> None:
    with pytest.warns(UserWarning, match="no CUDA graph can be recorded"):
        machine = compare(Faulty(fault))
    assert in_steps(machine)
    assert all(graph.failed for graph in machine.graphs)


def test_reading_a_number_within_a_step_is_found() -> None:
    assert any("reads a value" in why for why in in_steps(compare(Reading())))


def test_a_number_of_the_host_is_no_fault() -> None:
    machine = compare(Faulty("number of the host"))
    assert machine.graphs
    assert not in_steps(machine)


def test_a_graph_holds_no_values_of_the_recording_and_knows_addresses_only() -> None:
    with pretended() as machine:
        x, out = torch.ones(2, device=DEVICE), torch.zeros(2, device=DEVICE)
        graph: Any = torch.cuda.CUDAGraph()
        with recording(graph):
            between = x + 1
            out.copy_(between * 2)
        assert out.cpu().tolist() == [0, 0]
        assert between.cpu().isnan().all()
        x.fill_(4)
        graph.replay()
        assert out.cpu().tolist() == [10, 10]
        del x
        with pytest.raises(RuntimeError, match="has been freed"):
            graph.replay()
        assert machine.graphs == [graph]


def test_waiting_while_recording_is_refused() -> None:
    with pretended():
        x, graph = torch.ones(2, device=DEVICE), Graph()
        with pytest.raises(torch.AcceleratorError, match="previous error during capture") as caught, recording(graph):
            x.sum().item()
        assert "not permitted when stream is capturing" in str(caught.value.__context__)
        assert Graph.recording is None
        with pytest.raises(RuntimeError, match="recording failed"):
            graph.replay()
