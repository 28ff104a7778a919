"""Streaming linear discriminant analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.memory.store import Contents
from cl_lib.strategies.strategy import Gradient, Net, Phase, Strategy
from cl_lib.types import Batch, Recalled, Spec, State, Tensors


@dataclass(frozen=True)
class SLDA(Strategy):
    r"""Deep SLDA (Hayes & Kanan 2020, "Lifelong Machine Learning with Deep Streaming LDA").

    On frozen features z, class means :math:`\mu_c` and one covariance Σ are updated with every batch, and

    .. math::
        f_c(x) = \mu_c^\top \Lambda z - \tfrac12 \mu_c^\top \Lambda \mu_c, \qquad
        \Lambda = \big((1 - \epsilon)\,\Sigma + \epsilon I\big)^{-1}

    Parameters
    ----------
    features : {"first", "identity", "random"}, default "first"
        What is frozen: the network after experience 1 (trained there as in fine-tuning), the flattened input itself, or
        ``relu(x P)`` with a fixed random matrix P of ``width`` columns.
    width : int, default 512
        Features of the random projection.
    shrinkage : float, default 1e-4
        ε in (0, 1). May differ by replica.

    Raises
    ------
    InputError
        By ``check``: unknown features, shrinkage outside (0, 1), width below 1.

    Notes
    -----
    Cost: a forward pass and the outer products of a batch's features a step; before an evaluation one F x F inverse.
    State: (C + F) F numbers. No gradients (but in experience 1 with ``first``), no samples kept; one pass.

    Differences from the paper: the covariance is the exact within-class one, updated by Welford's rule, so that it
    equals the batch estimate in any order; the paper's recursion approximates it. No base initialisation on ImageNet.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, SLDA(features="identity"), seeds=2)
    >>> record.metrics["accuracy"].mean > 0.9
    True
    """

    features: Literal["first", "identity", "random"] = "first"
    width: int = 512
    shrinkage: float = 1e-4

    def check(self, spec: Spec) -> None:
        super().check(spec)
        if self.features not in ("first", "identity", "random"):
            raise InputError(f"strategy.features={self.features!r}: must be one of first, identity, random")
        if not 0 < self.shrinkage < 1:
            raise InputError(f"strategy.shrinkage={self.shrinkage!r}: must lie between 0 and 1")
        if self.width < 1:
            raise InputError(f"strategy.width={self.width!r}: must be 1 or more")

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        statistics = Phase("statistics", epochs=1, trainable=())
        return (Phase("features"), statistics) if experience == 0 and self.features == "first" else (statistics,)

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        inputs = torch.Size(spec.shape).numel()
        size = {"first": spec.features, "identity": inputs, "random": self.width}[self.features]
        like = next(iter(params.values()))
        extra = {
            "mean": like.new_zeros(spec.classes, size),
            "count": like.new_zeros(spec.classes),
            "scatter": like.new_zeros(size, size),
        }
        if self.features == "random":  # the same for every seed: the features are part of the method, not of the run
            matrix = np.random.default_rng(0).standard_normal((inputs, size)) / inputs**0.5
            extra["projection"] = torch.as_tensor(matrix, dtype=like.dtype, device=like.device)
        return extra

    def _features(self, net: Net, state: State, x: Tensor, task: Tensor) -> Tensor:
        if self.features == "first":
            return net(state.params, x, task, train=False).features
        flat = x.flatten(1)
        return flat if self.features == "identity" else torch.relu(flat @ state.extra["projection"])

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        if batch.phase == "statistics":
            return Gradient({}, torch.zeros_like(batch.weight[0]), {})
        return super().gradient(net, state, batch, recalled)

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any]:
        if batch.phase != "statistics":
            return new.extra
        extra, z = new.extra, self._features(net, new, batch.x, batch.task)
        mean, count = extra["mean"], extra["count"]
        classes = torch.arange(mean.shape[0], device=z.device)
        member = (batch.y[:, None] == classes).to(z.dtype) * batch.weight[:, None]  # (B, C)
        added = member.sum(0)
        own = member.mT @ z / added.clamp_min(1)[:, None]  # means of the batch's classes
        total = count + added
        shift = own - mean
        inside = (z - member @ own) * batch.weight[:, None]
        between = (count * added / total.clamp_min(1))[:, None] * shift
        return extra | {
            "mean": mean + (added / total.clamp_min(1))[:, None] * shift,
            "count": total,
            "scatter": extra["scatter"] + inside.mT @ inside + between.mT @ shift,
        }

    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        extra, epsilon = state.extra, self.shrinkage
        covariance = extra["scatter"] / extra["count"].sum().clamp_min(1)
        identity = torch.eye(covariance.shape[0], dtype=covariance.dtype, device=covariance.device)
        precision = torch.linalg.inv((1 - epsilon) * covariance + epsilon * identity)
        weight = extra["mean"] @ precision
        bias = -0.5 * (weight * extra["mean"]).sum(-1)
        return {"weight": weight, "bias": torch.where(extra["count"] > 0, bias, -1e9)}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        return self._features(net, state, x, task) @ readout["weight"].mT + readout["bias"]
