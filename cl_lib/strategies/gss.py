"""Gradient-based sample selection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl_lib.curvature.gram import gradient_gram
from cl_lib.memory.eviction import reservoir_slot
from cl_lib.memory.store import Memory
from cl_lib.noise import choose
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.losses import replayed
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, KeptSpec, Net, Recalled, Shape, Spec, State, Tensors, join

EMPTY = 0.1
"""Score of a sample that there is nothing to compare with."""


@dataclass(frozen=True)
class GSS(Strategy):
    r"""GSS-greedy (Aljundi et al. 2019, "Gradient based Sample Selection for Online Continual Learning").

    The memory is kept diverse in the directions of its samples' gradients. A new sample i scores by the most alike of
    some samples k drawn from memory,

    .. math::
        c_i = 1 + \max_k \frac{g_i^\top g_k}{\lVert g_i \rVert\, \lVert g_k \rVert}

    A memory with room takes it. From a full one a slot r is drawn with probability :math:`c_r / \sum_j c_j`; the sample
    takes it, where :math:`c_i < 1`, with probability :math:`c_r / (c_r + c_i)`. Training is experience replay.

    Parameters
    ----------
    memory : Memory
        Default: 500, 10 recalled a step; ``admission`` must be ``"strategy"``.
    compared : int, default 10
        Samples drawn from memory to compare with, 1 or more.

    Raises
    ------
    InputError
        By ``check``: another admission, a capacity or ``compared`` below 1.

    Notes
    -----
    Cost: the step of `ER`, and a forward and backward pass over the new and the compared samples, whose gradients are
    compared by what enters and leaves each linear layer and not made (`cl_lib.curvature.gradient_gram`). Those of a
    convolution are made, and all of them where a network has other layers with parameters: ``batch_size + compared``
    times so many numbers, 8 MB in float32 for 100,000 parameters and 10 + 10. Memory: ``capacity`` samples and a score
    each; no gradient.

    Differences from the paper: a batch's samples are all compared with the memory as it was before the batch; samples
    are recalled, and drawn to compare with, with replacement.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, GSS(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.6
    True
    """

    fills_memory: ClassVar[bool] = True
    memory: Memory = field(default_factory=lambda: Memory(admission="strategy"))
    compared: int = 10

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)
        at_least(self, 1, "compared")

    def draws(self) -> tuple[int, ...]:
        return self.memory.batch, self.compared

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        return {"score": ()}

    def noise(self, spec: Spec) -> dict[str, Shape]:
        return {"chance": (2,)}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        return replayed(net, state.params, batch, recalled[0]), {}

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        new = super().gradient(net, state, batch, recalled)
        return new._replace(aux={"alike": self.alike(net, state, batch, recalled[1])})

    def alike(self, net: Net, state: State, batch: Batch, held: Recalled) -> Tensor:
        """The scores :math:`c_i` of a batch beside samples from memory, ``(B,)``."""
        new, gram = len(batch.y), gradient_gram(net, state.params, join(batch, held))
        length = gram.diagonal().clamp_min(1e-30).sqrt()
        cosine = gram[:new, new:] / (length[:new, None] * length[new:])
        cosine = torch.where(held.weight > 0, cosine, -1.0)
        return torch.where(held.weight.any(), 1 + cosine.amax(-1), EMPTY)

    def admit(
        self, net: Net, state: State, batch: Batch, gradient: Gradient, offered: Tensor
    ) -> tuple[Tensor, Tensors, dict[str, Any]]:
        score, count, alike = state.memory["score"], state.memory["count"], gradient.aux["alike"]
        chance, slots, sink = batch.noise["chance"], [], score.shape[0] - 1
        place = torch.arange(sink + 1, device=score.device)
        for i in range(batch.y.shape[0]):  # one after the other: each changes what the next one finds
            victim = choose(torch.where(place < count, score, 0.0)[:-1], chance[i, 0])
            theirs = score[victim[None]][0]
            taken = (alike[i] < 1) & (chance[i, 1] * (theirs + alike[i]) < theirs)
            slot = reservoir_slot(count, sink, taken, victim)
            slot = torch.where(offered[i] > 0, slot, sink)
            score = torch.where((place == slot) & (slot < sink), alike[i], score)
            count = torch.maximum(count, torch.where(slot < sink, slot + 1, 0))
            slots.append(slot)
        return torch.stack(slots), {"score": score}, state.extra
