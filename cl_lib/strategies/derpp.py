"""Dark experience replay, with labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.losses import cross_entropy, weighted_mean
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, KeptSpec, Net, Recalled, Shape, Spec, State, Tensors


@dataclass(frozen=True)
class DERpp(Strategy):
    r"""DER++ (Buzzega et al. 2020, "Dark Experience for General Continual Learning").

    The memory stores with each sample the logits z that the network output when the sample was new. With the new batch
    B and two independent draws M, M' from the memory,

    .. math::
        L = \frac{1}{|B|} \sum_B -\log p(y \mid x) + \frac{\alpha}{|M'|\,C} \sum_{M'} \lVert z - f_\theta(x) \rVert_2^2
        + \frac{\beta}{|M|} \sum_M -\log p(y \mid x)

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500; ``batch`` samples in each of the two draws.
    alpha : float, default 0.5
        Weight of the logits; 0 or more. May differ by replica.
    beta : float, default 0.5
        Weight of the labels; 0 or more. With ``alpha=0`` this is `ER` with ``combine="sum"`` and this beta.

    Raises
    ------
    InputError
        By ``check``: a weight below 0, an invalid memory.

    Notes
    -----
    Cost: three forward and backward passes per step, over ``batch_size``, ``memory.batch`` and ``memory.batch``
    samples; memory: ``capacity`` samples with C logits each.

    Differences from the paper: no augmentation of recalled samples (the streams here have none); logits are kept
    before the class mask, so that a mask which grows with the seen classes does not enter the squared error.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, DERpp(Memory(capacity=200)), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=Memory)
    alpha: float = 0.5
    beta: float = 0.5

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "alpha", "beta")

    def draws(self) -> tuple[int, ...]:
        return self.memory.batch, self.memory.batch

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        return {"logits": (spec.classes,)}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        labelled, dark = recalled
        out = net(state.params, batch.x, batch.task)
        new = cross_entropy(out.logits, batch.y, batch.weight)
        error = (net(state.params, dark.x, dark.task).raw - dark.kept["logits"]).square().mean(-1)
        past = cross_entropy(net(state.params, labelled.x, labelled.task).logits, labelled.y, labelled.weight)
        return new + self.alpha * weighted_mean(error, dark.weight) + self.beta * past, {"logits": out.raw}
