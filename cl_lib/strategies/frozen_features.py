"""Base classes and helpers of strategies that collect statistics on frozen features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cl_lib.strategies.bounds import at_least, one_of
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Phase, Recalled, Spec, State, Tensors

KINDS = ("first", "identity", "random")


@dataclass(frozen=True)
class FrozenFeatures(Strategy):
    """Base of strategies that predict from frozen features.

    Parameters
    ----------
    features : {"first", "identity", "random"}, default "first"
        The frozen features: those of the network after experience 1 (trained there as in fine-tuning), the flattened
        input, or ``relu(x P)`` with a fixed random matrix P of ``width`` columns. P is the same for every seed: the
        features are part of the method, not of the run.
    width : int, default 512
        Number of features of the random projection.
    """

    features: Literal["first", "identity", "random"] = "first"
    width: int = 512

    def check(self, spec: Spec) -> None:
        super().check(spec)
        one_of(self, KINDS, "features")
        at_least(self, 1, "width")

    def size(self, spec: Spec) -> int:
        """Number of features F."""
        return {"first": spec.features, "identity": torch.Size(spec.shape).numel(), "random": self.width}[self.features]

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like = next(iter(params.values()))
        return {"projection": fixed_matrix(like, spec.shape, self.width)} if self.features == "random" else {}

    def frozen(self, net: Net, state: State, x: Tensor, task: Tensor) -> Tensor:
        """Frozen features ``(B, F)``."""
        if self.features == "first":
            return net(state.params, x, task, train=False).features
        flat = x.flatten(1)
        return flat if self.features == "identity" else torch.relu(flat @ state.extra["projection"])

    def after_features(self, experience: int, phase: Phase) -> tuple[Phase, ...]:
        """``phase``, in experience 1 preceded by the phase that trains the features, if they are the network's."""
        return (Phase("features"), phase) if experience == 0 and self.features == "first" else (phase,)


@dataclass(frozen=True)
class OnFrozenFeatures(FrozenFeatures, ABC):
    """Abstract base of strategies that override `statistics`; they make one pass over each experience."""

    @abstractmethod
    def statistics(self, extra: dict[str, Any], z: Tensor, batch: Batch) -> dict[str, Any]:
        """Update the statistics in ``extra`` with the batch's features ``z`` (B, F)."""

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return self.after_features(experience, Phase("statistics", epochs=1, trainable=()))

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        if batch.phase == "statistics":
            return Gradient({}, torch.zeros_like(batch.weight[0]), {})
        return super().gradient(net, state, batch, recalled)

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any]:
        if batch.phase != "statistics":
            return new.extra
        return new.extra | self.statistics(new.extra, self.frozen(net, new, batch.x, batch.task), batch)


def fixed_matrix(like: Tensor, shape: tuple[int, ...], width: int, seed: int = 0) -> Tensor:
    """Random matrix ``(inputs, width)`` with variance 1 / inputs, in the dtype and on the device of ``like``."""
    inputs = torch.Size(shape).numel()
    matrix = np.random.default_rng(seed).standard_normal((inputs, width)) / inputs**0.5
    return torch.as_tensor(matrix, dtype=like.dtype, device=like.device)


def memberships(batch: Batch, classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot labels ``(B, C)``, multiplied with the samples' weights."""
    columns = torch.arange(classes, device=batch.y.device)
    return (batch.y[:, None] == columns).to(dtype) * batch.weight[:, None]
