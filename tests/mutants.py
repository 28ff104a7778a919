"""Broken strategies: each is rejected by the check of its name in `MUTANTS`, for the reason given there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import pytest
import torch

import cl_lib
from cl_lib.engine.population import Population
from cl_lib.strategies import Finetune, ICaRL, Strategy, cross_entropy
from cl_lib.types import Gradient


@dataclass(frozen=True)
class Counting(Strategy):
    """Moves the parameters by the number of experiences that this process has seen end."""

    seen: ClassVar[dict[str, int]] = {"n": 0}

    def consolidate(self, net, state, data):
        self.seen["n"] += 1
        return state._replace(params={k: p + 0.001 * self.seen["n"] for k, p in state.params.items()})


@dataclass(frozen=True)
class ByPosition(Counting):
    """The count begins anew with each run: it is right at the first position only, and lost in a checkpoint."""

    def init(self, net, params, spec):
        self.seen["n"] = 0
        return {}


@dataclass(frozen=True)
class Blind(Strategy):
    """Shrinks the weights, whatever the batch."""

    def gradient(self, net, state, batch, recalled):
        return Gradient(state.params, sum(p.square().sum() for p in state.params.values()) / 2, {})


@dataclass(frozen=True)
class LastChecked(Strategy):
    """All replicas take the strength that was checked last."""

    strength: float = 1.0
    last: ClassVar[dict[str, Any]] = {}

    def check(self, spec):
        super().check(spec)
        self.last["strength"] = self.strength

    def penalty(self, net, state):
        return self.last["strength"] * sum(p.square().sum() for p in state.params.values())


@dataclass(frozen=True)
class Fragile(Strategy):
    """Factorises what need not be finite: a library's error, for all replicas."""

    def consolidate(self, net, state, data):
        weight = state.params["head.weight"]
        torch.linalg.cholesky(weight @ weight.mT + torch.eye(len(weight), dtype=weight.dtype))
        return state


@dataclass(frozen=True)
class Endless(Strategy):
    """A running minimum that begins at infinity."""

    def init(self, net, params, spec):
        return {"least": params["head.bias"].new_full((1,), torch.inf)}


@dataclass(frozen=True)
class NanOnPadding(Strategy):
    """A logarithm of the padding's weight."""

    def loss(self, net, state, batch, recalled):
        loss = cross_entropy(net(state.params, batch.x, batch.task).logits, batch.y, batch.weight)
        return loss + (batch.weight * batch.weight.log()).sum(), {}


@dataclass(frozen=True)
class Foresight(ICaRL):
    """Its memory holds samples that have not come yet."""

    memory: cl_lib.Memory = field(default_factory=lambda: cl_lib.Memory(20, 8, "strategy"))

    def consolidate(self, net, state, data):
        state = super().consolidate(net, state, data)
        memory = state.memory | {"index": (state.memory["index"] + 54) % 108}
        return state._replace(memory=memory)


@dataclass(frozen=True)
class Lazy(Strategy):
    """Learns nothing."""

    def loss(self, net, state, batch, recalled):
        return 0.0 * net(state.params, batch.x, batch.task).logits.sum(), {}


# ---------------------------------------------------------------------- changing what they are given
@dataclass(frozen=True)
class InParameters(Strategy):
    def parameters(self, net, params, spec, key):
        params["head.bias"].add_(1.0)
        return {"~own": torch.zeros_like(params["head.bias"])}


@dataclass(frozen=True)
class InInit(Strategy):
    def init(self, net, params, spec):
        return {"importance": params["head.weight"].zero_()}


@dataclass(frozen=True)
class InGradientBatch(Strategy):
    def gradient(self, net, state, batch, recalled):
        batch.x.mul_(0.5)
        return super().gradient(net, state, batch, recalled)


@dataclass(frozen=True)
class InGradient(Strategy):
    """Its own hyper-parameter decays in place, for this step and all that follow."""

    strength: float = 1.0

    def gradient(self, net, state, batch, recalled):
        self.strength.mul_(0.5)
        return super().gradient(net, state, batch, recalled)


@dataclass(frozen=True)
class InAfterStep(Strategy):
    def after_step(self, net, old, new, batch, gradient):
        new.params["head.bias"].mul_(0.5)
        return new.extra


