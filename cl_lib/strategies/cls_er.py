"""CLS-ER: replay with a fast and a slow moving average of the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least, share
from cl_lib.strategies.losses import cross_entropy, weighted_mean
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Recalled, Shape, Spec, State, Tensors, join


@dataclass(frozen=True)
class CLSER(Strategy):
    r"""CLS-ER (Arani et al. 2022, "Learning Fast, Learning Slow").

    Two moving averages of the trained network θ are kept: a plastic one P that changes fast and a stable one S that
    changes slowly. After each step each of them is updated with probability r:

    .. math::
        L = \frac{1}{|B \cup M|} \sum_{B \cup M} -\log p_\theta(y \mid x)
        + \frac{\lambda}{|M|\,C} \sum_M \lVert f_\theta(x) - f_{a(x)}(x) \rVert_2^2, \qquad
        \theta_a \leftarrow \alpha_a \theta_a + (1 - \alpha_a)\,\theta

    where a(x) is the average that gives the label of x the higher probability, and :math:`\alpha_a` is at most
    :math:`1 - 1 / (t + 1)` after t steps. Predictions are those of the stable average.

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 10 recalled per step.
    lam : float, default 0.15
        λ, 0 or more. May differ by replica.
    alpha_plastic, alpha_stable : float, default 0.999
        In [0, 1]. May differ by replica.
    rate_plastic, rate_stable : float, default 0.9 and 0.7
        Probabilities r in [0, 1]. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: λ below 0, an α or r outside [0, 1], an invalid memory.

    Notes
    -----
    Cost: the step of `ER`, two more forward passes over ``memory.batch`` samples and two passes over the parameters.
    State: two copies of the network; memory: ``capacity`` samples.

    Differences from the paper: no augmentation; the random updates of the averages are drawn from the plan.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, CLSER(alpha_plastic=0.9, alpha_stable=0.95), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=Memory)
    lam: float = 0.15
    alpha_plastic: float = 0.999
    alpha_stable: float = 0.999
    rate_plastic: float = 0.9
    rate_stable: float = 0.7

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "lam")
        share(self, "alpha_plastic", "alpha_stable", "rate_plastic", "rate_stable")

    def noise(self, spec: Spec) -> dict[str, Shape]:
        return {"chance": (2,)}

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        steps = next(iter(params.values())).new_zeros(())
        return {"plastic": params, "stable": params, "buffers": net.buffers, "steps": steps}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        (old,) = recalled
        both, extra = join(batch, old), state.extra
        out = net(state.params, both.x, both.task)
        teachers = [
            net(extra[name], old.x, old.task, train=False, buffers=extra["buffers"]).raw
            for name in ("plastic", "stable")
        ]
        plastic, stable = (torch.log_softmax(t, -1).gather(-1, old.y[:, None]) for t in teachers)
        target = torch.where(plastic > stable, teachers[0], teachers[1])
        error = (out.raw[batch.y.shape[0] :] - target).square().mean(-1)
        loss = cross_entropy(out.logits, both.y, both.weight)
        return loss + self.lam * weighted_mean(error, old.weight), {}

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any]:
        extra, chance = new.extra, batch.noise["chance"][0]  # one draw per step: that of its first sample
        steps = extra["steps"] + 1
        moved: dict[str, Any] = {}
        settings = (self.alpha_plastic, self.rate_plastic), (self.alpha_stable, self.rate_stable)
        for name, (alpha, rate), drawn in zip(("plastic", "stable"), settings, chance.unbind(0), strict=True):
            keep = torch.minimum(1 - 1 / (steps + 1), torch.ones_like(steps) * alpha)
            keep = torch.where(drawn < rate, keep, 1.0)
            moved[name] = {k: keep * v + (1 - keep) * new.params[k] for k, v in extra[name].items()}
        return extra | moved | {"steps": steps, "buffers": new.buffers}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        return net(state.extra["stable"], x, task, train=False, buffers=state.extra["buffers"]).raw
