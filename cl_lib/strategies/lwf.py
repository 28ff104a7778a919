"""Learning without forgetting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cl_lib.strategies.bounds import above, at_least, one_of
from cl_lib.strategies.losses import cross_entropy, weighted_mean
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Net, Recalled, Spec, State, Tensors


@dataclass(frozen=True)
class LwF(Strategy):
    r"""LwF (Li & Hoiem 2016, "Learning without Forgetting").

    The predictions for old classes are distilled on the new data from the network of the end of the last experience,
    with a softmax over each group O of old classes:

    .. math::
        L = \text{CE}
        + \alpha\,T^2\,\frac{1}{|B|} \sum_B \sum_O \mathrm{KL}\big(q_{T}(\cdot \mid x)\,\|\,p_{T}(\cdot \mid x)\big),
        \qquad p_T = \mathrm{softmax}_O(f / T)

    Parameters
    ----------
    alpha : float, default 1
        Weight of distillation, 0 or more; 0 is fine-tuning. May differ by replica.
    temperature : float, default 2
        T above 0. May differ by replica.
    heads : {"single", "multi"}, default "single"
        One group of all old classes, or one group for the classes of each earlier experience, as with a separate head
        for each. In domain-incremental streams all groups of ``"multi"`` are the same, so that ``alpha`` is multiplied
        by their number.

    Raises
    ------
    InputError
        By ``check``: α below 0, a temperature that is not above 0, unknown heads.

    Notes
    -----
    Cost: one more forward pass per step; state: one copy of the network.

    Differences from the paper: by default one softmax over all old classes, where the paper has one for each old task's
    head (``heads="multi"``); the KL divergence instead of the cross-entropy (the same gradient); no warm-up of the new
    head.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits(), scenario="task")
    >>> record = cl_lib.run(stream, LwF(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    alpha: float = 1.0
    temperature: float = 2.0
    heads: Literal["single", "multi"] = "single"

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "alpha")
        above(self, 0, "temperature")
        one_of(self, ("single", "multi"), "heads")

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        first = next(iter(params.values()))
        groups = 1 if self.heads == "single" else spec.experiences
        old = torch.zeros(groups, spec.classes, dtype=torch.bool, device=first.device)
        return {"teacher": params, "buffers": net.buffers, "old": old}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        out = net(state.params, batch.x, batch.task)
        extra = state.extra
        teacher = net(extra["teacher"], batch.x, batch.task, train=False, buffers=extra["buffers"]).raw
        log_q, log_p = (
            torch.log_softmax(torch.where(extra["old"], logits[:, None] / self.temperature, -1e9), -1)
            for logits in (teacher, out.raw)
        )
        # for a group without classes (before the end of its experience) both are uniform and the divergence is 0
        divergence = (torch.softmax(log_q, -1) * (log_q - log_p)).sum((-2, -1))
        loss = cross_entropy(out.logits, batch.y, batch.weight)
        return loss + self.alpha * self.temperature**2 * weighted_mean(divergence, batch.weight), {}

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        old = data.seen[None]
        if self.heads == "multi":
            newest = torch.arange(len(state.extra["old"]), device=old.device) == data.number
            old = torch.where(newest[:, None], data.classes, state.extra["old"])
        return state._replace(extra={"teacher": state.params, "buffers": net.buffers, "old": old})