@dataclass(frozen=True)
class InAdmit(Strategy):
    memory: cl_lib.Memory = field(default_factory=lambda: cl_lib.Memory(20, 8, "strategy"))
    fills_memory: ClassVar[bool] = True

    def admit(self, net, state, batch, gradient, offered):
        state.memory["count"].add_(1)
        return torch.zeros_like(batch.y), {}, state.extra


@dataclass(frozen=True)
class InConsolidate(Strategy):
    def consolidate(self, net, state, data):
        for p in state.params.values():
            p.mul_(0.9)
        return state


@dataclass(frozen=True)
class InConsolidateData(Strategy):
    def consolidate(self, net, state, data):
        data.uniform.copy_(data.uniform.sort().values)
        return state


@dataclass(frozen=True)
class InReadout(Strategy):
    def readout(self, net, state, memory):
        return {"weight": state.params["head.weight"].div_(2.0)}


@dataclass(frozen=True)
class InLogits(Strategy):
    def logits(self, net, state, readout, x, task):
        return net(state.params, x.clamp_(min=0.0), task, train=False).raw


@dataclass(frozen=True)
class Replaces(Strategy):
    """Puts a new tensor into the dict it was given."""

    def init(self, net, params, spec):
        return {"steps": params["head.bias"].new_zeros(())}

    def after_step(self, net, old, new, batch, gradient):
        new.extra["steps"] = new.extra["steps"] + 1
        return new.extra


IN_PLACE = {
    "parameters changes params.head.bias in place": InParameters(),
    "init changes params.head.weight in place": InInit(),
    "gradient changes batch.x in place": InGradientBatch(),
    "gradient changes self.strength in place": InGradient(),
    "after_step changes new.params.head.bias in place": InAfterStep(),
    "admit changes state.memory.count in place": InAdmit(),
    "consolidate changes state.params.body.1.weight in place": InConsolidate(),
    "consolidate changes data.uniform in place": InConsolidateData(),
    "readout changes state.params.head.weight in place": InReadout(),
    "logits changes x in place": InLogits(),
    "after_step puts another tensor into old.extra.steps": Replaces(),
}
"""What the check says of each."""


# ---------------------------------------------------------------------- the list
class Mutant(NamedTuple):
    strategy: Strategy
    message: str
    kind: type[Exception] = AssertionError
    patch: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    """What is broken in the engine, where no strategy can break it."""


def sharing(patch: pytest.MonkeyPatch) -> None:
    """A population of which two tensors are one."""
    initial = Population._initial

    def shared(self: Population, modules: Any) -> Any:
        state = initial(self, modules)
        return state._replace(params=state.params | {"~twin": state.params["head.bias"]})

    patch.setattr(Population, "_initial", shared)


MUTANTS = {
    "same_seed": Mutant(Counting(), "two runs: differ"),
    "seeds_differ": Mutant(Blind(), "seeds 0 and 1 start from the same weights and end with the same predictions"),
    "inputs_not_mutated": Mutant(InConsolidate(), "consolidate changes state.params.body.1.weight in place"),
    "population_equals_single_runs": Mutant(ByPosition(), "replica 0 of 3 and alone: differ by"),
    "population_bit_for_bit": Mutant(ByPosition(), r"replica 0 of 3 and alone: differ \(largest"),
    "divergence_stays_alone": Mutant(Fragile(), "cholesky", torch.linalg.LinAlgError),
    "hyper_parameters_by_replica": Mutant(LastChecked(), r"strength=(1.0|0.5) in a grid: differ by"),
    "state_is_kept": Mutant(Endless(), "the state holds numbers that are not finite"),
    "state_shares_no_storage": Mutant(
        Finetune(), "state.params.(head.bias|~twin) and state.params.(head.bias|~twin) share storage", patch=sharing
    ),
    "record_by_replica": Mutant(ByPosition(), "of replica 0 of 4 and alone differ"),
    "save_and_load": Mutant(ByPosition(), "the resumed run and the whole one: differ"),
    "memory": Mutant(Foresight(), "holds unseen samples"),
    "uneven_batches": Mutant(NanOnPadding(), "a loss that is not finite"),
    "beats_chance": Mutant(Lazy(), "where chance is 0.25"),
}
