"""Cumulative training on all data so far."""

from dataclasses import dataclass

from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Phase, Spec


@dataclass(frozen=True)
class Cumulative(Strategy):
    r"""Continue training in each experience on all data so far, shuffled (unlimited replay).

    .. math:: L = \frac{1}{\sum_i w_i} \sum_{i \in D_1 \cup \dots \cup D_e} w_i\,(-\log p_\theta(y_i \mid x_i))

    Cost: grows with the number of experiences, in total :math:`\sum_e e` times an experience's samples; memory: all
    past data.

    Differences from the paper: none; there is no paper, Avalanche and other libraries use this name.

    Raises
    ------
    InputError
        Never; the strategy has no parameters.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, Cumulative(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.9
    True
    """

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return (Phase("cumulative", source="so_far"),)
