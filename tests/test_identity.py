"""A run's description holds what decides its result: another run is neither resumed nor shown in its place."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cl_lib
from cl_lib import InputError, strategies
from cl_lib.checks import toy_data
from cl_lib.models import MLP
from cl_lib.report.table import notes
from cl_lib.streams import split
from cl_lib.types import Batch

STREAM = split(toy_data(), 2)


class Times(nn.Module):
    """A number that only forward knows."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 4)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.factor * self.body(x).relu())


class Learner:
    """A linear softmax model with an ordinary optimiser."""

    def __init__(self, seed: int, lr: float = 0.1, momentum: float = 0.0, width: int = 4) -> None:
        self.net = nn.Linear(6, width)
        with torch.no_grad():
            self.net.weight.fill_(0.1), self.net.bias.zero_()
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr, momentum)

    def observe(self, batch: Batch) -> None:
        self.optimiser.zero_grad()
        nn.functional.cross_entropy(self.net(batch.x), batch.y).backward()
        self.optimiser.step()

    def end_experience(self, data: Any) -> None:
        pass

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        return self.net(x).log_softmax(-1)


WEIGHTS = MLP((6,), 4, hidden=(8,))
OTHER = copy.deepcopy(WEIGHTS)
with torch.no_grad():
    OTHER.head.bias[2] += 1e-3


def other(name: str) -> Any:
    """A class of the same name with another loss."""

    @dataclass(frozen=True)
    class Own(strategies.Finetune):
        pass

    Own.__qualname__ = name
    return Own()


def swapped() -> Any:
    """The stream with its experiences in another order, as somebody's own `Stream` might be."""

    def make(seed: int) -> Any:
        real = STREAM.make(seed)
        return real._replace(experiences=real.experiences[::-1])

    return replace(STREAM, make=make)


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "initialisation": ({"model": MLP.factory(hidden=(8,))}, {"model": MLP.factory(hidden=(8,), init="torch")}),
    "weights": ({"model": WEIGHTS}, {"model": OTHER}),
    "a constant in forward": ({"model": lambda s, c: Times(1.0)}, {"model": lambda s, c: Times(1.5)}),
    "the class": ({"strategy": other("Own")}, {"strategy": other("Other.Own")}),
    "a stream of one's own": ({}, {"stream": swapped()}),
    "a learner's option": ({"strategy": lambda s: Learner(s)}, {"strategy": lambda s: Learner(s, lr=0.2)}),
    "a learner's momentum": ({"strategy": lambda s: Learner(s)}, {"strategy": lambda s: Learner(s, momentum=0.9)}),
}


def run(out: Path | None = None, resume: bool = False, **options: Any) -> cl_lib.Record:
    options = {"strategy": strategies.ER(), "epochs": 1, "device": "cpu"} | options
    return cl_lib.run(options.pop("stream", STREAM), options.pop("strategy"), out=out, resume=resume, **options)


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_that_differs_is_not_resumed(change: str, tmp_path: Path) -> None:
    first, second = CHANGES[change]
    record = run(tmp_path / "a", **first)
    again = run(tmp_path / "a", resume=True, **first)
    assert again.metrics["accuracy"].per_seed == record.metrics["accuracy"].per_seed
    with pytest.raises(InputError, match=r"holds a finished run with other options \((network|strategy|stream)"):
        run(tmp_path / "a", resume=True, **second)


@pytest.mark.parametrize("change", ["initialisation", "weights", "a constant in forward"])
def test_a_comparison_notes_it(change: str) -> None:
    first, second = CHANGES[change]
    (note,) = [line for line in notes([run(**first), run(**second)]) if "weights" in line]
    assert "initial weights or forward" in note


def test_the_description_is_the_same_for_every_seed_list() -> None:
    """Records of other seeds, but the same first one, have the same weights."""
    assert run(seeds=[0]).job["network"] == run(seeds=[0, 1]).job["network"]


def test_what_a_learner_answers_must_be_log_probabilities() -> None:
    class Logits(Learner):
        def predict(self, x: Tensor, task: Tensor) -> Tensor:
            return self.net(x) + 3.0

    with pytest.raises(InputError, match=r"learner: predict must return log-probabilities.*not to \d+.*log_softmax"):
        run(strategy=Logits)

    class Probabilities(Learner):
        def predict(self, x: Tensor, task: Tensor) -> Tensor:
            return self.net(x).softmax(-1)

    with pytest.raises(InputError, match=r"learner: predict must return log-probabilities"):
        run(strategy=Probabilities)

    class Certain(Learner):
        def predict(self, x: Tensor, task: Tensor) -> Tensor:  # -inf is the logarithm of no probability
            out = torch.full((len(x), 4), -torch.inf)
            out[:, 1] = 0
            return out

    assert run(strategy=Certain).metrics["accuracy"].mean is not None
