"""Inspection of arbitrary networks: head, kinds of layers, and parameters before and after a layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from cl_lib.errors import InputError
from cl_lib.noise import SeededRandom
from cl_lib.types import Shape


class Structure(NamedTuple):
    """Result of `examine`: name of the head, if any, and whether samples of a batch influence each other."""

    head: str | None
    mixes: bool


_examined: WeakKeyDictionary[nn.Module, Structure] = WeakKeyDictionary()


def examine(modules: Sequence[nn.Module], x: Tensor) -> Any:
    """Run the first of several networks of the same structure on samples ``x``, and store its `Structure` for all.

    Returns
    -------
    object
        Output of the network in eval mode.

    Raises
    ------
    InputError
        If the network has a ``head`` that it does not call.
    """
    module = copy.deepcopy(modules[0])
    names = {layer: name for name, layer in module.named_modules()}
    calls: list[tuple[str, Any]] = []
    handles = [m.register_forward_hook(lambda m, _, out: calls.append((names[m], out))) for m in names]
    try:
        with torch.no_grad():
            output = module.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(getattr(module, "head", None), nn.Module):
        head: str | None = "head"
        if "head" not in [name for name, _ in calls]:
            raise InputError(f"model: {type(module).__name__} never calls its `head`; name the last layer `head`")
    else:
        last = [name for name, out in calls if _is_layer(module.get_submodule(name)) and _same(out, output)]
        head = last[-1] if last else None
    structure = Structure(head, any(map(_has_statistics, _training(module))) or _mixes(module, x))
    for examined in modules:
        _examined[examined] = structure
    return output


def _is_layer(module: nn.Module) -> bool:
    """Whether a module has parameters and no submodules, except parametrizations."""
    within = [name for name, _ in module.named_children() if name != "parametrizations"]
    return not within and next(module.parameters(), None) is not None


def _same(out: Any, output: Any) -> bool:
    """Whether a layer's output is the network's output, or the network's output is a view of it."""
    if not isinstance(out, Tensor) or not isinstance(output, Tensor):
        return False
    return out.numel() == output.numel() and out.data_ptr() == output.data_ptr()


def _mixes(module: nn.Module, x: Tensor) -> bool:
    """Whether, in training mode, the output for a sample depends on the other samples of its batch."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(4, *x.shape[1:], generator=generator).to(x.device, x.dtype)
    batch, other = draw(), draw()
    other[0] = batch[0]
    outputs: list[Tensor] = []
    set_training(module, True)
    try:
        for samples in (batch, other):
            with torch.no_grad(), SeededRandom(0):  # the same dropout masks both times
                outputs.append(copy.deepcopy(module)(samples)[0])
    except Exception:  # a module that does not accept four samples raises when it is trained
        return False
    return not torch.allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5, equal_nan=True)


def head_of(module: nn.Module) -> nn.Module | None:
    """The layer whose inputs are the features.

    This is the module's ``head`` or, without one, the last called layer with parameters whose output is the module's
    output, as determined by `examine`; None if there is no such layer. For a module that was not examined and has no
    ``head`` it is the last linear layer.
    """
    known = _examined.get(module)
    if known is not None:
        return None if known.head is None else module.get_submodule(known.head)
    head = getattr(module, "head", None)
    if isinstance(head, nn.Module):
        return head
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return linear[-1] if linear else None


def set_training(module: nn.Module, training: bool) -> None:
    """Set training or eval mode; a submodule whose parameters are all frozen stays in eval mode.

    Examples
    --------
    >>> net = nn.Sequential(nn.BatchNorm1d(3).requires_grad_(False), nn.Linear(3, 2))
    >>> set_training(net, True)
    >>> [layer.training for layer in net]
    [False, True]
    """
    module.train(training)
    if training:
        for part in {*module.modules()} - {*_training(module)}:
            part.training = False


def _training(module: nn.Module) -> list[nn.Module]:
    """The module and its submodules that are in training mode while it is trained."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return []
    return [module, *(inner for child in module.children() for inner in _training(child))]


def is_convolutional(module: nn.Module) -> bool:
    """Whether the network has convolutions (which become grouped convolutions in a vectorised step)."""
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether samples of a batch influence each other in training (BatchNorm), so that batches cannot be padded."""
    known = _examined.get(module)
    return known.mixes if known is not None else any(map(_has_statistics, _training(module)))


def _has_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.batchnorm._BatchNorm)


def entry(module: nn.Module, name: str, layer: nn.Module, shape: Shape) -> tuple[int, list[str]]:
    """Number of input features of a layer, and names of the trained parameters from this layer to the output.

    Parameters
    ----------
    module : nn.Module
    name : str
        Name of the layer, for messages.
    layer : nn.Module
        A submodule of ``module``.
    shape : tuple of int
        Shape of one sample.

    Raises
    ------
    InputError
        If the layer is not called exactly once, its inputs are not vectors, the network bypasses it, or no parameter
        after it is trained.

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
        raise InputError(f"{where}: is called {len(entered)} times per forward pass; must be called once for latents")
    if entered[0].ndim != 2:
        raise InputError(f"{where}: has inputs of shape {tuple(entered[0].shape[1:])}; must be vectors for latents")
    behind, before = _needed(out, trained), _needed(entered[0], trained)
    if not behind:
        raise InputError(f"{where}: no parameter after this layer is trained")
    if around := sorted(set(before) & set(behind)):
        raise InputError(f"{where}: the network bypasses this layer, through {', '.join(around)}")
    return entered[0].shape[1], behind


def _needed(value: Tensor, params: dict[str, nn.Parameter]) -> list[str]:
    """Names of the parameters that a value depends on."""
    if not value.requires_grad:
        return []
    grads = torch.autograd.grad(value.sum(), list(params.values()), retain_graph=True, allow_unused=True)
    return [name for name, grad in zip(params, grads, strict=True) if grad is not None]
