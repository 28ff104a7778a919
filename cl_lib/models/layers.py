"""Linear and convolutional layers of a network, and access to their inputs and outputs by forward hooks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from cl_lib.types import Batch, NetOutput, Tensors

Layers = list[tuple[str, nn.Module]]


def layers_of(module: nn.Module) -> Layers:
    """Linear layers and convolutional layers with one group and zero padding, by name."""
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        or (
            isinstance(layer, nn.Conv2d)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        )
    ]


def listen(
    layers: Layers,
    net: Any,
    params: Tensors,
    batch: Batch,
    added: Tensors,
    entered: dict[str, list[Tensor]],
    answer: Callable[[NetOutput], Tensor],
) -> tuple[Tensor, Tensors]:
    """Run the network with ``added[name]`` added to each layer's output, and append the layers' inputs to ``entered``.

    Returns the result of ``answer``, called with the network's output, and the layers' outputs.
    """
    outputs: Tensors = {}

    def hook(name: str, layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        entered.setdefault(name, []).append(args[0])
        outputs[name] = out
        return out + added[name] if name in added else out

    handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in layers]
    try:
        return answer(net(params, batch.x, batch.task, train=False)), outputs
    finally:
        for handle in handles:
            handle.remove()


def patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Input patches that a convolution's weights are multiplied with at each of L positions, ``(n, in * k * k, L)``."""
    assert not isinstance(layer.padding, str)
    return nn.functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def rows(layer: nn.Module, x: Tensor) -> Tensor:
    """Inputs that a layer's weights are multiplied with, a row for each sample and position, ``(n * L, inputs)``."""
    if isinstance(layer, nn.Conv2d):
        return patches(layer, x).transpose(1, 2).flatten(0, 1)
    return x.flatten(0, -2)
