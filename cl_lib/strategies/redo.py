"""Recycling dormant units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.recycling import activity, hidden, recycled
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Shape, Spec, State, Tensors


@dataclass(frozen=True)
class ReDo(Strategy):
    r"""ReDo (Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning").

    Every ``every`` steps the dormant units of each hidden layer, which have a low activation score s, are
    re-initialised, with incoming weights drawn from the initial ones and outgoing weights 0:

    .. math::
        s_i = \frac{\overline{|h_i|}}{\frac1n \sum_k \overline{|h_k|}} \le \tau

    with h a unit's activations, averaged over the batches since the last re-initialisation.

    Parameters
    ----------
    tau : float, default 0.025
        τ, 0 or more; 0: only units that are never active. May differ by replica.
    every : int, default 100
        Steps between two re-initialisations, 1 or more.

    Raises
    ------
    InputError
        By ``check``: τ below 0, every below 1.

    Notes
    -----
    Cost: one more forward pass and a pass over the parameters per step. State: a copy of the network and a number per
    unit.

    Differences from the paper: scores are averaged over all batches since the last re-initialisation, not over one
    batch; the optimiser state of a re-initialised unit is kept; only units between two linear layers are
    re-initialised. New weights are drawn, with replacement, from the layer's initial weights.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, ReDo(), seeds=2, epochs=3)
    >>> record.metrics["learning_accuracy"].mean > 0.8
    True
    """

    tau: float = 0.025
    every: int = 100

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "tau")
        at_least(self, 1, "every")

    def noise(self, spec: Spec) -> dict[str, Shape]:
        return {"key": ()}

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        units = {a: params[f"{a}.weight"].new_zeros(len(params[f"{a}.weight"])) for a, _ in hidden(net.module, params)}
        return {"initial": params, "answered": units, "steps": next(iter(params.values())).new_zeros(())}

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> State:
        pairs, extra, params = hidden(net.module, new.params), new.extra, new.params
        active = activity(net, params, batch, pairs)
        key = (batch.noise["key"][0] * 2**24).long()
        steps = extra["steps"] + 1
        due = steps >= self.every
        scores = {}
        for number, (a, b) in enumerate(pairs):
            score = extra["answered"][a] + active[a]
            dormant = (score <= self.tau * score.mean()) & due
            params = recycled(params, extra["initial"], (a, b), dormant, key + 1000 * number)
            scores[a] = torch.where(due, 0.0, score)
        steps = torch.where(due, 0.0, steps)
        return new._replace(params=params, extra=extra | {"answered": scores, "steps": steps})
