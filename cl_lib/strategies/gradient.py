"""The network as a function, and gradients through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cl_lib.types import Out, Tensors


class Net(Protocol):
    """The network as a function. ``buffers`` (BatchNorm's statistics) are carried along by the engine.

    With ``start=(layer, latent)`` it begins at the layer of that name, which ``latent`` enters.
    """

    module: nn.Module
    buffers: Tensors
    mask: Tensor | None

    def __call__(
        self,
        params: Tensors,
        x: Tensor,
        task: Tensor,
        *,
        train: bool | None = None,
        buffers: Tensors | None = None,
        start: tuple[str, Tensor] | None = None,
    ) -> Out: ...


class Gradient(NamedTuple):
    """What a step descends along, the loss it belongs to, what to keep beside the samples in memory, and what else was
    found that `Strategy.after_step` is to know."""

    grads: Tensors
    loss: Tensor
    kept: Tensors
    found: Tensors = {}  # noqa: RUF012


def gradient_of(net: Net, params: Tensors, objective: Callable[[Tensors], tuple[Tensor, Tensors]]) -> Gradient:
    """Gradient of ``objective(params) -> (loss, kept)``; the network's buffers are carried over."""

    def run(params: Tensors) -> tuple[Tensor, tuple[Tensor, Tensors, Tensors]]:
        loss, kept = objective(params)
        return loss, (loss, {k: v.detach() for k, v in kept.items()}, net.buffers)

    grads, (loss, kept, net.buffers) = torch.func.grad(run, has_aux=True)(params)
    return Gradient(grads, loss, kept)
