"""Retrospective adversarial replay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.losses import cross_entropy, replayed
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, Gradient, Net, Recalled, Spec, State, Tensors

FAR = 1e9


@dataclass(frozen=True)
class RAR(Strategy):
    r"""RAR (Kumari et al. 2022, "Retrospective Adversarial Replay for Continual Learning").

    In addition to each recalled sample x an adversarial sample x' with the same label is replayed: x moved, within a
    box, towards the new sample of another class that is nearest in feature space, where forgetting is likely:

    .. math::
        x' \leftarrow \Pi_{\lVert x' - x \rVert_\infty \le \epsilon}\Big( x' - \frac{2 \epsilon}{K}\,
        \mathrm{sign}\, \nabla_{x'} \lVert z(x') - z(x_{near}) \rVert_2^2 \Big), \qquad
        L = \frac{1}{|B \cup M|} \sum_{B \cup M} -\log p(y \mid x) + \frac{\gamma}{|M|} \sum_M -\log p(y \mid x')

    Parameters
    ----------
    memory : Memory
        Default: reservoir of 500, 10 recalled per step.
    gamma : float, default 1
        γ, 0 or more; 0 is `ER`. May differ by replica.
    epsilon : float, default 0.1
        ε in units of the normalised input, 0 or more. May differ by replica.
    steps : int, default 5
        K, number of steps of the search, 1 or more.

    Raises
    ------
    InputError
        By ``check``: γ or ε below 0, steps below 1, an invalid memory.

    Notes
    -----
    Cost: the step of `ER`, ``steps`` forward and backward passes over ``memory.batch`` samples and one more over them
    in the loss. Memory: ``capacity`` samples.

    Differences from the paper: no MixUp between adversarial and stored samples; the search starts at the sample itself.
    A recalled sample is not moved if the batch has no sample of another class.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, RAR(Memory(capacity=200)), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    memory: Memory = field(default_factory=Memory)
    gamma: float = 1.0
    epsilon: float = 0.1
    steps: int = 5

    def check(self, spec: Spec) -> None:
        super().check(spec)
        at_least(self, 0, "gamma", "epsilon")
        at_least(self, 1, "steps")

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        (old,) = recalled
        return super().gradient(net, state, batch, (old, replace(old, x=self.moved(net, state, batch, old))))

    def moved(self, net: Net, state: State, batch: Batch, old: Recalled) -> Tensor:
        """Inputs of the recalled samples, moved towards the nearest new sample of another class."""

        def features(x: Tensor) -> Tensor:
            return net(state.params, x, old.task, train=False).features

        new = net(state.params, batch.x, batch.task, train=False).features
        away = (features(old.x)[:, None] - new).square().sum(-1)
        other = (old.y[:, None] != batch.y) & (batch.weight > 0)
        goal = new[torch.where(other, away, FAR).argmin(-1)]
        some = other.any(-1).view(-1, *[1] * (old.x.ndim - 1))
        towards = torch.func.grad(lambda x: (features(x) - goal).square().sum())
        x = old.x
        for _ in range(self.steps):
            x = x - 2 * self.epsilon / self.steps * towards(x).sign()
            x = old.x + torch.minimum(torch.maximum(x - old.x, -self._box(x)), self._box(x))
        return torch.where(some, x, old.x)

    def _box(self, x: Tensor) -> Tensor:
        return torch.ones_like(x) * self.epsilon

    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        old, moved = recalled
        loss = replayed(net, state.params, batch, old)
        adversarial = cross_entropy(net(state.params, moved.x, moved.task).logits, moved.y, moved.weight)
        return loss + self.gamma * adversarial, {}
