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
"""Score of a sample while the memory is empty."""


@dataclass(frozen=True)
class GSS(Strategy):
    r"""GSS-greedy (Aljundi et al. 2019, "Gradient based Sample Selection for Online Continual Learning").

    The memory is kept diverse in the directions of its samples' gradients. The score of a new sample i is its largest
    cosine similarity with samples k drawn from memory,

    .. math::
        c_i = 1 + \max_k \frac{g_i^\top g_k}{\lVert g_i \rVert\, \lVert g_k \rVert}

    The sample is admitted if the memory is not full. In a full memory a slot r is drawn with probability
    :math:`c_r / \sum_j c_j`; if :math:`c_i < 1`, the sample replaces it with probability :math:`c_r / (c_r + c_i)`.
    Training is experience replay.

    Parameters
    ----------
    memory : Memory
        Default: 500, 10 recalled per step; ``admission`` must be ``"strategy"``.
    compared : int, default 10
        Number of samples drawn from memory for comparison, 1 or more.

    Raises
    ------
    InputError
        By ``check``: another admission, a capacity or ``compared`` below 1.

    Notes
    -----
    Cost: the step of `ER`, and a forward and backward pass over the new and the compared samples. Inner products of
    gradients are computed from the inputs and errors of linear layers, without materialising the gradients
    (`cl_lib.curvature.gradient_gram`). Gradients of convolutions are materialised, as are all gradients if a network
    has other layers with parameters: ``batch_size + compared`` times the number of parameters, 8 MB in float32 for
    100,000 parameters and 10 + 10 samples. Memory: ``capacity`` samples and a score each; no gradients.

    Differences from the paper: all samples of a batch are compared with the memory before the batch; samples are
    recalled, and drawn for comparison, with replacement.

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
        """Scores :math:`c_i` of a batch, compared with samples from memory, ``(B,)``."""
        new, gram = len(batch.y), gradient_gram(net, state.params, join(batch, held))
        length = gram.diagonal().clamp_min(1e-30).sqrt()
        cosine = gram[:new, new:] / (length[:new, None] * length[new:])
        cosine = torch.where(held.weight > 0, cosine, -1.0)
        return torch.where(held.weight.any(), 1 + cosine.amax(-1), EMPTY)

    def admit(
        self, net: Net, state: State, batch: Batch, gradient: Gradient, offered: Tensor
    ) -> tuple[Tensor, Tensors, dict[str, Any]]:
        score, count, new = state.memory["score"], state.memory["count"], gradient.aux["alike"]
        chance, slots, sink = batch.noise["chance"], [], score.shape[0] - 1
        place = torch.arange(sink + 1, device=score.device)
        for i in range(batch.y.shape[0]):  # sequentially, since each admission changes the memory
            victim = choose(torch.where(place < count, score, 0.0)[:-1], chance[i, 0])
            old = score[victim[None]][0]
            replaces = (new[i] < 1) & (chance[i, 1] * (old + new[i]) < old)
            slot = reservoir_slot(count, sink, replaces, victim)
            slot = torch.where(offered[i] > 0, slot, sink)
            score = torch.where((place == slot) & (slot < sink), new[i], score)
            count = torch.maximum(count, torch.where(slot < sink, slot + 1, 0))
            slots.append(slot)
        return torch.stack(slots), {"score": score}, state.extra
