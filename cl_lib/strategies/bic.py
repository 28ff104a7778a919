"""Bias correction on top of any strategy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cl_lib.memory.store import Memory
from cl_lib.strategies.around import check_base, share_memory
from cl_lib.strategies.bounds import at_least
from cl_lib.strategies.finetune import Finetune
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.losses import cross_entropy
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import (
    MASKED,
    Batch,
    ExperienceData,
    Gradient,
    KeptSpec,
    Net,
    Phase,
    Recalled,
    Shape,
    Spec,
    State,
    Tensors,
)

NAMES = "~correction.scale", "~correction.shift"


@dataclass(frozen=True)
class BiC(Strategy):
    r"""BiC (Wu et al. 2019, "Large Scale Incremental Learning"), around another strategy.

    At the end of an experience a scale and a shift of the logits of its classes :math:`C_e`, which are too large
    compared to those of older classes, are trained on the memory with all other parameters frozen:

    .. math::
        \hat f_c(x) = (1 + a_e)\, f_c(x) + b_e \ \text{ for } c \in C_e, \qquad
        \min_{a_e, b_e} \frac{1}{|M|} \sum_M -\log \mathrm{softmax}(\hat f(x))_y

    Parameters
    ----------
    memory : Memory
        Default: class-balanced, 500. A base that replays shares it; it may be passed to either of the two.
    base : Strategy
        The strategy whose logits are corrected. Default: fine-tuning. Its hyper-parameters are the same for all
        replicas.
    passes : int, default 20
        Epochs over the memory, 1 or more; in batches of ``memory.batch``, with the run's optimiser.

    Raises
    ------
    InputError
        By ``check``: errors of the base's ``check``; a base that keeps no inputs in memory, fills its memory itself or
        trains on it, does not train on each experience, or predicts from its memory; a base with a different memory;
        passes or a capacity below 1.

    Notes
    -----
    Cost: that of the base, and ``passes`` forward passes over the memory for each experience except the first. State:
    that of the base and two numbers for each experience.

    Differences from the paper: the correction is trained on the whole memory, which the base may have trained on; the
    paper holds out a part of the exemplars; a class has the correction of the last experience in which it was present;
    a and b start at 0 and are trained by the run's optimiser at its learning rate. With momentum the scales and shifts
    of older experiences continue to change slightly.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, BiC(), seeds=2, epochs=3)
    >>> record.metrics["accuracy"].mean > 0.2
    True
    """

    memory: Memory = field(default_factory=lambda: Memory(admission="class_balanced"))
    base: Strategy = field(default_factory=Finetune)
    passes: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.base, Strategy):
            share_memory(self, self.base)

    def check(self, spec: Spec) -> None:
        super().check(spec)
        self.memory.check(least=1)
        check_base(self, self.base, spec)
        at_least(self, 1, "passes")

    # ------------------------------------------------------------------ delegated to the base
    def _inner(self, state: State) -> State:
        return state._replace(extra=state.extra["base"])

    def draws(self) -> tuple[int, ...]:
        return self.base.draws()

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        return self.base.keeps(spec)

    def noise(self, spec: Spec) -> dict[str, Shape]:
        return self.base.noise(spec)

    # ------------------------------------------------------------------ the correction
    def parameters(self, net: Net, params: Tensors, spec: Spec, key: Tensor) -> Tensors:
        zeros = next(iter(params.values())).new_zeros(spec.experiences)
        return self.base.parameters(net, params, spec, key) | dict.fromkeys(NAMES, zeros)

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        phases = self.base.phases(experience, spec)
        correct = Phase("bias", "memory", self.passes, self.memory.batch, trainable=("~correction.",))
        return (*phases, correct) if experience else phases

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        device = next(iter(params.values())).device
        return {
            "base": self.base.init(net, params, spec),
            "number": torch.zeros((), dtype=torch.long, device=device),
            "owner": torch.zeros(spec.classes, dtype=torch.long, device=device),
        }

    def corrected(self, state: State, logits: Tensor) -> Tensor:
        """Logits ``(B, C)``, each class with the scale and shift of its experience."""
        scale, shift = (state.params[name][state.extra["owner"]] for name in NAMES)
        return (1 + scale) * logits + shift

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        if batch.phase != "bias":
            base = self.base.gradient(net, self._inner(state), batch, recalled)
            return base._replace(grads={k: g for k, g in base.grads.items() if k not in NAMES})
        raw = self.base.logits(net, self._inner(state), {}, batch.x, batch.task)

        def objective(params: Tensors) -> tuple[Tensor, Tensors]:
            logits = self.corrected(state._replace(params=params), raw)
            logits = logits if net.mask is None else torch.where(net.mask[batch.task], logits, MASKED)
            return cross_entropy(logits, batch.y, batch.weight), {}

        new = gradient_of(net, state.params, objective)
        newest = torch.arange(state.params[NAMES[0]].shape[0], device=raw.device) == state.extra["number"]
        return new._replace(grads={k: torch.where(newest, new.grads[k], 0.0) for k in NAMES})

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any] | State:
        if batch.phase == "bias":
            return new.extra
        classes = torch.arange(new.extra["owner"].shape[0], device=batch.y.device)
        present = ((batch.y[:, None] == classes) & (batch.weight > 0)[:, None]).any(0)
        owner = torch.where(present, new.extra["number"], new.extra["owner"])
        done = self.base.after_step(net, self._inner(old), self._inner(new), batch, gradient)
        extra = new.extra | {"base": done.extra if isinstance(done, State) else done, "owner": owner}
        return done._replace(extra=extra) if isinstance(done, State) else extra

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        done = self.base.consolidate(net, self._inner(state), data)
        return done._replace(extra=state.extra | {"base": done.extra, "number": state.extra["number"] + 1})

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        return self.corrected(state, self.base.logits(net, self._inner(state), readout, x, task))
