"""Dark experience replay."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.losses import cross_entropy, weighted_mean
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, KeptSpec, Net, Recalled, Shape, Spec, State, Tensors


@dataclass(frozen=True)
class DER(Strategy):
    r"""DER (Buzzega et al. 2020, "Dark Experience for General Continual Learning").

    The memory stores with each sample the logits z that the network output when the sample was new. For recalled
    samples M the network is trained to reproduce them; their labels are not used:

    .. math::
        L = \frac{1}{|B|} \sum_B -\log p(y \mid x) + \frac{\alpha}{|M|\,C} \sum_M \lVert z - f_\theta(x) \rVert_2^2

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 10 recalled per step.
    alpha : float, default 0.5
        Weight of the logits, 0 or more; 0 is fine-tuning. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: a negative or non-finite weight, an invalid memory.

    Notes
    -----
    Cost: two passes per step, over ``batch_size`` and ``memory.batch`` samples; memory: ``capacity`` samples with C
    logits each.

    Differences from the paper: no augmentation of recalled samples (the streams here have none); logits are kept
    before the class mask, so that a mask which grows with the seen classes does not enter the squared error.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, DER(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=Memory)
    alpha: float = 0.5

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "alpha")

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        return {"logits": (spec.classes,)}

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        (dark,) = recalled
        out = net(state.params, batch.x, batch.task)
        error = (net(state.params, dark.x, dark.task).raw - dark.kept["logits"]).square().mean(-1)
        new = cross_entropy(out.logits, batch.y, batch.weight)
        return new + self.alpha * weighted_mean(error, dark.weight), {"logits": out.raw}
