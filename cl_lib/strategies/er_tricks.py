"""Experience replay with a bag of tricks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl_lib.memory.eviction import Held, reservoir_slot
from cl_lib.memory.store import Memory
from cl_lib.noise import choose
from cl_lib.strategies.bias import corrected, fit_bias
from cl_lib.strategies.bounds import above, at_least
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.losses import negative_log_likelihood, weighted_mean
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Batch, ExperienceData, Gradient, KeptSpec, Net, Recalled, Shape, Spec, State, Tensors, join


@dataclass(frozen=True)
class ERTricks(Strategy):
    r"""ER with tricks (Buzzega et al. 2020, "Rethinking Experience Replay: a Bag of Tricks for Continual Learning").

    Experience replay with a reservoir that chooses the sample to evict. The n-th offered sample is admitted with the
    reservoir's probability :math:`\min(1, M / n)`; from a full memory the sample in slot j is evicted with probability
    proportional to

    .. math::
        s_j = \begin{cases}
        [n_{y_j} = \max_c n_c] & \text{balanced}\\
        \nu(-\ell_j) & \text{loss-aware}\\
        \nu\big(\tfrac12 \nu(-\ell_j) + \tfrac12\, n_{y_j} / \max_c n_c\big) & \text{both} \end{cases}

    with :math:`n_c` the number of samples of class c in memory, :math:`\ell_j` a sample's loss when it was last
    replayed, and :math:`\nu` the scaling to [0, 1]. The other tricks are a correction of the newest classes' logits,
    fitted on the memory at the end of an experience (`cl_lib.strategies.bias.fit_bias`), and exponential decay of the
    learning rate, ``optim.schedule.kind=exponential``.

    Parameters
    ----------
    memory : Memory
        Default: 500, 32 recalled per step; ``admission`` must be ``"strategy"``.
    balanced : bool, default True
        Evict samples of the classes with the most samples (balanced reservoir).
    loss_aware : bool, default True
        Evict samples with a small loss (loss-aware reservoir). With neither: a plain reservoir.
    bias_epochs : int, default 0
        Epochs over the memory of the bias correction, 0 or more; 0: none. The paper has 50.
    bias_lr : float, default 0.5
        Learning rate of the bias correction, above 0. May differ by replica.

    Raises
    ------
    InputError
        By ``check``: another admission, a capacity below 1, epochs below 0, a learning rate not above 0.

    Notes
    -----
    Cost: the step of `ER`, and for each new sample a pass over ``capacity`` numbers. Memory: ``capacity`` samples with
    a loss and a label each. With bias correction, at the end of an experience a forward pass over the memory and
    ``bias_epochs * capacity / memory.batch`` gradient steps on two numbers.

    Differences from the paper: samples are recalled with replacement; class counts are divided by the largest before
    they are added; the bias correction is fitted from scratch after every experience, in the paper only after the last
    one, where both are the same.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, ERTricks(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.8
    True
    """

    fills_memory: ClassVar[bool] = True
    memory: Memory = field(default_factory=lambda: Memory(batch=32, admission="strategy"))
    balanced: bool = True
    loss_aware: bool = True
    bias_epochs: int = 0
    bias_lr: float = 0.5

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)
        at_least(self, 0, "bias_epochs")
        above(self, 0, "bias_lr")

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        return {"loss": (), "label": ()}

    def noise(self, spec: Spec) -> dict[str, Shape]:
        return {"chance": (2,)}

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        like = next(iter(params.values()))
        none, classes = like.new_zeros(()), torch.zeros(spec.classes, dtype=torch.bool, device=like.device)
        counts = {"offered": none, "held": like.new_zeros(spec.classes)}
        return counts | {"scale": none, "shift": none, "newest": classes}

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        (old,) = recalled
        both, size = join(batch, old), batch.y.shape[0]

        def objective(params: Tensors) -> tuple[Tensor, Tensors]:
            logits = net(params, both.x, both.task).logits
            nll = negative_log_likelihood(logits, both.y)
            return weighted_mean(nll, both.weight), {"nll": nll}

        new = gradient_of(net, state.params, objective)
        nll, sink = new.kept["nll"], state.memory["loss"].shape[0] - 1
        slot = torch.where(old.weight > 0, old.slot, sink)
        return new._replace(kept={}, aux={"new": nll[:size], "old": nll[size:], "slot": slot})

    def admit(
        self, net: Net, state: State, batch: Batch, gradient: Gradient, offered: Tensor
    ) -> tuple[Tensor, Tensors, dict[str, Any]]:
        memory, aux = state.memory, gradient.aux
        sink = memory["loss"].shape[0] - 1
        held = Held(
            loss=memory["loss"].scatter(0, aux["slot"], aux["old"]),
            label=memory["label"],
            per_class=state.extra["held"],
            filled=memory["count"],
        )
        seen, chance, slots = state.extra["offered"], batch.noise["chance"], []
        for i, (y, is_offered) in enumerate(zip(batch.y.unbind(0), offered.unbind(0), strict=True)):
            seen = seen + is_offered
            victim = choose(held.eviction(balanced=self.balanced, loss_aware=self.loss_aware), chance[i, 1])
            slot = reservoir_slot(held.filled, sink, chance[i, 0] * seen < sink, victim)
            slots.append(torch.where(is_offered > 0, slot, sink))
            held = held.replaced(slots[-1], aux["new"][i], y)
        kept = {"loss": held.loss, "label": held.label}
        return torch.stack(slots), kept, state.extra | {"offered": seen, "held": held.per_class}

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        if not self.bias_epochs or data.memory is None:
            return state
        parts = list(data.memory.batches())
        logits = torch.cat([net(state.params, part.x, part.task, train=False).logits for part in parts])
        y, weight = (torch.cat([getattr(part, name) for part in parts]) for name in ("y", "weight"))
        scale, shift = fit_bias(
            logits, y, weight, data.classes, data.key, epochs=self.bias_epochs, batch=self.memory.batch, lr=self.bias_lr
        )
        return state._replace(extra=state.extra | {"scale": scale, "shift": shift, "newest": data.classes})

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        raw, extra = net(state.params, x, task, train=False).raw, state.extra
        return corrected(raw, extra["scale"], extra["shift"], extra["newest"])
