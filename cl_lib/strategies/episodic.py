"""Base class and helpers of strategies that predict from the samples in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.memory.store import Memory
from cl_lib.strategies.losses import replayed
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Contents, Net, NetOutput, Recalled, Spec, State, Tensors

FAR = -1e9
LEAST = 1e-6
"""Minimum probability of a class, so that a class without votes has a finite log-probability."""


@dataclass(frozen=True)
class AnswersFromMemory(Strategy, ABC):
    """Abstract base of strategies that are trained as experience replay and override `answer`.

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500, 10 recalled per step.
    """

    memory: Memory = field(default_factory=lambda: Memory(admission="class_balanced"))

    @abstractmethod
    def answer(self, out: NetOutput, readout: Tensors) -> Tensor:
        """Logits ``(N, C)`` from the network's output for N samples and the output of `remembered`."""

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        return replayed(net, state.params, batch, recalled[0]), {}

    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        return remembered(net, state, memory)

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        out = net(state.params, x, task, train=False)
        return torch.where(readout["valid"].any(), self.answer(out, readout), out.raw)


def remembered(net: Net, state: State, memory: Contents | None) -> Tensors:
    """Network outputs for all slots of the memory.

    ``features`` (M, F), the same normalised as ``keys``, ``logits`` (M, C), ``label`` (M,) and ``valid`` (M,).
    """
    assert memory is not None
    parts = list(memory.batches())
    outs = [net(state.params, part.x, part.task, train=False) for part in parts]
    features = torch.cat([out.features for out in outs])
    return {
        "features": features,
        "keys": normalize(features, dim=-1),
        "logits": torch.cat([out.raw for out in outs]),
        "label": torch.cat([part.y for part in parts]),
        "valid": torch.cat([part.weight for part in parts]),
    }


def votes(weight: Tensor, label: Tensor, classes: int) -> Tensor:
    """Log-probabilities ``(N, classes)``: weights (N, k), which sum to 1, summed by the class of labels (N, k)."""
    total = weight.new_zeros(weight.shape[0], classes).scatter_add(1, label, weight)
    return torch.log((1 - classes * LEAST) * total + LEAST)
