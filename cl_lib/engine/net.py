"""Any ``nn.Module`` as a function of its parameters, returning logits and features."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cl_lib.errors import InputError
from cl_lib.models.structure import head_of, set_training
from cl_lib.types import MASKED, OWN, NetOutput, Tensors


class FunctionalNet:
    """``net(params, x, task) -> NetOutput``; contains the module's structure, but no parameters.

    With ``start=(layer, latent)`` the forward pass starts at the layer of that name: ``latent`` replaces the input that
    the layer would have received from ``x``, and ``x`` only determines the number of samples.

    Parameters
    ----------
    module : nn.Module
        The network; its features are the input of its head (`cl_lib.models.structure.head_of`).
    buffers : dict
        The current replica's buffers; the engine sets them and reads them back after a step.
    mask : Tensor, optional
        ``(T, C)`` bool, the classes that may be predicted for each task.
    training : bool
        Default of the argument ``train``.
    bfloat16 : bool
        Whether matrix products are computed in bfloat16; outputs have the dtype of ``x``.
    """

    def __init__(
        self,
        module: nn.Module,
        buffers: Tensors,
        mask: Tensor | None = None,
        training: bool = False,
        bfloat16: bool = False,
    ) -> None:
        self.module, self.buffers, self.mask = module, buffers, mask
        self.training, self.bfloat16 = training, bfloat16

    def __call__(
        self,
        params: Tensors,
        x: Tensor,
        task: Tensor,
        *,
        train: bool | None = None,
        buffers: Tensors | None = None,
        start: tuple[str, Tensor] | None = None,
    ) -> NetOutput:
        train = self.training if train is None else train
        entered: list[Tensor] = []
        handles = []
        if start is not None:  # results of earlier layers are unused, so a trace drops them
            layer, latent = start
            handles.append(self.module.get_submodule(layer).register_forward_pre_hook(lambda *_: (latent,)))
        if (head := head_of(self.module)) is not None:
            handles.append(head.register_forward_pre_hook(lambda _, args: entered.append(args[0])))
        # BatchNorm updates its buffers in place: pass copies, so that the call has no side effects
        updated = {k: v.clone() if train else v for k, v in (self.buffers if buffers is None else buffers).items()}
        if train or self.module.training:  # skipped otherwise, since it visits every layer
            set_training(self.module, train)
        try:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False):
                module_params = {k: p for k, p in params.items() if not k.startswith(OWN)}
                raw = functional_call(self.module, {**module_params, **updated}, (x,)).to(x.dtype)
        finally:
            for handle in handles:
                handle.remove()
        if train and buffers is None:
            self.buffers = updated
        features: Any = entered[-1].flatten(1).to(x.dtype) if entered else NoFeatures(self.module)
        logits = raw if self.mask is None else torch.where(self.mask[task], raw, MASKED)
        return NetOutput(logits, raw, features, updated)


class NoFeatures:
    """Placeholder for the features of a network whose head is unknown; any operation on it raises `InputError`."""

    def __init__(self, module: nn.Module) -> None:
        self._kind = type(module).__name__

    def _refuse(self, *args: Any, **options: Any) -> NoReturn:
        raise InputError(
            f"model: {self._kind} has no identifiable head: no layer with parameters returns its output, so its "
            "features are not known; assign the layer whose inputs are the features: self.head = ..."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils import _pytree as pytree

        next(leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, cls))._refuse()

    __getitem__ = __add__ = __sub__ = __mul__ = __truediv__ = __matmul__ = __neg__ = __pow__ = _refuse
