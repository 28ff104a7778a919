"""What a strategy is: the maths of one replica, in four groups of methods, all with defaults.

=====================  =====================================================================================
what memory provides   fields ``memory``; methods `draws`, `keeps`, `noise`, `admit`
what is minimised      `loss`, `penalty`, or `gradient` for those that bend the gradient itself
what changes           `phases`, `parameters`, `init`, `after_step`, `consolidate`
what answers           `readout`, `logits`
=====================  =====================================================================================

A concrete strategy is a final frozen dataclass in a file of its own; its fields are the hyper-parameters. A field
annotated ``float`` may differ between replicas: inside the step it is a 0-d tensor, so Python may not branch on it.
One annotated ``float | None`` is that where it is set, and None for all replicas where it is not.
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
    """Base of all strategies; every method has a default, a typical strategy writes one or two."""

    memory: Memory | None = field(default=None, init=False, repr=False)
    """Strategies that replay declare it anew, as a parameter."""
    liftable: ClassVar[bool] = True
    """False: the engine loops over the replicas instead of running them as one."""
    traceable: ClassVar[bool] = True
    """False: the engine runs the step eagerly."""
    fills_memory: ClassVar[bool] = False
    """True: `admit` or `consolidate` fills the memory, whose ``admission`` is then ``"strategy"``."""
    keeps_inputs: ClassVar[bool] = True
    """False: it replays only what it `keeps`: the samples themselves are not in memory, and cannot be read from it once
    another experience has begun."""
    skips: ClassVar[dict[str, str]] = {}
    """Generic checks that cannot apply, with the reason (see `cl_lib.checks`)."""

    # ------------------------------------------------------------------ what memory must provide
    def draws(self) -> tuple[int, ...]:
        """Samples recalled in a step, one entry for each independent draw. Default: one of ``memory.batch``."""
        return (self.memory.batch,) if self.memory is not None else ()

    def keeps(self, spec: Spec) -> dict[str, Shape | KeptSpec]:
        """Shapes of what is kept beside each sample in memory (``loss`` returns it under the same names)."""
        return {}

    def noise(self, spec: Spec) -> dict[str, Shape]:
        """Shapes, for each sample, of planned noise uniform in [0, 1): the only randomness a step may use."""
        return {}

    def admit(
        self, net: Net, state: State, batch: Batch, gradient: Gradient, offered: Tensor
    ) -> tuple[Tensor, Tensors, dict[str, Any]]:
        """Where the samples of a batch go after its update, for strategies that look at the model to choose.

        Returns the slot of each ``(B,)``, whole tensors of what is kept, by name, and ``extra``. The capacity stands
        for no slot, as where ``offered`` (B,) is 0; slots are taken from 0 upwards, and of several samples for one the
        last stays. What ``gradient.kept`` holds is written into the slots. Default: none enters.
        """
        return torch.full_like(batch.y, state.memory["index"].shape[0] - 1), {}, state.extra

    # ------------------------------------------------------------------ what is minimised
    def loss(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> tuple[Tensor, Tensors]:
        """Loss (0-d) of one step, and what to keep beside the batch's samples in memory."""
        out = net(state.params, batch.x, batch.task)
        return cross_entropy(out.logits, batch.y, batch.weight), {}

    def penalty(self, net: Net, state: State) -> Tensor | None:
        """A term (0-d) that needs no samples; default none."""
        return None

    def gradient(self, net: Net, state: State, batch: Batch, recalled: tuple[Recalled, ...]) -> Gradient:
        """What the optimiser descends along: by default the gradient of ``loss + penalty``."""

        def objective(params: Tensors) -> tuple[Tensor, Tensors]:
            inner = state._replace(params=params)
            loss, kept = self.loss(net, inner, batch, recalled)
            penalty = self.penalty(net, inner)
            return (loss if penalty is None else loss + penalty), kept

        return gradient_of(net, state.params, objective)

    # ------------------------------------------------------------------ what changes over time
    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        """What is trained on in an experience; default: one phase over its data."""
        return (Phase(),)

    def parameters(self, net: Net, params: Tensors, spec: Spec, key: Tensor) -> Tensors:
        """Further tensors to train, by names that begin with ``~``; ``key`` is for `cl_lib.noise`."""
        return {}

    def init(self, net: Net, params: Tensors, spec: Spec) -> dict[str, Any]:
        """The strategy's own state (``state.extra``): a tree of tensors, on the device of ``params``."""
        return {}

    def after_step(self, net: Net, old: State, new: State, batch: Batch, gradient: Gradient) -> dict[str, Any] | State:
        """``extra`` after an update, or the state where parameters change too; ``old`` is that before the update."""
        return new.extra

    def consolidate(self, net: Net, state: State, data: ExperienceData) -> State:
        """The state after the last step of an experience; not traced, so it may loop."""
        return state

    # ------------------------------------------------------------------ what answers
    def readout(self, net: Net, state: State, memory: Contents | None) -> Tensors:
        """Computed once before an evaluation: class means, caches; ``memory`` is what the replica's memory holds."""
        return {}

    def logits(self, net: Net, state: State, readout: Tensors, x: Tensor, task: Tensor) -> Tensor:
        """Unnormalised log-probabilities ``(N, C)`` at test time."""
        return net(state.params, x, task, train=False).raw

    # ------------------------------------------------------------------ before work starts
    def check(self, spec: Spec) -> None:
        """Raise `InputError` for hyper-parameters that cannot work; extended with ``super().check(spec)``."""
        for name, hint in get_type_hints(type(self)).items():
            if name in {f.name for f in dataclasses.fields(self) if f.init}:
                value = typed(getattr(self, name), hint, f"strategy.{name}")
                if isinstance(value, float) and not abs(value) < float("inf"):
                    raise InputError(f"strategy.{name}={value!r}: must be a finite number")


def hyper_parameters(part: Any) -> tuple[str, ...]:
    """Names of a dataclass's ``float`` and ``float | None`` fields: those that may differ between replicas."""
    hints = get_type_hints(type(part))
    return tuple(f.name for f in dataclasses.fields(part) if hints[f.name] in (float, float | None))
