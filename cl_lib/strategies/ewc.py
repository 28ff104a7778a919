"""Elastic weight consolidation, with separate penalties or online."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cl_lib.curvature.algebra import quadratic
from cl_lib.curvature.fisher import VARIANTS, Variant, diagonal_fisher
from cl_lib.strategies.bounds import at_least, one_of, share
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import ExperienceData, Net, Spec, State, Tensors


@dataclass(frozen=True)
class EWC(Strategy):
    r"""EWC (Kirkpatrick et al. 2017) and online EWC (Schwarz et al. 2018, "Progress & Compress").

    After each experience e the diagonal Fisher information F at the parameters reached, θ*, is added to a penalty:

    .. math::
        \text{separate:}\quad \frac{\lambda}{2} \sum_e \sum_k F_{e,k} (\theta_k - \theta^*_{e,k})^2 \qquad
        \text{online:}\quad \frac{\lambda}{2} \sum_k \tilde F_k (\theta_k - \theta^*_k)^2,\quad
        \tilde F \leftarrow \gamma \tilde F + F

    The sum of the separate penalties is one quadratic, stored as its curvature :math:`\sum F_e`, its centre
    :math:`\sum F_e \theta^*_e / \sum F_e` and its value there, so the state does not grow.

    Parameters
    ----------
    lam : float, default 10
        λ, 0 or more; 0 is fine-tuning. May differ by replica. Its best value depends on ``fisher``: for ``batched`` it
        is orders of magnitude above that for ``exact``. Plain gradient descent needs ``lr * lam * F_k < 2`` for every
        parameter, or the penalty makes it diverge; ``optim.clip_norm`` helps.
    mode : {"separate", "online"}, default "separate"
    gamma : float, default 1
        γ of the online mode, in [0, 1]. May differ by replica.
    fisher : {"exact", "sample", "empirical", "batched"}, default "exact"
        See `cl_lib.curvature.fisher.diagonal_fisher`.
    samples : int, default 1000
        Maximum number of training samples of the experience that the Fisher information is computed on.
    fisher_batch : int, default 128
        Batch size of the ``batched`` variant.

    Raises
    ------
    InputError
        By ``check``: unknown mode or variant, γ outside [0, 1], λ below 0, samples below 1.

    Notes
    -----
    Cost: fine-tuning and one more pass over the parameters per step; after an experience ``samples`` forward passes and
    as many backward passes as there are classes (exact) or one. State: two copies of the network.

    Differences from the paper: the Fisher information is a mean over at most ``samples`` samples; the separate
    penalties are summed into one quadratic, which is the same function.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), scenario="task")
    >>> record = cl_lib.run(stream, EWC(lam=10.0), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    lam: float = 10.0
    mode: Literal["separate", "online"] = "separate"
    gamma: float = 1.0
    fisher: Variant = "exact"
    samples: int = 1000
    fisher_batch: int = 128

    def check(self, spec: Spec) -> None:
        super().check(spec)
        one_of(self, ("separate", "online"), "mode")
        one_of(self, VARIANTS, "fisher")
        at_least(self, 0, "lam")
        share(self, "gamma")
        at_least(self, 1, "samples", "fisher_batch")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        zeros = {k: torch.zeros_like(p) for k, p in params.items()}
        first = next(iter(params.values()))
        return {"fisher": zeros, "anchor": zeros, "constant": first.new_zeros(())}

    def penalty(self, net: Net, state: State) -> Tensor:
        distance = quadratic(state.extra["fisher"], state.params, state.extra["anchor"])
        return 0.5 * self.lam * (distance + state.extra["constant"])

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        new = diagonal_fisher(net, state.params, data, self.fisher, samples=self.samples, batch=self.fisher_batch)
        old, centre = state.extra["fisher"], state.extra["anchor"]
        if self.mode == "online":
            fisher = {k: self.gamma * old[k] + f for k, f in new.items()}
            return state._replace(extra={"fisher": fisher, "anchor": state.params, "constant": state.extra["constant"]})
        # the sum of two quadratics: curvatures add, the centre is their weighted mean
        fisher = {k: old[k] + f for k, f in new.items()}
        share = {k: f / fisher[k].clamp_min(1e-30) for k, f in new.items()}
        shift = {k: state.params[k] - centre[k] for k in new}
        gained = torch.stack([(old[k] * share[k] * shift[k].square()).sum() for k in new]).sum()
        return state._replace(
            extra={
                "fisher": fisher,
                "anchor": {k: centre[k] + share[k] * shift[k] for k in new},
                "constant": state.extra["constant"] + gained,
            }
        )
