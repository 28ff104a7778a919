"""Avalanche on the same stream: ``Naive`` with ``ReplayPlugin``, data in memory, no workers, no loggers."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from laps import Lap, now
from torch import nn
from works import LR, Work

from cl_lib import InputError
from cl_lib.engine.weights import build
from cl_lib.interop.avalanche import benchmark
from cl_lib.strategies import ER
from cl_lib.streams.stream import Stream

INSTALL = "pip install cl-lib[avalanche]"


def version() -> str | None:
    """Avalanche's, or None where it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import avalanche
    except ImportError:
        return None
    return str(avalanche.__version__)


def can(work: Work) -> bool:
    """Whether Avalanche does the same work: its other strategies here do another sum."""
    return isinstance(work.strategy, ER)


class Avalanche:
    """One run; like cl_lib's, but its reservoir is filled when an experience ends."""

    def __init__(self, work: Work, stream: Stream, seed: int, device: torch.device) -> None:
        if version() is None:
            raise InputError(f"Avalanche is not installed: {INSTALL}")
        self.device, (module,) = device, build(work.model, stream.data.shape, len(stream.classes), [seed])
        scenario = benchmark(stream, seed)
        self.experiences, self.tests = iter(scenario.train_stream), scenario.test_stream
        self.module = nn.Sequential(*module.body, module.head).to(device)
        torch.manual_seed(seed)  # Avalanche draws from the global generator
        self.strategy = _replay(work, self.module, device)
        self.steps = 0

    def train(self) -> Lap:
        """Train on the next experience: ``strategy.train`` and nothing else is timed."""
        experience = next(self.experiences)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own plugins call what it deprecates
            began = now(self.device)
            self.strategy.train(experience)
            seconds = now(self.device) - began
        before, self.steps = self.steps, self.strategy.clock.train_iterations
        return Lap(self.steps - before, seconds)

    def accuracy(self) -> list[float]:
        """Over all test samples and classes."""
        hits = asked = 0
        self.module.eval()
        with torch.no_grad():
            for experience in self.tests:
                data = experience.dataset
                x = torch.stack([data[i][0] for i in range(len(data))]).to(self.device)
                answers = self.module(x).argmax(1).cpu()
                hits += int((answers == torch.tensor(list(data.targets))).sum())
                asked += len(data)
        return [hits / asked]


def _replay(work: Work, module: nn.Module, device: torch.device) -> Any:
    from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
    from avalanche.training.storage_policy import ReservoirSamplingBuffer
    from avalanche.training.supervised import Naive

    memory = work.strategy.memory
    assert memory is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing will be logged
        evaluator = EvaluationPlugin(loggers=[])
    replay = ReplayPlugin(
        memory.capacity, batch_size_mem=memory.batch, storage_policy=ReservoirSamplingBuffer(memory.capacity)
    )
    return Naive(
        model=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=LR),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=work.batch,
        train_epochs=1,
        eval_mb_size=250,
        device=device,
        plugins=[replay],
        evaluator=evaluator,
    )
