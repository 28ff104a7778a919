"""The network frozen after the first experience: no forgetting, no learning."""

from dataclasses import dataclass

from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Phase, Spec


@dataclass(frozen=True)
class Frozen(Strategy):
    r"""Train on the first experience only: stability without plasticity.

    .. math:: \theta_e = \theta_1 \quad \text{for } e \ge 1

    Cost: fine-tuning on one experience; no memory.

    Differences from the paper: none; a reference point.

    Raises
    ------
    InputError
        Never; the strategy has no parameters.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, Frozen(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean < 0.3
    True
    """

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return (Phase(),) if experience == 0 else ()
