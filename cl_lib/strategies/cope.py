"""Continual prototype evolution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import above, decay
from cl_lib.strategies.frozen_features import fixed_matrix, memberships
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Recalled, Spec, State, Tensors, join

FAR = -1e9


@dataclass(frozen=True)
class CoPE(Strategy):
    r"""CoPE (De Lange & Tuytelaars 2021, "Continual Prototype Evolution").

    Features are normalised and each class has a prototype :math:`p^c` on the unit sphere. In the batch of new and
    recalled samples every sample is attracted to its class's prototype and to the other samples of its class, and
    repels samples of other classes (the pseudo-prototypical proxy loss):

    .. math::
        L = -\frac{1}{|B|} \sum_i \Big[ \log P(y_i \mid x_i)
        + \sum_{j: y_j \ne y_i} \log\big(1 - P_i(y_i \mid x_j)\big) \Big], \qquad
        P_i(c \mid x_j) = \frac{e^{z_j^\top z_i / T}}{e^{z_j^\top z_i / T} + \sum_{k \ne c} e^{z_j^\top p^k / T}}

    where :math:`P(y_i \mid x_i)` is the mean over the proxies: the prototype and, with :math:`P_j(y_i \mid x_i)`, the
    other samples of the class. After each step :math:`p^c \leftarrow \alpha p^c + (1 - \alpha)\,\bar z^c`, normalised.
    The class of the nearest prototype is predicted.

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500, 10 recalled per step.
    temperature : float, default 0.1
        T above 0. May differ by replica.
    momentum : float, default 0.99
        α in [0, 1). May differ by replica.

    Raises
    ------
    InputError
        By ``check``: a temperature not above 0, a momentum outside [0, 1), an invalid memory.

    Notes
    -----
    Cost: a pass over new and recalled samples and a matrix of their similarities per step. State: C F numbers; memory:
    ``capacity`` samples.

    Differences from the paper: prototypes start at fixed random directions; a class that has not been seen is not
    predicted.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, CoPE(momentum=0.9), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.7
    True
    """

    memory: Memory = field(default_factory=lambda: Memory(admission="class_balanced"))
    temperature: float = 0.1
    momentum: float = 0.99

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)
        above(self, 0, "temperature")
        decay(self, "momentum")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like = next(iter(params.values()))
        start = normalize(fixed_matrix(like, (spec.features,), spec.classes).mT, dim=-1)
        return {"prototypes": start, "count": like.new_zeros(spec.classes)}

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        both, prototypes = join(batch, recalled[0]), state.extra["prototypes"]

        def objective(params: Tensors) -> tuple[Tensor, Tensors]:
            z = normalize(net(params, both.x, both.task).features, dim=-1)
            return self.proxy_loss(z, both, prototypes), {"z": z}

        new = gradient_of(net, state.params, objective)
        member = memberships(both, prototypes.shape[0], prototypes.dtype)
        return new._replace(kept={}, aux={"sum": member.mT @ new.kept["z"], "count": member.sum(0)})

    def proxy_loss(self, z: Tensor, batch: Batch, prototypes: Tensor) -> Tensor:
        """The loss for normalised features ``z`` (B, F)."""
        y, weight, classes = batch.y, batch.weight, torch.arange(prototypes.shape[0], device=z.device)
        similarity, near = z @ z.mT / self.temperature, z @ prototypes.mT / self.temperature  # (B, B), (B, C)
        masked = torch.where(classes == classes[:, None], FAR, near[:, None, :])  # (B, C, C), without class c itself
        rival = masked.logsumexp(-1)[:, y]  # (B, B): for sample j and proxy i all prototypes but that of y_i
        yes, no = torch.log_softmax(torch.stack([similarity, rival], -1), -1).unbind(-1)  # [j, i]: log P_i(y_i | x_j)
        same = (y == y[:, None]).to(z.dtype)
        others = same * (1 - torch.eye(z.shape[0], dtype=z.dtype, device=z.device)) * weight
        to_prototype = torch.log_softmax(near, -1).gather(-1, y[:, None]).squeeze(-1).exp()
        attraction = (to_prototype + (others * yes.exp()).sum(-1)) / (1 + others.sum(-1))
        repulsion = ((1 - same) * weight[:, None] * no).sum(0)
        return -(weight * (attraction.clamp_min(1e-30).log() + repulsion)).sum() / weight.sum().clamp_min(1e-12)

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any]:
        total, count, before = gradient.aux["sum"], gradient.aux["count"], new.extra["prototypes"]
        mean = total / count.clamp_min(1)[:, None]
        moved = normalize(self.momentum * before + (1 - self.momentum) * mean, dim=-1)
        return {
            "prototypes": torch.where(count[:, None] > 0, moved, before),
            "count": new.extra["count"] + count,
        }

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        z = normalize(net(state.params, x, task, train=False).features, dim=-1)
        return torch.where(state.extra["count"] > 0, z @ state.extra["prototypes"].mT / self.temperature, FAR)
