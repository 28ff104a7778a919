"""A lowered program does what the traced one did, to the last bit, with fewer operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from running import final
from torch.fx.experimental.proxy_tensor import make_fx

from cl_lib import SGD, Memory, strategies
from cl_lib.checks import toy_data
from cl_lib.datasets import from_arrays
from cl_lib.engine import trace
from cl_lib.engine.lower import FUNCTIONS, METHODS, lower
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.models import MLP, ConvNet
from cl_lib.streams import split

SMALL = Memory(20, 8)
STRATEGIES = {
    "er": strategies.ER(SMALL),
    "er_sum": strategies.ER(SMALL, combine="sum"),
    "derpp": strategies.DERpp(SMALL),
    "agem": strategies.AGEM(Memory(20, 8, "ring")),
    "ewc": strategies.EWC(samples=30, mode="online"),
    "lwf": strategies.LwF(),
    "icarl": strategies.ICaRL(Memory(20, 8, "strategy")),
    "slda": strategies.SLDA(),
}


def operations(graph: Any) -> list[str]:
    return [node.name for node in graph.graph.nodes if node.op.startswith("call")]


def trained(strategy: Any, model: Any, lift: Any, data: Any = None) -> list[torch.Tensor]:
    options: dict[str, Any] = {"model": model, "batch_size": 7, "optim": SGD(0.05, momentum=0.5, clip_norm=1.0)}
    stream = split(toy_data() if data is None else data, 2)
    return final(Session(Job(stream, strategy, seeds=2, lift=lift, eval_every=2, **options)))


@pytest.mark.parametrize("lift", ["never", "auto"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_lowered_run_is_the_traced_one_bit_for_bit(name: str, lift: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MLP.factory(hidden=(12,))
    lowered = trained(STRATEGIES[name], model, lift)
    monkeypatch.setattr(trace, "lower", lambda graph, fixed: graph)
    traced = trained(STRATEGIES[name], model, lift)
    assert all(torch.equal(a, b) for a, b in zip(lowered, traced, strict=True))


def test_convolutions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randint(0, 255, (60, 1, 8, 8), dtype=torch.uint8), torch.arange(60) % 4
    data, model = from_arrays((x, y), 0.3), ConvNet.factory(channels=(4,), hidden=8)
    lowered = trained(strategies.ER(SMALL), model, "never", data)
    monkeypatch.setattr(trace, "lower", lambda graph, fixed: graph)
    traced = trained(strategies.ER(SMALL), model, "never", data)
    assert all(torch.equal(a, b) for a, b in zip(lowered, traced, strict=True))


CASES = {
    "transposes of transposes": (lambda x: x.mT.mT * 2, 1),
    "transposes of other axes stay": (lambda x: x.transpose(0, 1).transpose(1, 2) * 2, 3),
    "cut and joined again": (lambda x: torch.cat([x[:1], x[1:3], x[3:]]) * 2, 1),
    "joined in another order": (lambda x: torch.cat([x[2:], x[:2]]) * 2, 4),
    "joined in part": (lambda x: torch.cat([x[:1], x[1:3]]) * 2, 4),
    "joined along another axis": (lambda x: torch.cat([x[:2], x[2:]], 1) * 2, 4),
    "times one": (lambda x: torch.ops.aten.mul.Scalar(x, 1) * 2, 1),
    "times two": (lambda x: torch.ops.aten.mul.Scalar(x, 2) * 2, 2),
    "a view of a view": (lambda x: x.view(8, 3).view(2, 12) * 2, 2),
    "a view with the shape it had": (lambda x: x.view(4, 2, 3) * 2, 1),
    "the same view twice": (lambda x: x.view(24) + x.view(24), 2),
    "a result nobody reads": (lambda x: (x.exp(), x * 2)[1], 1),
    "indexing": (lambda x: x[:, torch.arange(2)] * 2, None),
    "another type": (lambda x: x.double() * 2, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_taken_out(name: str) -> None:
    body, left = CASES[name]
    x = torch.randn(4, 2, 3)
    graph = make_fx(lambda x: [body(x)])(x)
    (result,) = lower(graph, 0)(x)
    assert torch.equal(result, body(x))
    assert left is None or len(operations(graph)) == left, operations(graph)


def test_a_joined_copy_stays_where_its_source_is_written_later() -> None:
    def step(x: torch.Tensor) -> list[torch.Tensor]:
        copy = torch.cat([x[:2], x[2:]])
        x.add_(1)
        return [copy]

    for fixed in (0, 1):
        x = torch.zeros(4)
        (copy,) = lower(make_fx(step)(x.clone()), fixed)(x)
        assert copy.tolist() == [0.0] * 4
        assert x.tolist() == [1.0] * 4


def test_every_name_is_one_of_torchs_own() -> None:
    assert all(hasattr(torch._C.TensorBase, name) for name in METHODS)
    assert all(hasattr(torch, name) for name in FUNCTIONS)


@pytest.mark.parametrize(("start", "end"), [(0, -1), (-3, None), (-4, -2), (2, 100), (5, 2), (-100, 3)])
def test_slices_that_count_from_the_end_are_lowered(start: int, end: int | None) -> None:
    x = torch.arange(8.0)
    graph = make_fx(lambda x: [x[start:end] + 1])(x)
    assert torch.equal(lower(graph, 0)(x)[0], x[start:end] + 1)
