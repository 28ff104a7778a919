"""Riemannian walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature import quadratic
from cl_lib.strategies.bounds import at_least, share
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Gradient, Net, Spec, State, Tensors

EPSILON = 1e-3


@dataclass(frozen=True)
class RWalk(Strategy):
    r"""RWalk (Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning").

    The importance of a parameter combines a moving average of the empirical Fisher information F and a score s, the
    decrease of the loss along the path divided by the distance in the metric of F:

    .. math::
        F \leftarrow \alpha\, g^2 + (1 - \alpha) F, \qquad
        s_k \leftarrow s_k + \max\!\Big(0,\ \frac{-g_k \Delta\theta_k}{\tfrac12 F_k \Delta\theta_k^2 + \epsilon}\Big)

    with g the gradient of a step's loss. At the end of an experience the new score and the previous one are averaged, F
    and the average are scaled to at most 1, and the penalty
    :math:`\lambda \sum_k (F_k + s_k)(\theta_k - \theta^*_k)^2` is updated.

    Parameters
    ----------
    lam : float, default 1
        λ, 0 or more; 0 is fine-tuning. May differ by replica.
    alpha : float, default 0.9
        Weight of the newest gradient in F, in [0, 1]. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: λ below 0, α outside [0, 1].

    Notes
    -----
    Cost: several passes over the parameters per step, none over samples. State: five copies of the network.

    Differences from the paper: the score is updated at every step (Δt = 1), F is computed from a mini-batch's mean
    gradient, as in the authors' code; no samples are stored.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), scenario="task")
    >>> record = cl_lib.run(stream, RWalk(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    lam: float = 1.0
    alpha: float = 0.9

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "lam")
        share(self, "alpha")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        zeros = {k: torch.zeros_like(p) for k, p in params.items()}
        return {"fisher": zeros, "path": zeros, "score": zeros, "importance": zeros, "anchor": params}

    def penalty(self, net: Net, state: State) -> Tensor:
        return self.lam * quadratic(state.extra["importance"], state.params, state.extra["anchor"])

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any]:
        importance, anchor = new.extra["importance"], new.extra["anchor"]
        fisher, path = dict(new.extra["fisher"]), dict(new.extra["path"])
        for k, total in gradient.grads.items():
            moved = new.params[k] - old.params[k]
            g = total - 2 * self.lam * importance[k] * (old.params[k] - anchor[k])  # without the penalty
            fisher[k] = self.alpha * g.square() + (1 - self.alpha) * fisher[k]
            path[k] = path[k] + (-g * moved / (0.5 * fisher[k] * moved.square() + EPSILON)).clamp_min(0)
        return new.extra | {"fisher": fisher, "path": path}

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        extra = state.extra
        score = {k: 0.5 * (s + extra["path"][k]) for k, s in extra["score"].items()}
        fisher, scaled_score = scaled(extra["fisher"]), scaled(score)
        zeros = {k: torch.zeros_like(s) for k, s in score.items()}
        importance = {k: f + scaled_score[k] for k, f in fisher.items()}
        new = {"score": score, "path": zeros, "importance": importance, "anchor": state.params}
        return state._replace(extra=extra | new)


def scaled(values: Tensors) -> Tensors:
    """Divide non-negative values by their maximum over all tensors, so that they are in [0, 1]."""
    most = torch.stack([v.max() for v in values.values()]).max().clamp_min(1e-30)
    return {k: v / most for k, v in values.items()}
