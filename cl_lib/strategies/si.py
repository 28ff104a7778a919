"""Synaptic intelligence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature.algebra import quadratic
from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Gradient, Net, Spec, State, Tensors


@dataclass(frozen=True)
class SI(Strategy):
    r"""SI (Zenke et al. 2017, "Continual Learning Through Synaptic Intelligence").

    During an experience each parameter accumulates its contribution to the decrease of the loss, the path integral

    .. math::
        \omega_k = -\sum_t \frac{\partial L}{\partial \theta_k} \Delta\theta_k, \qquad
        \Omega_k \leftarrow \Omega_k + \frac{\max(\omega_k, 0)}{(\theta_k - \theta^*_k)^2 + \xi}

    At the end of the experience it is added to the importance Ω of a penalty
    :math:`c \sum_k \Omega_k (\theta_k - \theta^*_k)^2` around the current parameters θ*.

    Parameters
    ----------
    c : float, default 0.1
        Strength, 0 or more; 0 is fine-tuning. May differ by replica. Plain gradient descent needs
        ``2 * lr * c * Ω_k < 2`` for every parameter, or the penalty makes it diverge.
    xi : float, default 0.1
        ξ above 0, which bounds the importance of parameters that have hardly changed. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: c below 0, ξ not above 0.

    Notes
    -----
    Cost: several passes over the parameters per step, none over samples. State: three copies of the network.

    Differences from the paper: the path integral uses the gradient of the mini-batch loss without the penalty, as in
    the authors' code; negative ω, which would reward changes of a parameter, are set to 0.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), scenario="task")
    >>> record = cl_lib.run(stream, SI(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    c: float = 0.1
    xi: float = 0.1

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "c")
        above(self, 0, "xi")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        zeros = {k: torch.zeros_like(p) for k, p in params.items()}
        return {"path": zeros, "importance": zeros, "anchor": params}

    def penalty(self, net: Net, state: State) -> Tensor:
        return self.c * quadratic(state.extra["importance"], state.params, state.extra["anchor"])

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any]:
        importance, anchor, path = (new.extra[k] for k in ("importance", "anchor", "path"))
        # the gradient of the loss is the total gradient minus that of the penalty
        moved = {k: new.params[k] - p for k, p in old.params.items() if k in gradient.grads}
        loss = {k: gradient.grads[k] - 2 * self.c * importance[k] * (old.params[k] - anchor[k]) for k in moved}
        return new.extra | {"path": path | {k: path[k] - loss[k] * moved[k] for k in moved}}

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        path, anchor = state.extra["path"], state.extra["anchor"]
        gained = {k: path[k].clamp_min(0) / ((p - anchor[k]).square() + self.xi) for k, p in state.params.items()}
        importance = {k: v + gained[k] for k, v in state.extra["importance"].items()}
        zeros = {k: torch.zeros_like(p) for k, p in path.items()}
        return state._replace(extra={"path": zeros, "importance": importance, "anchor": state.params})
