"""Base class of strategies: the computation of one replica, in four groups of methods, all with defaults.

============  =====================================================================================
memory        field ``memory``; methods `draws`, `keeps`, `noise`, `admit`
objective     `loss`, `penalty`, or `gradient` for strategies that modify the gradient itself
state         `phases`, `parameters`, `init`, `after_step`, `consolidate`
prediction    `readout`, `logits`
============  =====================================================================================

A concrete strategy is a final frozen dataclass in a separate file; its fields are the hyper-parameters. A field
annotated ``float`` may differ between replicas: inside the step it is a 0-d tensor, so Python code may not branch on
it. A field annotated ``float | None`` either may differ in the same way or is None for all replicas.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.memory.store import Memory
from cl_lib.strategies.gradient import gradient_of
from cl_lib.strategies.losses import cross_entropy
from cl_lib.types import (
    Batch,
    Contents,
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
from cl_lib.validation import typed


@dataclass(frozen=True)
class Strategy:
    """Base of all strategies. Every method has a default; a typical strategy overrides one or two."""

    memory: Memory | None = field(default=None, init=False, repr=False)
    """The replay memory; strategies that replay redeclare this field as a parameter."""
    liftable: ClassVar[bool] = True
    """False: the engine loops over the replicas instead of running them in one vectorised step."""
    traceable: ClassVar[bool] = True
    """False: the engine runs the step eagerly."""
    fills_memory: ClassVar[bool] = False
    """True: `admit` or `consolidate` fills the memory, whose ``admission`` is then ``"strategy"``."""
    keeps_inputs: ClassVar[bool] = True
    """False: only the tensors named by `keeps` are replayed; the inputs are not in memory, and cannot be read from it
    once another experience has begun."""
    skips: ClassVar[dict[str, str]] = {}
    """Generic checks that do not apply, with the reason (see `cl_lib.checks`)."""

    # ------------------------------------------------------------------ memory
    def draws(self) -> tuple[int, ...]:
        """Samples recalled per step, one entry for each independent draw. Default: one draw of ``memory.batch``."""
        return (self.memory.batch,) if self.memory is not None else ()

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        """Shapes of the tensors kept with each sample in memory (``loss`` returns them under the same names)."""
        return {}

    def noise(self, spec: Spec) -> dict[str, Shape]:
        """Shapes per sample of the planned noise, uniform in [0, 1): the only randomness that a step may use."""
        return {}

    def admit(
        self, net: Net, state: State, batch: Batch, gradient: Gradient, offered: Tensor
    ) -> tuple[Tensor, Tensors, dict[str, Any]]:
        """Choose memory slots for the samples of a batch after the update; for admission that depends on the model.

        Returns the slot of each sample ``(B,)``, replacements for whole tensors of `keeps` by name, and ``extra``. The
        slot ``capacity`` rejects a sample; samples whose ``offered`` ``(B,)`` is 0 must be rejected. Slots must be
        filled from 0 upwards; if several samples have the same slot, the last one is stored. ``gradient.kept`` is
        written to the slots. Default: all samples are rejected.
        """
        return torch.full_like(batch.y, state.memory["index"].shape[0] - 1), {}, state.extra

    # ------------------------------------------------------------------ objective
    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        """Loss (0-d) of one step, and the tensors to keep with the batch's samples in memory."""
        out = net(state.params, batch.x, batch.task)
        return cross_entropy(out.logits, batch.y, batch.weight), {}

    def penalty(self, net: Net, state: State) -> Tensor | None:
        """Penalty (0-d) that does not depend on samples; default: None."""
        return None

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        """Gradient that the optimiser applies; default: the gradient of ``loss + penalty``."""

        def objective(params: Tensors) -> tuple[Tensor, Tensors]:
            inner = state._replace(params=params)
            loss, kept = self.loss(net, inner, batch, recalled)
            penalty = self.penalty(net, inner)
            return (loss if penalty is None else loss + penalty), kept

        return gradient_of(net, state.params, objective)

    # ------------------------------------------------------------------ state
    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        """Training phases of an experience; default: one phase over its data."""
        return (Phase(),)

    def parameters(self, net: Net, params: Tensors, spec: Spec, key: Tensor) -> Tensors:
        """Additional trainable tensors, with names that begin with ``~``; ``key`` is for `cl_lib.noise`."""
        return {}

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        """Initial state of the strategy (``state.extra``): a tree of tensors on the device of ``params``."""
        return {}

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any] | State:
        """New ``extra`` after an update, or the new state if parameters change too; ``old`` precedes the update."""
        return new.extra

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        """New state after the last step of an experience; not traced, so it may contain Python loops."""
        return state

    # ------------------------------------------------------------------ prediction
    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        """Tensors computed once before an evaluation, such as class means, from the contents of the ``memory``."""
        return {}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        """Unnormalised log-probabilities ``(N, C)`` at test time."""
        return net(state.params, x, task, train=False).raw

    # ------------------------------------------------------------------ validation
    def check(self, spec: Spec) -> None:
        """Raise `InputError` for invalid hyper-parameters; overrides call ``super().check(spec)``."""
        for name, hint in get_type_hints(type(self)).items():
            if name in {f.name for f in dataclasses.fields(self) if f.init}:
                value = typed(getattr(self, name), hint, f"strategy.{name}")
                if isinstance(value, float) and not abs(value) < float("inf"):
                    raise InputError(f"strategy.{name}={value!r}: must be a finite number")


def hyper_parameters(part: Any) -> tuple[str, ...]:
    """Names of a dataclass's ``float`` and ``float | None`` fields, which may differ between replicas."""
    hints = get_type_hints(type(part))
    return tuple(f.name for f in dataclasses.fields(part) if hints[f.name] in (float, float | None))
