"""Any ``nn.Module`` as a function of its parameters, answering with logits and features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cl_lib.errors import InputError
from cl_lib.models.structure import head_of
from cl_lib.types import OWN, Out, Shape, Tensors

MASKED = -1e9
"""Logit of a class that may not be answered; finite, since -inf times a weight of 0 would be NaN."""

ModelFactory = Callable[[Shape, int], nn.Module]


class FunctionalNet:
    """``net(params, x, task) -> Out``; holds no parameters, only the module's structure.

    With ``start=(layer, latent)`` the network begins at the layer of that name: ``latent`` enters it in place of what
    would have come from ``x``, which then only says how many samples there are.

    Parameters
    ----------
    module : nn.Module
        Its ``head`` attribute, or else its last linear layer, is the head; what enters it are the features.
    buffers : dict
        The current replica's buffers; the engine puts them here and reads them back after a step.
    mask : Tensor, optional
        ``(T, C)`` bool, answerable classes by task.
    training : bool
        Default of ``train``.
    half : bool
        Whether matrix products are computed in bfloat16; what is answered has the dtype of ``x`` all the same.
    """

    def __init__(
        self,
        module: nn.Module,
        buffers: Tensors,
        mask: Tensor | None = None,
        training: bool = False,
        half: bool = False,
    ) -> None:
        self.module, self.buffers, self.mask = module, buffers, mask
        self.training, self.half = training, half

    def __call__(
        self,
        params: Tensors,
        x: Tensor,
        task: Tensor,
        *,
        train: bool | None = None,
        buffers: Tensors | None = None,
        start: tuple[str, Tensor] | None = None,
    ) -> Out:
        train = self.training if train is None else train
        entered: list[Tensor] = []
        handles = []
        if start is not None:  # what is computed before that layer is not used: a trace leaves it out
            layer, latent = start
            handles.append(self.module.get_submodule(layer).register_forward_pre_hook(lambda *_: (latent,)))
        if (head := head_of(self.module)) is not None:
            handles.append(head.register_forward_pre_hook(lambda _, args: entered.append(args[0])))
        # BatchNorm updates in place: give it copies, the maths stays pure
        own = {k: v.clone() if train else v for k, v in (self.buffers if buffers is None else buffers).items()}
        if train or self.module.training:  # it looks at every layer
            self.module.train(train)
        try:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
                theirs = {k: p for k, p in params.items() if not k.startswith(OWN)}
                raw = functional_call(self.module, {**theirs, **own}, (x,)).to(x.dtype)
        finally:
            for handle in handles:
                handle.remove()
        if train and buffers is None:
            self.buffers = own
        features = entered[-1].flatten(1).to(x.dtype) if entered else raw
        logits = raw if self.mask is None else torch.where(self.mask[task], raw, MASKED)
        return Out(logits, raw, features, own)


def build(model: nn.Module | ModelFactory, shape: Shape, classes: int, seeds: Sequence[int]) -> list[nn.Module]:
    """One freshly initialised module for each seed.

    A factory is called as ``model(shape, classes)`` under the seed; an ``nn.Module`` is copied and every layer that
    knows ``reset_parameters`` is initialised anew.

    Raises
    ------
    InputError
        When the factory fails, or the model does not answer ``(N, classes)`` for inputs ``(N, *shape)``.
    """
    if isinstance(model, nn.Module) and len(seeds) > 1:
        bare = [
            name or type(layer).__name__
            for name, layer in model.named_modules()
            if not hasattr(layer, "reset_parameters") and next(layer.parameters(recurse=False), None) is not None
        ]
        if bare:
            raise InputError(
                f"model: {bare[0]} has parameters but no reset_parameters, so all seeds would start alike; give it one,"
                " or pass a function (shape, classes) -> nn.Module"
            )
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if isinstance(model, nn.Module):
                module = copy.deepcopy(model)
                for layer in module.modules():
                    reset: Any = getattr(layer, "reset_parameters", None)
                    if callable(reset):
                        reset()
            else:
                try:
                    module = model(shape, classes)
                except (RuntimeError, MemoryError, TypeError) as error:
                    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                    raise InputError(
                        f"model: cannot be built for shape {shape} and {classes} classes: {reason}"
                    ) from error
        modules.append(module)
    _check(modules[0], shape, classes)
    return modules


def _check(module: nn.Module, shape: Shape, classes: int) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(f"model: the factory made a {type(module).__name__}, not an nn.Module")
    if not any(p.requires_grad for p in module.parameters()):
        raise InputError(f"model: {type(module).__name__} has no trainable parameters")
    first = next(module.parameters())
    with torch.no_grad():
        try:
            x = torch.full((2, *shape), 0.5, dtype=first.dtype, device=first.device)
            answer = copy.deepcopy(module).eval()(x)
        except Exception as error:  # whatever a user's module raises
            raise InputError(
                f"model: {type(module).__name__} does not take inputs of shape (N, {', '.join(map(str, shape))}): "
                f"{(str(error).splitlines() or [type(error).__name__])[0]}"
            ) from error
    if not bool((x == 0.5).all()):
        raise InputError(f"model: {type(module).__name__} changes its input in place; let it work on a copy")
    if not isinstance(answer, Tensor) or tuple(answer.shape) != (2, classes):
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise InputError(
            f"model: {type(module).__name__} answers with shape {got} for 2 samples; this stream has {classes} classes,"
            f" so (2, {classes}) is needed: make its last layer {classes} wide"
        )
