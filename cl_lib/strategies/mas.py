"""Memory aware synapses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature import output_sensitivity, quadratic
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import ExperienceData, Net, Spec, State, Tensors


@dataclass(frozen=True)
class MAS(Strategy):
    r"""MAS (Aljundi et al. 2018, "Memory Aware Synapses: Learning What (not) to Forget").

    At the end of an experience the sensitivity of the output to each parameter is added to its importance Ω:

    .. math::
        \Omega_k \leftarrow \Omega_k + \frac1N \sum_i
        \left| \frac{\partial \lVert f_\theta(x_i) \rVert_2^2}{\partial \theta_k} \right|, \qquad
        L = \text{CE} + \lambda \sum_k \Omega_k (\theta_k - \theta^*_k)^2

    with θ* the parameters at the end of the last experience.

    Parameters
    ----------
    lam : float, default 0.01
        λ, 0 or more; 0 is fine-tuning. May differ by replica. Plain gradient descent needs ``2 * lr * lam * Ω_k < 2``
        for every parameter, or the penalty makes it diverge.
    samples : int, default 1000
        Maximum number of training samples of the experience that Ω is computed on.

    Raises
    ------
    InputError
        By ``check``: λ below 0, samples below 1.

    Notes
    -----
    Cost: fine-tuning and one more pass over the parameters per step; after an experience ``samples`` forward and
    backward passes. State: two copies of the network.

    Differences from the paper: Ω is summed over experiences, as in the authors' code; labels are not needed, but Ω is
    computed on the experience's training samples, not on samples at test time.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), scenario="task")
    >>> record = cl_lib.run(stream, MAS(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    lam: float = 0.01
    samples: int = 1000

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "lam")
        at_least(self, 1, "samples")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        return {"importance": {k: torch.zeros_like(p) for k, p in params.items()}, "anchor": params}

    def penalty(self, net: Net, state: State) -> Tensor:
        return self.lam * quadratic(state.extra["importance"], state.params, state.extra["anchor"])

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        gained = output_sensitivity(net, state.params, data, samples=self.samples)
        importance = {k: v + gained[k] for k, v in state.extra["importance"].items()}
        return state._replace(extra={"importance": importance, "anchor": state.params})
