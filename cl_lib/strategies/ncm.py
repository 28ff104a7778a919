"""Nearest class mean on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.strategies.bounds import above
from cl_lib.strategies.frozen_features import OnFrozenFeatures, memberships
from cl_lib.types import Batch, Net, Spec, State, Tensors

FAR = -1e9


@dataclass(frozen=True)
class NCM(OnFrozenFeatures):
    r"""Nearest class mean (Mensink et al. 2013, "Distance-Based Image Classification").

    On frozen features z the mean :math:`\mu_c` of each class is kept, and

    .. math:: p(c \mid x) \propto \exp\big(-\lVert z - \mu_c \rVert_2^2 / T\big)

    Parameters
    ----------
    features : {"first", "identity", "random"}, default "first"
        The frozen features: those of the network after experience 1 (trained there as in fine-tuning), the flattened
        input, or ``relu(x P)`` with a fixed random matrix P of ``width`` columns.
    width : int, default 512
        Number of features of the random projection.
    temperature : float, default 1
        T above 0, in squared units of the features. May differ by replica; the predicted class does not depend on it.

    Raises
    ------
    InputError
        By ``check``: unknown features, width below 1, a temperature that is not above 0.

    Notes
    -----
    Cost: a forward pass per step, no gradients (except in experience 1 with ``first``); one pass over the data. State:
    C F numbers; no samples.

    Differences from the paper: plain Euclidean distance, no learnt metric; a softmax over distances for probabilities.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, NCM(features="identity"), seeds=2)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    temperature: float = 1.0

    def check(self, spec: Spec) -> None:
        super().check(spec)
        above(self, 0, "temperature")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like = next(iter(params.values()))
        counters = {"sum": like.new_zeros(spec.classes, self.size(spec)), "count": like.new_zeros(spec.classes)}
        return super().init(net, params, spec) | counters

    def statistics(self, extra: dict[str, Any], z: Tensor, batch: Batch) -> dict[str, Any]:
        member = memberships(batch, extra["count"].shape[0], z.dtype)
        return {"sum": extra["sum"] + member.mT @ z, "count": extra["count"] + member.sum(0)}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        count = state.extra["count"]
        mean = state.extra["sum"] / count.clamp_min(1)[:, None]
        distance = (self.frozen(net, state, x, task)[:, None] - mean).square().sum(-1)
        return torch.where(count > 0, -distance / self.temperature, FAR)
