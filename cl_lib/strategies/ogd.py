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
"""Length, over the longest, below which a direction counts as one that is held already."""


@dataclass(frozen=True)
class OGD(Strategy):
    r"""OGD (Farajtabar et al. 2020, "Orthogonal Gradient Descent for Continual Learning").

    A step moves orthogonally to the directions :math:`v_j` in which the answers to samples of past experiences change,
    the gradients of the logit of each one's label made orthonormal:

    .. math:: \tilde g = g - \sum_j (g^\top v_j)\, v_j

    so that to first order those logits stay as they are.

    Parameters
    ----------
    directions : int, default 100
        Held at most, an equal share for each experience of the stream, so at least one for each.

    Raises
    ------
    InputError
        By ``check``: fewer directions than experiences.

    Notes
    -----
    Cost: two products with the stored directions a step; after an experience one gradient for each new direction and a
    QR decomposition. State: ``directions`` copies of the network's parameters, 40 MB in float32 for the defaults and
    100,000 parameters, whatever the length of the stream.

    Differences from the paper: the gradients are those of the label's logit (its OGD-GTL); an equal share of a fixed
    number for each experience instead of as many for each without a bound. Only the gradient is bent: with momentum or
    weight decay the step is no longer orthogonal.

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
        flat = torch.cat([g.flatten() for g in new.grads.values()])[None]  # a row: of many replicas' columns the
        flat = (flat - flat @ basis.mT @ basis)[0]  # products take ten times as long
        parts = flat.split([g.numel() for g in new.grads.values()])
        return new._replace(grads={k: p.view_as(g) for (k, g), p in zip(new.grads.items(), parts, strict=True)})

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        basis, number = state.extra["basis"], data.number
        batch = data.read(slice(0, basis.shape[1]))
        labels = one_hot(batch.y, net(state.params, batch.x, batch.task, train=False).logits)
        rows = as_rows(per_sample_gradients(net, state.params, batch, lambda out: out.logits, labels))
        held = basis.flatten(0, 1)
        for _ in range(2):  # the second time takes away what rounding left
            rows = rows - (rows @ held.mT) @ held
        q, r = torch.linalg.qr(rows.mT)
        length = r.diagonal(dim1=-2, dim2=-1).abs()
        rows = torch.where(length > LEAST * length.max(), q, 0.0).mT  # a direction that was there already: none
        missing = basis.shape[1] - rows.shape[0]
        rows = torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])
        return state._replace(extra={"basis": torch.cat([basis[:number], rows[None], basis[number + 1 :]])})
