"""Gradient projection memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature.algebra import eigh
from cl_lib.models.layers import layers_of, listen, rows
from cl_lib.strategies.bounds import at_least, share
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Gradient, Net, Recalled, Spec, State, Tensors

CHUNK = 32


@dataclass(frozen=True)
class GPM(Strategy):
    r"""GPM (Saha et al. 2021, "Gradient Projection Memory for Continual Learning").

    For each layer a projector M onto the space of its past inputs h is kept. Weights are updated only orthogonally to
    this space, so that the layer's outputs for past inputs do not change:

    .. math::
        \nabla_W \leftarrow \nabla_W (I - M), \qquad
        M \leftarrow M + \sum_{i \le k} u_i u_i^\top

    with :math:`u_i` the leading eigenvectors of :math:`(I - M)\,\sum h h^\top (I - M)` at the end of an experience, as
    few as are needed for M to preserve a share ε of the energy :math:`\mathrm{tr} \sum h h^\top`.

    Parameters
    ----------
    energy : float, default 0.95
        ε in [0, 1]; 0 is fine-tuning. May differ by replica.
    samples : int, default 100
        Maximum number of training samples of the experience whose layer inputs are used.

    Raises
    ------
    InputError
        By ``check``: ε outside [0, 1], samples below 1.

    Notes
    -----
    Cost: one product with a layer's projector for each weight per step; after an experience a forward pass over
    ``samples`` and one eigendecomposition per layer. State: for a layer with n inputs (a convolution: channels ×
    kernel) n² numbers, 3 MB in float32 for 784 inputs, independent of the length of the stream.

    Differences from the paper: ε is the same for every experience (the paper increases it); the paper's networks have
    no biases: here a layer's bias, whose input is always 1, is frozen once the layer's projector is not 0; only linear
    and ordinary convolutional layers are protected, other layers continue to learn. Only the gradient is projected:
    with momentum or weight decay the step is no longer orthogonal.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, GPM(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.6
    True
    """

    energy: float = 0.95
    samples: int = 100

    def check(self, spec: Spec) -> None:
        super().check(spec)
        share(self, "energy")
        at_least(self, 1, "samples")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        projector = {}
        for name, _ in layers_of(net.module):
            if f"{name}.weight" in params:
                inputs = params[f"{name}.weight"][0].numel()
                projector[name] = params[f"{name}.weight"].new_zeros(inputs, inputs)
        return {"projector": projector}

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        new = super().gradient(net, state, batch, recalled)
        grads = dict(new.grads)
        for name, m in state.extra["projector"].items():
            weight, bias = f"{name}.weight", f"{name}.bias"
            flat = grads[weight].flatten(1)
            grads[weight] = (flat - flat @ m).view_as(grads[weight])
            if bias in grads:
                grads[bias] = torch.where(m.diagonal().any(), 0.0, grads[bias])
        return new._replace(grads=grads)

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        layers = layers_of(net.module)
        second = {name: torch.zeros_like(m) for name, m in state.extra["projector"].items()}
        for part in data.batches(CHUNK, self.samples):
            entered: dict[str, list[Tensor]] = {}
            listen(layers, net, state.params, data.read(part), {}, entered, lambda out: out.raw)
            for name, layer in layers:
                for x in entered.get(name, ()) if name in second else ():
                    inputs = rows(layer, x)
                    second[name] = second[name] + inputs.mT @ inputs
        grown = {name: self.grown(m, second[name]) for name, m in state.extra["projector"].items()}
        return state._replace(extra={"projector": grown})

    def grown(self, m: Tensor, second: Tensor) -> Tensor:
        """Extend the projector ``m`` by as few directions as preserve a share ε of the trace of ``second``."""
        complement = torch.eye(m.shape[0], dtype=m.dtype, device=m.device) - m
        total = second.diagonal().sum()
        values, vectors = eigh(complement @ second @ complement)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        kept = total - values.sum() + values.cumsum(0) - values  # before each direction is added
        chosen = (kept < self.energy * total) & (values > 1e-9 * total)
        return m + (vectors * chosen.to(m.dtype)) @ vectors.mT
