"""Shrink and perturb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cl_lib import noise
from cl_lib.strategies.bounds import at_least, share
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import ExperienceData, Net, Spec, State, Tensors


@dataclass(frozen=True)
class ShrinkPerturb(Strategy):
    r"""Shrink and perturb (Ash & Adams 2020, "On Warm-Starting Neural Network Training").

    At the end of an experience the parameters are scaled down, and those of a new, untrained network are added:

    .. math:: \theta \leftarrow \lambda\,\theta + \sigma\,\theta_{\text{new}}

    which preserves the direction of the learnt parameters and restores the network's ability to learn.

    Parameters
    ----------
    shrink : float, default 0.8
        λ in [0, 1]; 1 with ``perturb=0`` is fine-tuning. May differ by replica.
    perturb : float, default 0.1
        σ, 0 or more. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: λ outside [0, 1], σ below 0.

    Notes
    -----
    Cost: one pass over the parameters after an experience. State: one copy of the network.

    Differences from the paper: the entries of each tensor of the new network are drawn, with replacement, from the
    entries of this tensor in the replica's initial network, so that any initialisation is reproduced. Accuracy is
    measured after the perturbation.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, ShrinkPerturb(), seeds=2, epochs=3)
    >>> record.metrics["learning_accuracy"].mean > 0.8
    True
    """

    shrink: float = 0.8
    perturb: float = 0.1

    def check(self, spec: Spec) -> None:
        super().check(spec)
        share(self, "shrink")
        at_least(self, 0, "perturb")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        return {"initial": params}

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        params = {}
        for number, (k, p) in enumerate(state.params.items()):
            initial = state.extra["initial"][k].flatten()
            drawn = noise.uniform(data.key + number, (p.numel(),), torch.float32) * p.numel()
            fresh = initial[drawn.long().clamp_max(p.numel() - 1)].view_as(p)
            params[k] = self.shrink * p + self.perturb * fresh
        return state._replace(params=params)
