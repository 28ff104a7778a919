"""Regularisation towards the initial parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Net, Spec, State, Tensors


@dataclass(frozen=True)
class L2Init(Strategy):
    r"""L2 Init (Kumar et al. 2023, "Maintaining Plasticity in Continual Learning via Regenerative Regularization").

    .. math:: L = \frac{1}{|B|} \sum_B -\log p(y \mid x) + \lambda \lVert \theta - \theta_0 \rVert_2^2

    with :math:`\theta_0` the initial parameters: units that are not used return to their initialisation, where they can
    learn again.

    Parameters
    ----------
    lam : float, default 0.001
        λ, 0 or more; 0 is fine-tuning. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: λ below 0.

    Notes
    -----
    Cost: fine-tuning and one more pass over the parameters per step. State: one copy of the network.

    Differences from the paper: none known.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, L2Init(), seeds=2, epochs=3)
    >>> record.metrics["learning_accuracy"].mean > 0.8
    True
    """

    lam: float = 0.001

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "lam")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        return {"initial": params}

    def penalty(self, net: Net, state: State) -> Tensor:
        initial = state.extra["initial"]
        return self.lam * torch.stack([(p - initial[k]).square().sum() for k, p in state.params.items()]).sum()
