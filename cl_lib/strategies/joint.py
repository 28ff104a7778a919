"""Joint training: the upper bound."""

from dataclasses import dataclass

from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Phase, Spec


@dataclass(frozen=True)
class Joint(Strategy):
    r"""Train on all data of the stream at once, shuffled (offline training).

    .. math:: L = \frac{1}{\sum_i w_i} \sum_{i \in \cup_e D_e} w_i\,(-\log p_\theta(y_i \mid x_i))

    The network is trained in the first experience, with the run's epochs over the union, and not afterwards. All rows
    of the accuracy matrix but the first are therefore equal, forgetting and BWT are 0, and FWT is null.

    Cost: as fine-tuning over the same number of samples; no memory, but access to all data at once.

    Differences from the paper: none; the baseline is also called "offline" or "multi-task".

    Raises
    ------
    InputError
        Never; the strategy has no parameters.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, Joint(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.9
    True
    """

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return (Phase("joint", source="full"),) if experience == 0 else ()
