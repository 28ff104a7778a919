"""Functional regularisation of a memorable past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cl_lib.curvature.fisher import diagonal_fisher
from cl_lib.curvature.kernel import kernels
from cl_lib.errors import InputError
from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Net, NetOutput, Spec, State, Tensors

CHUNK = 500


@dataclass(frozen=True)
class FROMP(Strategy):
    r"""FROMP (Pan et al. 2020, "Continual Deep Learning by Functional Regularisation of Memorable Past").

    Of each experience s some memorable samples are kept, those with the least certain predictions. The predicted
    probabilities :math:`p_{s,c}` of these samples are regularised towards their values at the end of the last
    experience, for each class c by a Gaussian process whose kernel comes from a Laplace approximation of the weights:

    .. math::
        L = \text{CE} + \frac{\tau}{2 N} \sum_s \sum_c (p_{s,c} - p^*_{s,c})^\top K_{s,c}^{-1} (p_{s,c} - p^*_{s,c}),
        \qquad K_{s,c} = J_{s,c} \, \mathrm{diag}(D + \delta)^{-1} J_{s,c}^\top + \epsilon I

    with J the gradients of p* with respect to the weights, D the sum of the diagonal Fisher information over all
    training samples so far and N their number in the last experience.

    Parameters
    ----------
    points : int, default 200
        Number of memorable samples for the whole stream, at least one for each experience; ``points // experiences`` of
        each.
    tau : float, default 1
        τ, 0 or more; 0 is fine-tuning. May differ by replica.
    prior : float, default 1
        δ above 0, the prior precision of the weights. May differ by replica.
    jitter : float, default 0.1
        ε above 0: where the network is certain K is nearly 0, and its inverse would be unbounded. The smaller ε, the
        stiffer the penalty; plain gradient descent then needs a smaller τ or learning rate. May differ by replica.
    samples : int, default 1000
        Maximum number of training samples of the experience that the Fisher information is computed on.

    Raises
    ------
    InputError
        By ``check``: fewer points than experiences, τ below 0, δ or ε not above 0, samples below 1.

    Notes
    -----
    Cost: a forward and backward pass over all ``points`` per step; after an experience one forward pass over it, its
    Fisher information and ``points * classes`` gradients. State, independent of the length of the data: ``points``
    samples in the run's dtype with C probabilities each, C kernels of ``points // experiences`` squared numbers for
    each experience, and one copy of the network (1.0 MB for 200 images of 28 × 28, 10 classes and 5 experiences,
    without that copy).

    Differences from the paper: gradients of the whole network from automatic differentiation; uncertainty is the trace
    of the softmax's Hessian :math:`\sum_c p_c (1 - p_c)`, and samples are selected from the whole experience instead of
    class by class; all memorable samples are used in every step; the Fisher information replaces the online
    Gauss-Newton estimate of their optimiser.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), scenario="task")
    >>> record = cl_lib.run(stream, FROMP(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    points: int = 200
    tau: float = 1.0
    prior: float = 1.0
    jitter: float = 0.1
    samples: int = 1000

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 1, "samples")
        at_least(self, 0, "tau")
        above(self, 0, "prior", "jitter")
        if self.points < spec.experiences:
            raise InputError(
                f"strategy.points={self.points!r}: must be {spec.experiences} or more, one for each experience"
            )

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like, per_experience = next(iter(params.values())), self.points // spec.experiences
        kept = spec.experiences * per_experience
        return {
            "x": like.new_zeros(kept, *spec.shape),
            "task": torch.zeros(kept, dtype=torch.long, device=like.device),
            "real": like.new_zeros(kept),
            "probabilities": like.new_zeros(kept, spec.classes),
            "inverse": like.new_zeros(spec.experiences, spec.classes, per_experience, per_experience),
            "precision": {k: torch.zeros_like(p) for k, p in params.items()},
            "size": like.new_ones(()),
        }

    def penalty(self, net: Net, state: State) -> Tensor:
        extra = state.extra
        moved = answers(net, state.params, extra["x"], extra["task"]) - extra["probabilities"]
        away = moved.unflatten(0, (extra["inverse"].shape[0], -1)).mT  # (experiences, classes, points of each)
        distance = (away[..., None, :] @ extra["inverse"] @ away[..., None]).sum()
        return self.tau / (2 * extra["size"]) * distance

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        extra, params = dict(state.extra), state.params
        experiences, _, per_experience, _ = extra["inverse"].shape
        fisher = diagonal_fisher(net, params, data, samples=self.samples)
        extra["precision"] = {k: d + len(data) * fisher[k] for k, d in extra["precision"].items()}
        extra["size"] = torch.full_like(extra["size"], len(data))
        x, task = self.memorable(net, params, data, per_experience)
        place = slice(data.number * per_experience, data.number * per_experience + len(task))
        for name, value in (("x", x), ("task", task), ("real", torch.ones_like(x.flatten(1)[:, 0]))):
            extra[name] = extra[name].clone()
            extra[name][place] = value
        extra["probabilities"] = answers(net, params, extra["x"], extra["task"])
        spread = {k: (d + self.prior).rsqrt() for k, d in extra["precision"].items()}
        blocks, jitter = [], self.jitter * torch.eye(per_experience, dtype=x.dtype, device=x.device)
        for s in range(experiences):
            part = slice(s * per_experience, (s + 1) * per_experience)
            kept, task, real = (extra[name][part] for name in ("x", "task", "real"))
            points = Batch(kept, torch.zeros_like(task), real, task)  # labels are not used
            kernel = kernels(net, params, points, probabilities, spread) + jitter
            # slots without a sample (the experience had too few) must not contribute
            pairs = real[:, None] * real
            blocks.append(pairs * torch.linalg.inv(pairs * kernel + torch.diag(1 - real)))
        return state._replace(extra=extra | {"inverse": torch.stack(blocks)})

    def memorable(self, net: Net, params: Tensors, data: ExperienceData, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and tasks of the ``count`` samples of an experience with the least certain predictions."""
        parts = [data.read(part) for part in data.batches(CHUNK)]
        p = torch.cat([answers(net, params, part.x, part.task) for part in parts])
        chosen = (p * (1 - p)).sum(-1).topk(min(count, len(p))).indices
        x, _ = data.gather(data.index[chosen], data.task[chosen])
        return x, data.task[chosen]


def answers(net: Net, params: Tensors, x: Tensor, task: Tensor) -> Tensor:
    """Probabilities ``(B, C)`` over the classes that may be predicted."""
    return probabilities(net(params, x, task, train=False))


def probabilities(out: NetOutput) -> Tensor:
    return torch.softmax(out.logits, -1)
