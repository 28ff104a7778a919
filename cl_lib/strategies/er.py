"""Experience replay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least, one_of
from cl_lib.strategies.losses import cross_entropy, replayed
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Net, Recalled, Spec, State, Tensors


@dataclass(frozen=True)
class ER(Strategy):
    r"""Experience replay (Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning"; Ratcliff 1990).

    With the new batch B and the recalled batch M,

    .. math::
        \text{concat:}\quad L = \frac{1}{|B \cup M|} \sum_{i \in B \cup M} -\log p(y_i \mid x_i) \qquad
        \text{sum:}\quad L = \frac{1}{|B|} \sum_{i \in B} -\log p(y_i \mid x_i)
        + \frac{\beta}{|M|} \sum_{i \in M} -\log p(y_i \mid x_i)

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 10 recalled per step.
    combine : {"concat", "sum"}, default "concat"
        One mean over new and recalled samples, or the sum of two means.
    beta : float, default 1
        Weight of the recalled samples' mean with ``combine="sum"``.

    Raises
    ------
    InputError
        By ``check``: unknown ``combine``, capacity below 0, batch below 1.

    Notes
    -----
    Cost: one pass over ``batch_size + memory.batch`` samples per step; memory: ``capacity`` samples.

    Differences from the paper: a batch is offered to the memory right after the step that used it, in the first epoch
    of an experience only; the paper has one epoch.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, ER(Memory(capacity=200)), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=Memory)
    combine: Literal["concat", "sum"] = "concat"
    beta: float = 1.0

    def check(self, spec: Spec) -> None:
        super().check(spec)
        one_of(self, ("concat", "sum"), "combine")
        at_least(self, 0, "beta")

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        (old,) = recalled
        if self.combine == "concat":
            return replayed(net, state.params, batch, old), {}
        new = cross_entropy(net(state.params, batch.x, batch.task).logits, batch.y, batch.weight)
        past = cross_entropy(net(state.params, old.x, old.task).logits, old.y, old.weight)
        return new + self.beta * past, {}
