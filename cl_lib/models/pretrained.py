"""Networks with kept weights and a new head for each seed."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cl_lib.errors import InputError
from cl_lib.models.structure import examine, head_of
from cl_lib.types import Shape
from cl_lib.validation import check_flag


@dataclass(frozen=True, eq=False)
class _WithHead:
    """The factory that `with_head` returns."""

    module: nn.Module
    head: str | None
    frozen: bool

    def __call__(self, shape: Shape, classes: int) -> nn.Module:
        module = copy.deepcopy(self.module)
        name = self.head if self.head is not None else _head_name(module, shape)
        if not name:
            raise InputError(f"model: {type(module).__name__} is one layer, which leaves no weights to keep")
        layer = _layer(module, name)
        kind = next(self.module.parameters())
        new = nn.Linear(_inputs(module, name, layer, shape), classes, device=kind.device, dtype=kind.dtype)
        if self.frozen:
            module.requires_grad_(False)
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, new)
        return module

    def __repr__(self) -> str:
        return f"with_head({type(self.module).__name__}{', frozen=True' if self.frozen else ''})"


def with_head(module: nn.Module, head: str | None = None, frozen: bool = False) -> _WithHead:
    """Factory of networks that keep a module's weights and get a new linear head, drawn from each seed.

    A module passed as ``model=`` is taken as it is: all seeds start from all its weights, head included. With a factory
    the head has as many outputs as the stream has classes, and seeds differ in it.

    Parameters
    ----------
    module : nn.Module
        With pretrained weights; it is copied for each seed and not changed.
    head : str, optional
        Name of the layer to be replaced. Default: the module's ``head``, or else the last called layer with parameters
        whose output is the module's output.
    frozen : bool, default False
        Whether all weights but those of the new head are frozen.

    Returns
    -------
    callable
        ``(shape, classes) -> nn.Module``, for ``cl_lib.run(model=...)``.

    Raises
    ------
    InputError
        Where it is called: if no layer is the head or the named one does not exist, is never called, or has inputs that
        are not vectors.

    Examples
    --------
    >>> import cl_lib
    >>> from cl_lib.models import MLP
    >>> pretrained = MLP((1, 8, 8), 3, hidden=(32,))  # three classes
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, cl_lib.strategies.ER(), model=with_head(pretrained, frozen=True), seeds=2)
    >>> record.cost["parameters"]  # 32 features and a bias for each of 10 classes
    330
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"model: with_head takes an nn.Module, not a {type(module).__name__}")
    if head is not None and not isinstance(head, str):
        raise InputError(f"head={head!r}: must be the name of a layer")
    check_flag("frozen", frozen)
    return _WithHead(module, head, frozen)


def _head_name(module: nn.Module, shape: Shape) -> str:
    kind = next(module.parameters())
    examine([module], torch.zeros(2, *shape, dtype=kind.dtype, device=kind.device))
    layer = head_of(module)
    if layer is None:
        raise InputError(
            f"model: {type(module).__name__} has no identifiable head: no layer with parameters returns its output; "
            "name the layer to be replaced, with_head(module, head=...)"
        )
    return next(name for name, known in module.named_modules() if known is layer)


def _layer(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        names = [known for known, _ in module.named_modules() if known]
        raise InputError(f"head={name!r}: the model has no such layer; there are {', '.join(names[-8:])}") from None


def _inputs(module: nn.Module, name: str, layer: nn.Module, shape: Shape) -> int:
    """Number of input features of a layer."""
    entered: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    kind, training = next(module.parameters()), module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(2, *shape, dtype=kind.dtype, device=kind.device))
    finally:
        handle.remove()
        module.train(training)
    if not entered:
        raise InputError(f"head={name!r}: the model never calls this layer")
    if entered[0].ndim != 2:
        raise InputError(
            f"head={name!r}: has inputs of shape {tuple(entered[0].shape[1:])}; must be vectors for a linear head"
        )
    return entered[0].shape[1]
