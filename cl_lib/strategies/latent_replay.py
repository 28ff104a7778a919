"""Replay of the inputs of a layer, computed by a frozen prefix of the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cl_lib.errors import InputError
from cl_lib.memory.store import Memory
from cl_lib.models.layers import listen
from cl_lib.models.structure import entry, has_batch_statistics, head_of
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.losses import cross_entropy
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import (
    Batch,
    ExperienceData,
    Gradient,
    KeptSpec,
    Net,
    Phase,
    Recalled,
    Shape,
    Spec,
    State,
    Tensors,
    join,
)


@dataclass(frozen=True)
class LatentReplay(Strategy):
    r"""Latent replay (Pellegrini et al. 2020, "Latent Replay for Real-Time Continual Learning").

    After the first experience the layers before a given layer, a function h, are frozen. The memory stores h(x) instead
    of x, and the remaining part g of the network is trained on new and recalled latents together,

    .. math::
        L = \frac{1}{|B \cup M|} \Big( \sum_{x \in B} -\log p_g(y \mid h(x)) + \sum_{z \in M} -\log p_g(y \mid z)
        \Big)

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 10 recalled per step.
    layer : str, default "head"
        Name of the layer whose inputs are the latents, as in ``model.named_modules()``; ``"head"`` stands for the last
        linear layer if no layer has that name. The layers before it are frozen after experience 1.
    width : int, optional
        Dimension of a latent. Default: number of input features of the head.

    Raises
    ------
    InputError
        By ``check``: an invalid memory, width below 1. By ``init``: no layer of that name; a layer that is called more
        than once, whose inputs are not vectors of that width, or that the network bypasses; no trained parameter after
        it; BatchNorm, whose statistics would continue to change in the frozen layers.

    Notes
    -----
    Cost: a step of fine-tuning without the gradients before the layer, and a pass of ``memory.batch`` latents through
    the layers after it (a traced step omits unused computations). Memory: ``capacity`` latents, no inputs.

    Differences from the paper: the prefix is trained in experience 1 and does not change afterwards (the paper reduces
    its learning rate), so stored latents remain exact; nothing is replayed in experience 1, whose latents are computed
    at its end; latents are vectors.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, LatentReplay(), seeds=2, epochs=5)
    >>> record.metrics["accuracy"].mean > 0.5
    True
    """

    keeps_inputs: ClassVar[bool] = False
    memory: Memory = field(default_factory=Memory)
    layer: str = "head"
    width: int | None = None

    def check(self, spec: Spec) -> None:
        super().check(spec)
        if self.width is not None:
            at_least(self, 1, "width")

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        return {"latent": (self._width(spec),)}

    def _width(self, spec: Spec) -> int:
        return spec.features if self.width is None else self.width

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return (Phase("behind" if experience else "whole"),)

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        if has_batch_statistics(net.module):
            raise InputError("strategy: LatentReplay freezes layers, but BatchNorm's statistics continue to change")
        name, layer = self._layer(net.module)
        width, names = entry(net.module, name, layer, spec.shape)
        if width != self._width(spec):
            takes = f"takes {width} numbers, not {self._width(spec)}; set strategy.width={width}"
            raise InputError(f"strategy.layer={self.layer!r}: {takes}")
        nothing = next(iter(params.values())).new_zeros(0)
        return {"behind": {k: nothing for k in names if k in params}}  # only the names are used

    def _layer(self, module: nn.Module) -> tuple[str, nn.Module]:
        """Name and module of the layer whose inputs are the latents."""
        named = {name: layer for name, layer in module.named_modules() if name}
        name = next((k for k, v in named.items() if v is head_of(module)), "") if self.layer == "head" else self.layer
        if name not in named:
            has = f"only {', '.join(named)}" if named else "nor any other"
            raise InputError(f"strategy.layer={self.layer!r}: the model has no such layer, {has}")
        return name, named[name]

    def latents(self, net: Net, params: Tensors, batch: Batch) -> Tensor:
        """Latents h(x), ``(B, width)``."""
        name, layer = self._layer(net.module)
        entered: dict[str, list[Tensor]] = {}
        listen([(name, layer)], net, params, batch, {}, entered, lambda out: out.raw)
        return entered[name][0]

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        if batch.phase == "whole":
            return super().gradient(net, state, batch, recalled)
        (old,) = recalled
        name, _ = self._layer(net.module)
        latent = self.latents(net, state.params, batch)
        both, latents = join(batch, old), torch.cat([latent, old.kept["latent"]])

        def objective(params: Tensors) -> tuple[Tensor, Tensors]:
            logits = net(params, both.x, both.task, start=(name, latents)).logits
            return cross_entropy(logits, both.y, both.weight), {"latent": latent}

        new = gradient_of(net, state.params, objective)
        return new._replace(grads={k: new.grads[k] for k in state.extra["behind"]})

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        if data.number or data.memory is None or "latent" not in state.memory:
            return state
        latent = [self.latents(net, state.params, part) for part in data.memory.batches()]
        return state._replace(memory=state.memory | {"latent": torch.cat([*latent, state.memory["latent"][-1:]])})
