"""Fine-tuning: the lower bound."""

from dataclasses import dataclass

from cl_lib.strategies.strategy import Strategy


@dataclass(frozen=True)
class Finetune(Strategy):
    r"""Train on each experience in turn, without any measure against forgetting.

    .. math:: L = \frac{1}{\sum_i w_i} \sum_i w_i\,(-\log p_\theta(y_i \mid x_i))

    Cost: one forward and backward pass per step; no memory.

    Differences from the paper: none; there is no paper, the baseline is also called "SGD" or "naive".

    Raises
    ------
    InputError
        Never; the strategy has no parameters.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, Finetune(), seeds=2)
    >>> record.metrics["accuracy"].mean < 0.3
    True
    """
