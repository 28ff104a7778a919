"""Random projections with a recursive ridge regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.frozen_features import OnFrozenFeatures, fixed_matrix, memberships
from cl_lib.types import Batch, Contents, Net, Spec, State, Tensors


@dataclass(frozen=True)
class RanPAC(OnFrozenFeatures):
    r"""RanPAC (McDonnell et al. 2023, "Random Projections and Pre-trained Models for Continual Learning").

    Frozen features z are expanded, :math:`h = \mathrm{relu}(z P)` with a fixed random P, and a ridge regression on the
    one-hot labels is updated by its sufficient statistics:

    .. math::
        G = \sum_i h_i h_i^\top, \qquad Q = \sum_i h_i\, e_{y_i}^\top, \qquad
        f(x) = h^\top (G + \lambda I)^{-1} Q

    Parameters
    ----------
    features : {"first", "identity", "random"}, default "first"
        The frozen features: those of the network after experience 1 (trained there as in fine-tuning), the flattened
        input, or ``relu(x P)`` with a fixed random matrix P of ``width`` columns.
    width : int, default 512
        Number of features of the random projection of the input.
    expansion : int, default 1000
        Number of columns of the matrix P that expands the features.
    ridge : float, default 1
        λ above 0. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: unknown features, width or expansion below 1, λ not above 0.

    Notes
    -----
    Cost: a forward pass and the outer products of a batch per step; before an evaluation the solution of an
    ``expansion`` × ``expansion`` system. State: ``expansion`` (``expansion`` + C + F) numbers, 8 MB in float32 with the
    defaults and F = 1,000; it does not grow. No gradients (except in experience 1 with ``first``), no samples; one
    pass.

    Differences from the paper: no pre-trained network and no first-session adaptation; λ is an option, the paper
    selects it on a part of each experience's data. The least-squares scores are used as logits, so the probabilities
    are underconfident.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, RanPAC(features="identity"), seeds=2)
    >>> record.metrics["accuracy"].mean > 0.9
    True
    """

    expansion: int = 1000
    ridge: float = 1.0

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 1, "expansion")
        above(self, 0, "ridge")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like, size = next(iter(params.values())), self.expansion
        return super().init(net, params, spec) | {
            "expand": fixed_matrix(like, (self.size(spec),), size, seed=1),
            "gram": like.new_zeros(size, size),
            "target": like.new_zeros(size, spec.classes),
        }

    def statistics(self, extra: dict[str, Any], z: Tensor, batch: Batch) -> dict[str, Any]:
        h = torch.relu(z @ extra["expand"])
        member = memberships(batch, extra["target"].shape[1], z.dtype)
        gram = extra["gram"] + (h * batch.weight[:, None]).mT @ h
        return {"gram": gram, "target": extra["target"] + h.mT @ member}

    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        gram = state.extra["gram"]
        identity = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
        return {"weight": torch.linalg.solve(gram + self.ridge * identity, state.extra["target"])}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        return torch.relu(self.frozen(net, state, x, task) @ state.extra["expand"]) @ readout["weight"]
