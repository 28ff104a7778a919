"""Replay, with predictions by a modern Hopfield network over the memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.episodic import FAR, AnswersFromMemory, votes
from cl_lib.types import NetOutput, Spec, Tensors


@dataclass(frozen=True)
class Hopfield(AnswersFromMemory):
    r"""Modern Hopfield read-out (Ramsauer et al. 2021, "Hopfield Networks is All You Need").

    Trained as experience replay. The normalised features of the memory are the stored patterns K; the features of a
    test sample are the initial state ξ, which is updated before the prediction:

    .. math::
        \xi \leftarrow K^\top \mathrm{softmax}(\beta K \xi), \qquad
        p(c \mid x) = \sum_j [y_j = c]\ \mathrm{softmax}(\beta K \xi)_j

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500, 10 recalled per step.
    beta : float, default 10
        Inverse temperature above 0. May differ by replica.
    updates : int, default 1
        Number of updates of the state, 0 or more; 0: attention over the memory.

    Raises
    ------
    InputError
        By ``check``: β not above 0, updates below 0, a capacity below 1.

    Notes
    -----
    Cost: the step of `ER`; before an evaluation the features of the memory, and for a test sample ``2 updates + 1``
    products with all of them. Memory: ``capacity`` samples.

    Differences from the paper: patterns are features of a network trained by replay, there are no learnt projections;
    no class has a probability below 1e-6. With an empty memory predictions are the network's logits.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, Hopfield(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    beta: float = 10.0
    updates: int = 1

    def check(self, spec: Spec) -> None:
        super().check(spec)
        above(self, 0, "beta")
        at_least(self, 0, "updates")

    def answer(self, out: NetOutput, readout: Tensors) -> Tensor:
        patterns, valid = readout["keys"], readout["valid"] > 0

        def attention(xi: Tensor) -> Tensor:
            return torch.softmax(torch.where(valid, self.beta * (xi @ patterns.mT), FAR), -1)

        xi = normalize(out.features, dim=-1)
        for _ in range(self.updates):
            xi = attention(xi) @ patterns
        weight = attention(xi)
        label = readout["label"].expand(weight.shape)
        return votes(weight, label, out.raw.shape[-1])
