"""Streaming linear discriminant analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.strategies.frozen_features import OnFrozenFeatures, memberships
from cl_lib.types import Batch, Contents, Net, Spec, State, Tensors


@dataclass(frozen=True)
class SLDA(OnFrozenFeatures):
    r"""Deep SLDA (Hayes & Kanan 2020, "Lifelong Machine Learning with Deep Streaming LDA").

    On frozen features z, class means :math:`\mu_c` and one covariance Σ are updated with every batch, and

    .. math::
        f_c(x) = \mu_c^\top \Lambda z - \tfrac12 \mu_c^\top \Lambda \mu_c, \qquad
        \Lambda = \big((1 - \epsilon)\,\Sigma + \epsilon I\big)^{-1}

    Parameters
    ----------
    features : {"first", "identity", "random"}, default "first"
        The frozen features: those of the network after experience 1 (trained there as in fine-tuning), the flattened
        input, or ``relu(x P)`` with a fixed random matrix P of ``width`` columns.
    width : int, default 512
        Number of features of the random projection.
    shrinkage : float, default 1e-4
        ε in (0, 1). May differ by replica.

    Raises
    ------
    InputError
        By ``check``: unknown features, shrinkage outside (0, 1), width below 1.

    Notes
    -----
    Cost: a forward pass and the outer products of a batch's features per step; before an evaluation one F x F inverse.
    State: (C + F) F numbers. No gradients (except in experience 1 with ``first``), no samples; one pass.

    Differences from the paper: the covariance is the exact within-class covariance, updated by Welford's algorithm, so
    that it equals the batch estimate in any order; the paper's recursion approximates it. No base initialisation on
    ImageNet.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, SLDA(features="identity"), seeds=2)
    >>> record.metrics["accuracy"].mean > 0.9
    True
    """

    shrinkage: float = 1e-4

    def check(self, spec: Spec) -> None:
        super().check(spec)
        if not 0 < self.shrinkage < 1:
            raise InputError(f"strategy.shrinkage={self.shrinkage!r}: must lie between 0 and 1")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like, size = next(iter(params.values())), self.size(spec)
        return super().init(net, params, spec) | {
            "mean": like.new_zeros(spec.classes, size),
            "count": like.new_zeros(spec.classes),
            "scatter": like.new_zeros(size, size),
        }

    def statistics(self, extra: dict[str, Any], z: Tensor, batch: Batch) -> dict[str, Any]:
        mean, count = extra["mean"], extra["count"]
        member = memberships(batch, mean.shape[0], z.dtype)
        added = member.sum(0)
        batch_means = member.mT @ z / added.clamp_min(1)[:, None]  # means of the batch's classes
        total = count + added
        shift = batch_means - mean
        inside = (z - member @ batch_means) * batch.weight[:, None]
        between = (count * added / total.clamp_min(1))[:, None] * shift
        return {
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
        return self.frozen(net, state, x, task) @ readout["weight"].mT + readout["bias"]
