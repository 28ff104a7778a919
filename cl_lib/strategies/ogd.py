"""Orthogonal gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cl_lib.curvature.algebra import as_rows
from cl_lib.curvature.per_sample import one_hot, per_sample_gradients
from cl_lib.errors import InputError
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Gradient, Net, Recalled, Spec, State, Tensors

LEAST = 1e-4
"""Length relative to the longest, below which a direction is considered to be in the span of the stored ones."""


@dataclass(frozen=True)
class OGD(Strategy):
    r"""OGD (Farajtabar et al. 2020, "Orthogonal Gradient Descent for Continual Learning").

    The gradient is projected orthogonally to directions :math:`v_j` that change the predictions for samples of past
    experiences; these are the orthonormalised gradients of the logit of each sample's label:

    .. math:: \tilde g = g - \sum_j (g^\top v_j)\, v_j

    so that to first order those logits do not change.

    Parameters
    ----------
    directions : int, default 100
        Maximum number of stored directions, an equal share for each experience of the stream, at least one for each.

    Raises
    ------
    InputError
        By ``check``: fewer directions than experiences.

    Notes
    -----
    Cost: two products with the stored directions per step; after an experience one gradient for each new direction and
    a QR decomposition. State: ``directions`` copies of the network's parameters, 40 MB in float32 for the defaults and
    100,000 parameters, independent of the length of the stream.

    Differences from the paper: the gradients are those of the label's logit (the paper's OGD-GTL); each experience has
    an equal share of a fixed total number of directions, instead of a fixed number each. Only the gradient is
    projected: with momentum or weight decay the step is no longer orthogonal.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, OGD(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.7
    True
    """

    directions: int = 100

    def check(self, spec: Spec) -> None:
        super().check(spec)
        if self.directions < spec.experiences:
            raise InputError(
                f"strategy.directions={self.directions!r}: must be {spec.experiences} or more, one for each experience"
            )

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        share, size = self.directions // spec.experiences, sum(p.numel() for p in params.values())
        return {"basis": next(iter(params.values())).new_zeros(spec.experiences, share, size)}

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        new, basis = super().gradient(net, state, batch, recalled), state.extra["basis"].flatten(0, 1)
        flat = torch.cat([g.flatten() for g in new.grads.values()])[None]  # a row: with many
        flat = (flat - flat @ basis.mT @ basis)[0]  # replicas, products with columns are ten times slower
        parts = flat.split([g.numel() for g in new.grads.values()])
        return new._replace(grads={k: p.view_as(g) for (k, g), p in zip(new.grads.items(), parts, strict=True)})

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        basis, number = state.extra["basis"], data.number
        batch = data.read(slice(0, basis.shape[1]))
        labels = one_hot(batch.y, net(state.params, batch.x, batch.task, train=False).logits)
        rows = as_rows(per_sample_gradients(net, state.params, batch, lambda out: out.logits, labels))
        stored = basis.flatten(0, 1)
        for _ in range(2):  # the second pass removes rounding errors
            rows = rows - (rows @ stored.mT) @ stored
        q, r = torch.linalg.qr(rows.mT)
        length = r.diagonal(dim1=-2, dim2=-1).abs()
        rows = torch.where(length > LEAST * length.max(), q, 0.0).mT  # 0 for directions in the span of the others
        missing = basis.shape[1] - rows.shape[0]
        rows = torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])
        return state._replace(extra={"basis": torch.cat([basis[:number], rows[None], basis[number + 1 :]])})
