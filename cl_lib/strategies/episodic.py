"""What strategies share that answer with the help of what lies in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from cl_lib.memory.store import Contents
from cl_lib.strategies.strategy import Net
from cl_lib.types import State, Tensors

CHUNK = 500
FAR = -1e9
LEAST = 1e-6
"""Probability that a class has at least; a class without a vote would have none."""


def remembered(net: Net, state: State, memory: Contents | None) -> Tensors:
    """``features`` (M, F), ``logits`` (M, C), ``label`` and ``valid`` (M,) of all that lies in memory."""
    assert memory is not None
    parts = [memory.read(slice(i, i + CHUNK)) for i in range(0, memory.index.shape[0], CHUNK)]
    outs = [net(state.params, part.x, part.task, train=False) for part in parts]
    return {
        "features": torch.cat([out.features for out in outs]),
        "logits": torch.cat([out.raw for out in outs]),
        "label": torch.cat([part.y for part in parts]),
        "valid": torch.cat([part.weight for part in parts]),
    }


def votes(weight: Tensor, label: Tensor, classes: int) -> Tensor:
    """Log of the weights (N, k), which sum to 1, summed by class, for labels (N, k): ``(N, classes)``."""
    total = weight.new_zeros(weight.shape[0], classes).scatter_add(1, label, weight)
    return torch.log((1 - classes * LEAST) * total + LEAST)
