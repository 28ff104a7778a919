"""Kept weights with a new head for each seed."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn

import cl_lib
from cl_lib import streams
from cl_lib.datasets import digits
from cl_lib.engine.weights import build
from cl_lib.models import MLP, with_head
from cl_lib.strategies import Finetune

SHAPE = (1, 8, 8)


class LastIsNotHead(nn.Module):
    """A network whose classifier is defined first and called last."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(16, 5)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.unused = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.body(x))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("module", "head"), [(MLP(SHAPE, 3, hidden=(12,)), "head"), (LastIsNotHead(), "classify")])
def test_weights_are_kept_and_heads_differ_by_seed(module: nn.Module, head: str, frozen: bool) -> None:
    before = copy.deepcopy(module.state_dict())
    modules = build(with_head(module, frozen=frozen), SHAPE, 10, [0, 1, 0])
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
        if not name.startswith(head):
            assert all(torch.equal(made.state_dict()[name], tensor) for made in modules), name
    first, second, again = (made.get_submodule(head).weight for made in modules)
    assert first.shape[0] == 10
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    trained = {name for name, p in modules[0].named_parameters() if p.requires_grad}
    assert trained == ({f"{head}.weight", f"{head}.bias"} if frozen else {n for n, _ in modules[0].named_parameters()})


def test_a_run_trains_the_head_of_a_frozen_network_only() -> None:
    module = LastIsNotHead()
    stream = streams.split(digits(), experiences=2)
    session = cl_lib.Session(cl_lib.Job(stream, Finetune(), model=with_head(module, frozen=True), seeds=2))
    for _ in session:
        pass
    assert session.learner is not None
    state = session.learner.tree["state"]
    assert set(state["params"]) == {"classify.weight", "classify.bias"}
    for name, tensor in module.state_dict().items():
        if not name.startswith("classify"):
            assert all(torch.equal(kept, tensor) for kept in state["buffers"][name]), name


def test_another_checkpoint_does_not_resume(tmp_path: Any) -> None:
    stream = streams.split(digits(), experiences=2)
    torch.manual_seed(0)
    first, second = MLP(SHAPE, 3, hidden=(12,)), MLP(SHAPE, 3, hidden=(12,))
    cl_lib.run(stream, Finetune(), model=with_head(first), out=tmp_path / "run")
    with pytest.raises(cl_lib.InputError, match=r"other options \(network\.answer, network\.weights\)"):
        cl_lib.run(stream, Finetune(), model=with_head(second), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (3, {}, "model: with_head takes an nn.Module, not a int"),
        (LastIsNotHead(), {"head": 1}, "head=1: must be the name of a layer"),
        (LastIsNotHead(), {"head": "classifier"}, "head='classifier': the model has no such layer"),
        (LastIsNotHead(), {"head": "unused"}, "head='unused': the model never calls this layer"),
        (LastIsNotHead(), {"head": "body.0"}, "head='body.0': has inputs of shape (1, 8, 8); must be vectors"),
        (LastIsNotHead(), {"frozen": "yes"}, "frozen='yes'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU()), {}, "model: Sequential has no identifiable head"),
    ],
)
def test_bad_input(module: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(cl_lib.InputError, match=re.escape(message)):
        build(with_head(module, **options), SHAPE, 10, [0])
