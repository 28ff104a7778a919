"""Averaged gradient episodic memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cl_lib.curvature import inner
from cl_lib.memory.store import Memory
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.losses import cross_entropy
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Recalled, State, Tensors


@dataclass(frozen=True)
class AGEM(Strategy):
    r"""A-GEM (Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM").

    With g the gradient on the new batch and r the gradient on samples recalled from memory, the step follows

    .. math:: \tilde g = g - \frac{\min(g^\top r, 0)}{r^\top r}\, r

    so that :math:`\tilde g^\top r \ge 0`: to first order the loss on the memory does not increase.

    Parameters
    ----------
    memory : Memory
        Default: ring of 500 with 64 recalled per step for the reference gradient. With an empty memory the gradient is
        not projected.

    Raises
    ------
    InputError
        By ``check``, for an invalid memory.

    Notes
    -----
    Cost: two forward and backward passes per step and two inner products; memory: ``capacity`` samples.

    Differences from the paper: the reference batch is 64 by default (the paper has 256); the classes in the softmax are
    the stream's ``train_classes`` (the paper: task-incremental).

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    >>> record = cl_lib.run(stream, AGEM(), seeds=2)
    >>> record.metrics["accuracy"].mean > 0.5
    True
    """

    memory: Memory = field(default_factory=lambda: Memory(batch=64, admission="ring"))

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        (past,) = recalled

        def gradient_on(samples: Batch | Recalled) -> Gradient:
            def objective(params: Tensors) -> tuple[Tensor, Tensors]:
                out = net(params, samples.x, samples.task)
                return cross_entropy(out.logits, samples.y, samples.weight), {}

            return gradient_of(net, state.params, objective)

        new, reference = gradient_on(batch), gradient_on(past).grads
        along = inner(new.grads, reference)
        length = inner(reference, reference)
        scale = torch.where(length > 0, along.clamp_max(0.0) / length.clamp_min(1e-30), 0.0)
        return new._replace(grads={k: g - scale * reference[k] for k, g in new.grads.items()})
