"""Continual back-propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cl_lib.strategies.bounds import at_least, decay, share
from cl_lib.strategies.recycling import activity, hidden, recycled
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Shape, Spec, State, Tensors


@dataclass(frozen=True)
class ContinualBackprop(Strategy):
    r"""Continual back-propagation (Dohare et al. 2024, "Loss of Plasticity in Deep Continual Learning").

    Each hidden unit has a utility. Periodically, the unit of lowest utility among the mature units is re-initialised,
    with incoming weights drawn from the initial ones and outgoing weights 0:

    .. math::
        u_i \leftarrow \eta\, u_i + (1 - \eta)\, \overline{|h_i|} \sum_k |w_{ki}|, \qquad
        c \leftarrow c + \rho\, n_{\text{mature}}, \quad \text{one unit and } c \leftarrow c - 1 \text{ where } c \ge 1

    with h a unit's activations over the batch, w its outgoing weights, and a separate counter c for each layer.

    Parameters
    ----------
    rate : float, default 1e-4
        ρ, share of the mature units that are re-initialised per step, in [0, 1]; 0 is fine-tuning. May differ by
        replica.
    decay : float, default 0.99
        η in [0, 1). May differ by replica.
    maturity : float, default 100
        Steps after which a re-initialised unit is mature, 0 or more. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: ρ outside [0, 1], η outside [0, 1), a maturity below 0.

    Notes
    -----
    Cost: one more forward pass and a pass over the parameters per step. State: a copy of the network and three numbers
    per unit.

    Differences from the paper: at most one unit per layer is re-initialised in a step; the mean contribution of the old
    unit is not added to the next layer's bias; the optimiser state of a re-initialised unit is kept; only units between
    two linear layers are re-initialised. New weights are drawn, with replacement, from the layer's initial weights.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, ContinualBackprop(), seeds=2, epochs=3)
    >>> record.metrics["learning_accuracy"].mean > 0.8
    True
    """

    rate: float = 1e-4
    decay: float = 0.99
    maturity: float = 100.0

    def check(self, spec: Spec) -> None:
        super().check(spec)
        share(self, "rate")
        decay(self, "decay")
        at_least(self, 0, "maturity")

    def noise(self, spec: Spec) -> dict[str, Shape]:
        return {"key": ()}

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        units = {a: params[f"{a}.weight"].new_zeros(len(params[f"{a}.weight"])) for a, _ in hidden(net.module, params)}
        due = {a: u.new_zeros(()) for a, u in units.items()}
        return {"initial": params, "utility": units, "age": units, "due": due}

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> State:
        pairs, extra, params = hidden(net.module, new.params), new.extra, new.params
        active = activity(net, params, batch, pairs)
        key = (batch.noise["key"][0] * 2**24).long()
        utility, age, due = dict(extra["utility"]), dict(extra["age"]), dict(extra["due"])
        for number, (a, b) in enumerate(pairs):
            contribution = active[a] * params[f"{b}.weight"].abs().sum(0)
            utility[a] = self.decay * utility[a] + (1 - self.decay) * contribution
            age[a] = age[a] + 1
            mature = age[a] > self.maturity
            due[a] = due[a] + self.rate * mature.sum()
            least = torch.where(mature, utility[a], torch.inf).argmin()
            chosen = (torch.arange(len(mature), device=least.device) == least) & mature & (due[a] >= 1)
            params = recycled(params, extra["initial"], (a, b), chosen, key + 1000 * number)
            due[a] = due[a] - chosen.sum()
            utility[a], age[a] = (torch.where(chosen, 0.0, v[a]) for v in (utility, age))
        return new._replace(params=params, extra=extra | {"utility": utility, "age": age, "due": due})
