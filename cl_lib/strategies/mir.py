"""Maximally interfered retrieval."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.losses import cross_entropy, negative_log_likelihood, replayed
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Recalled, Spec, State, Tensors


@dataclass(frozen=True)
class MIR(Strategy):
    r"""ER-MIR (Aljundi et al. 2019, "Online Continual Learning with Maximal Interfered Retrieval").

    Of ``candidates`` samples drawn from memory, those are replayed whose loss would increase most by a virtual step on
    the new batch alone:

    .. math::
        \theta^v = \theta - \eta\,\nabla L(B; \theta), \qquad
        s(x, y) = -\log p_{\theta^v}(y \mid x) + \log p_\theta(y \mid x), \qquad
        L = \frac{1}{|B \cup M|} \sum_{B \cup M} -\log p_\theta(y \mid x)

    with M the ``memory.batch`` candidates of highest s.

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 10 replayed per step.
    candidates : int, default 50
        Samples drawn per step, ``memory.batch`` or more; with ``memory.batch`` this is `ER`.
    eta : float, default 0.1
        η, step size of the virtual step, 0 or more; the paper uses the optimiser's learning rate. May differ by
        replica.

    Raises
    ------
    InputError
        By ``check``: fewer candidates than are replayed, η below 0, an invalid memory.

    Notes
    -----
    Cost: the virtual step on the batch, two forward passes over the candidates, then the step of `ER`; memory:
    ``capacity`` samples.

    Differences from the paper: η is an option; candidates are scored with the network in evaluation mode.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, MIR(Memory(capacity=200)), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=Memory)
    candidates: int = 50
    eta: float = 0.1

    def check(self, spec: Spec) -> None:
        super().check(spec)
        if self.candidates < self.memory.batch:
            raise InputError(
                f"strategy.candidates={self.candidates}: must be at least strategy.memory.batch={self.memory.batch}, "
                "the number of replayed samples"
            )
        at_least(self, 0, "eta")

    def draws(self) -> tuple[int, ...]:
        return (self.candidates,)

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        (pool,) = recalled
        worst = torch.where(pool.weight > 0, self.interference(net, state, batch, pool), -1e9)
        chosen = worst.topk(self.memory.batch).indices
        x, y, weight, task, slot = (part[chosen] for part in (pool.x, pool.y, pool.weight, pool.task, pool.slot))
        return super().gradient(net, state, batch, (Recalled(x, y, weight, task, slot),))

    def interference(self, net: Net, state: State, batch: Batch, pool: Recalled) -> Tensor:
        """Increase of each candidate's loss by a virtual step on the batch, ``(candidates,)``."""

        def new(params: Tensors) -> tuple[Tensor, Tensors]:
            return cross_entropy(net(params, batch.x, batch.task).logits, batch.y, batch.weight), {}

        def losses(params: Tensors) -> Tensor:
            return negative_log_likelihood(net(params, pool.x, pool.task, train=False).logits, pool.y)

        buffers = net.buffers
        grads = gradient_of(net, state.params, new).grads
        net.buffers = buffers  # the step is virtual
        return losses({k: p - self.eta * grads[k] for k, p in state.params.items()}) - losses(state.params)

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        return replayed(net, state.params, batch, recalled[0]), {}
