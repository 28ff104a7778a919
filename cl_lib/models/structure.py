"""What any network is made of: its head, kinds of layers, and what lies before and behind one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cl_lib.errors import InputError
from cl_lib.types import Shape


def head_of(module: nn.Module) -> nn.Module | None:
    """The module's ``head``, else its last linear layer."""
    head = getattr(module, "head", None)
    if isinstance(head, nn.Module):
        return head
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return linear[-1] if linear else None


def is_convolutional(module: nn.Module) -> bool:
    """Whether a lifted step would run grouped convolutions."""
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether samples of a batch influence each other in training (BatchNorm): such batches cannot be padded."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


def entry(module: nn.Module, name: str, layer: nn.Module, shape: Shape) -> tuple[int, list[str]]:
    """How many numbers enter a layer for a sample, and the names of the trained parameters behind it.

    Parameters
    ----------
    module : nn.Module
    name : str
        Of the layer, for messages.
    layer : nn.Module
        One of the module's.
    shape : tuple of int
        Of one input.

    Raises
    ------
    InputError
        Where the layer is not used exactly once or is given no vectors, where the network goes around it, or nothing
        behind it is trained.

    Examples
    --------
    >>> from cl_lib.models import MLP
    >>> net = MLP((6,), 4, hidden=(7, 5))
    >>> entry(net, "head", net.head, (6,))
    (5, ['head.weight', 'head.bias'])
    """
    where = f"strategy.layer={name!r}"
    entered: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        entered.append(args[0])
        return (args[0].detach(), *args[1:])

    trained = {k: p for k, p in module.named_parameters() if p.requires_grad}
    handle, training = layer.register_forward_pre_hook(hook), module.training
    try:
        with torch.enable_grad():
            out = module.eval()(next(module.parameters()).new_zeros(2, *shape))
    finally:
        handle.remove()
        module.train(training)
    if len(entered) != 1:
        raise InputError(f"{where}: is used {len(entered)} times in a pass; latents need a layer that is used once")
    if entered[0].ndim != 2:
        raise InputError(f"{where}: is given shape {tuple(entered[0].shape[1:])} for a sample; latents are vectors")
    behind, before = _needed(out, trained), _needed(entered[0], trained)
    if not behind:
        raise InputError(f"{where}: no parameter behind it is trained")
    if around := sorted(set(before) & set(behind)):
        raise InputError(f"{where}: the network also goes around it, by {', '.join(around)}")
    return entered[0].shape[1], behind


def _needed(value: Tensor, params: dict[str, nn.Parameter]) -> list[str]:
    """Names of the parameters that a value depends on."""
    if not value.requires_grad:
        return []
    grads = torch.autograd.grad(value.sum(), list(params.values()), retain_graph=True, allow_unused=True)
    return [name for name, grad in zip(params, grads, strict=True) if grad is not None]
