"""Replay, answered by the nearest neighbours in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl_lib.errors import InputError
from cl_lib.memory.store import Contents, Memory
from cl_lib.strategies.episodic import FAR, remembered, votes
from cl_lib.strategies.losses import cross_entropy
from cl_lib.strategies.strategy import Net, Strategy
from cl_lib.types import Batch, Recalled, Spec, State, Tensors, join


@dataclass(frozen=True)
class KNN(Strategy):
    r"""k nearest neighbours in an episodic memory (Khandelwal et al. 2020, "Generalization through Memorization").

    Trained as experience replay; a test sample is answered by the k samples in memory whose features are most alike,

    .. math::
        p(c \mid x) \propto \sum_{j \in N_k(x)} [y_j = c]\, \exp\big(\cos(z(x), z(x_j)) / T\big)

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500, 10 recalled a step.
    k : int, default 10
        Neighbours that vote, 1 or more; all of the memory where it holds fewer.
    temperature : float, default 0.1
        T above 0. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: k below 1, a capacity below 1, a temperature that is not above 0.

    Notes
    -----
    Cost: the step of `ER`; before an evaluation the features of the memory, and for a test sample one product with all
    of them (exact, on the device). Memory: ``capacity`` samples.

    Differences from the paper: a classifier, not a language model; the neighbours' vote is not mixed with the network's
    own answer; no class has a probability below 1e-6. With an empty memory the network answers itself.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, KNN(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=lambda: Memory(admission="class_balanced"))
    k: int = 10
    temperature: float = 0.1

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)
        if self.k < 1:
            raise InputError(f"strategy.k={self.k!r}: must be 1 or more")
        if not self.temperature > 0:
            raise InputError(f"strategy.temperature={self.temperature!r}: must be above 0")

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        both = join(batch, recalled[0])
        return cross_entropy(net(state.params, both.x, both.task).logits, both.y, both.weight), {}

    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        found = remembered(net, state, memory)
        return found | {"features": normalize(found["features"], dim=-1)}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        out = net(state.params, x, task, train=False)
        alike = normalize(out.features, dim=-1) @ readout["features"].mT
        near = torch.where(readout["valid"] > 0, alike, FAR).topk(min(self.k, alike.shape[1]))
        label = readout["label"][near.indices]
        weight = torch.softmax(near.values / self.temperature, -1)
        return torch.where(readout["valid"].any(), votes(weight, label, out.raw.shape[-1]), out.raw)
