"""Experience replay with asymmetric cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.losses import cross_entropy
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Net, Recalled, State, Tensors


@dataclass(frozen=True)
class ERACE(Strategy):
    r"""ER-ACE (Caccia et al. 2022, "New Insights on Reducing Abrupt Representation Change in Online CL").

    For new samples the softmax covers only the classes C(B) present in the batch B, so that they do not decrease the
    logits of old classes; for recalled samples M it covers all classes:

    .. math::
        L = \frac{1}{|B|} \sum_B -\log \frac{e^{f_y(x)}}{\sum_{c \in C(B)} e^{f_c(x)}}
        + \frac{1}{|M|} \sum_M -\log \frac{e^{f_y(x)}}{\sum_c e^{f_c(x)}}

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 10 recalled per step.

    Raises
    ------
    InputError
        By ``check``, for an invalid memory.

    Notes
    -----
    Cost: two passes per step, over ``batch_size`` and ``memory.batch`` samples; memory: ``capacity`` samples.

    Differences from the paper: the classes in the softmax of recalled samples are the stream's ``train_classes``; the
    authors' code also includes classes that have not been seen in the softmax of new samples, the paper's equation does
    not.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, ERACE(Memory(capacity=200)), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=Memory)

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        (old,) = recalled
        logits = net(state.params, batch.x, batch.task).logits
        classes = torch.arange(logits.shape[-1], device=logits.device)
        present = ((batch.y[:, None] == classes) & (batch.weight > 0)[:, None]).any(0)
        new = cross_entropy(torch.where(present, logits, -1e9), batch.y, batch.weight)
        return new + cross_entropy(net(state.params, old.x, old.task).logits, old.y, old.weight), {}
