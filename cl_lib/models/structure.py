"""What any network is made of: its head, kinds of layers, and what lies before and behind one of them."""

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
    """What a run of a network has shown: its head's name, None where it cannot be told, and whether samples mix."""

    head: str | None
    mixes: bool


_examined: WeakKeyDictionary[nn.Module, Structure] = WeakKeyDictionary()


def examine(modules: Sequence[nn.Module], x: Tensor) -> Any:
    """Run the first of some networks of one structure on samples ``x``, and keep for all of them what that shows.

    Returns
    -------
    object
        What the network answers in eval mode.

    Raises
    ------
    InputError
        Where its ``head`` is not used.
    """
    module = copy.deepcopy(modules[0])
    names = {layer: name for name, layer in module.named_modules()}
    calls: list[tuple[str, Any]] = []
    handles = [m.register_forward_hook(lambda m, _, out: calls.append((names[m], out))) for m in names]
    try:
        with torch.no_grad():
            answer = module.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(getattr(module, "head", None), nn.Module):
        head: str | None = "head"
        if "head" not in [name for name, _ in calls]:
            raise InputError(f"model: {type(module).__name__} never calls its `head`; give the last layer that name")
    else:
        last = [name for name, out in calls if _is_layer(module.get_submodule(name)) and _same(out, answer)]
        head = last[-1] if last else None
    structure = Structure(head, any(map(_has_statistics, _training(module))) or _mixes(module, x))
    for examined in modules:
        _examined[examined] = structure
    return answer


def _is_layer(module: nn.Module) -> bool:
    """Whether it has parameters and no layers within (but for those that compute a parameter)."""
    within = [name for name, _ in module.named_children() if name != "parametrizations"]
    return not within and next(module.parameters(), None) is not None


def _same(out: Any, answer: Any) -> bool:
    """Whether a layer gave the answer, or what the answer is another view of."""
    if not isinstance(out, Tensor) or not isinstance(answer, Tensor):
        return False
    return out.numel() == answer.numel() and out.data_ptr() == answer.data_ptr()


def _mixes(module: nn.Module, x: Tensor) -> bool:
    """Whether, in training, what is answered for a sample depends on the others of its batch."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(4, *x.shape[1:], generator=generator).to(x.device, x.dtype)
    batch, other = draw(), draw()
    other[0] = batch[0]
    answers: list[Tensor] = []
    set_training(module, True)
    try:
        for samples in (batch, other):
            with torch.no_grad(), SeededRandom(0):  # dropout then drops the same
                answers.append(copy.deepcopy(module)(samples)[0])
    except Exception:  # a module that takes no four samples says so when it is trained
        return False
    return not torch.allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5, equal_nan=True)


def head_of(module: nn.Module) -> nn.Module | None:
    """The layer whose inputs are the features.

    The module's ``head``; else the layer with parameters that was called last and whose output is the module's answer,
    as its examination showed; None where there is none. Of a module that was not examined, its last linear layer.
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
    """Training or eval mode; a submodule all of whose parameters are frozen stays in eval mode.

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
    """The module and those within that are in training mode while it is trained."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return []
    return [module, *(inner for child in module.children() for inner in _training(child))]


def is_convolutional(module: nn.Module) -> bool:
    """Whether a lifted step would run grouped convolutions."""
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether samples of a batch influence each other in training (BatchNorm): such batches cannot be padded."""
    known = _examined.get(module)
    return known.mixes if known is not None else any(map(_has_statistics, _training(module)))


def _has_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.batchnorm._BatchNorm)


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
