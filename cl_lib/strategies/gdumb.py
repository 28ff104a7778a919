"""Greedy sampler and dumb learner."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Phase, Recalled, Spec, State


@dataclass(frozen=True)
class GDumb(Strategy):
    r"""GDumb (Prabhu et al. 2020, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning").

    During an experience samples are only collected in the memory M, balanced by class. At the end of the experience the
    network is re-initialised and trained on the memory alone:

    .. math:: \theta_e = \arg\min_\theta \frac{1}{|M_e|} \sum_{M_e} -\log p_\theta(y \mid x),
        \quad \text{from } \theta_0

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500; ``batch`` is the batch size of the training.
    passes : int, default 30
        Epochs over the memory, 1 or more.

    Raises
    ------
    InputError
        By ``check``: passes below 1, a capacity below 1, or ring admission, whose fill level is not known in advance.

    Notes
    -----
    Cost: ``passes`` epochs over at most ``capacity`` samples for each experience; memory: ``capacity`` samples. Nothing
    is learnt online, so it is a lower reference for replay strategies.

    Differences from the paper: no cutmix; the learning rate, its schedule and weight decay are the optimiser's (the
    paper: SGD from 0.05 to 0.0005 by a cosine with warm restarts, 128 passes on MNIST); every network starts from the
    replica's initial parameters.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, GDumb(Memory(200, 10, "class_balanced")), seeds=2)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=lambda: Memory(admission="class_balanced"))
    passes: int = 30

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)
        at_least(self, 1, "passes")

    def draws(self) -> tuple[int, ...]:
        return ()

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        fit = Phase("fit", source="memory", epochs=self.passes, batch_size=self.memory.batch, reset=True)
        return Phase("collect", epochs=1, trainable=()), fit

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        if batch.phase == "collect":
            return Gradient({}, torch.zeros_like(batch.weight[0]), {})
        return super().gradient(net, state, batch, recalled)
