"""Gradients through a functional network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cl_lib.types import Gradient, Net, Tensors


def gradient_of(net: Net, params: Tensors, objective: Callable[[Tensors], tuple[Tensor, Tensors]]) -> Gradient:
    """Gradient of ``objective(params) -> (loss, kept)``; ``net.buffers`` are those after the forward pass."""

    def run(params: Tensors) -> tuple[Tensor, tuple[Tensor, Tensors, Tensors]]:
        loss, kept = objective(params)
        return loss, (loss, {k: v.detach() for k, v in kept.items()}, net.buffers)

    grads, (loss, kept, net.buffers) = torch.func.grad(run, has_aux=True)(params)
    return Gradient(grads, loss, kept)
