"""A new network for each experience, trained on all data so far."""

from dataclasses import dataclass

from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Phase, Spec


@dataclass(frozen=True)
class FromScratch(Strategy):
    r"""Re-initialise the network in each experience and train it on all data so far (retraining from scratch).

    .. math:: \theta_e = \arg\min_\theta \sum_{i \in D_1 \cup \dots \cup D_e} -\log p_\theta(y_i \mid x_i),
        \quad \text{from } \theta_0

    Cost: as `Cumulative`; memory: all past data.

    Differences from the paper: none; a reference point. Every network starts from the replica's initial parameters.

    Raises
    ------
    InputError
        Never; the strategy has no parameters.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, FromScratch(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.9
    True
    """

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return (Phase("from scratch", source="so_far", reset=True),)
