"""The generic checks have teeth: each broken strategy fails the check that is about what it breaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch

import cl_lib
from cl_lib import checks
from cl_lib.strategies import Finetune, ICaRL, Strategy, cross_entropy


@dataclass(frozen=True)
class Undocumented(Strategy):
    strength: float = 1.0


@dataclass(frozen=True)
class Lazy(Strategy):
    """Learns nothing."""

    def loss(self, net, state, batch, recalled):
        return 0.0 * net(state.params, batch.x, batch.task).logits.sum(), {}


@dataclass(frozen=True)
class Global(Strategy):
    """Keeps a counter outside the state, which no checkpoint knows."""

    counter: ClassVar[dict[str, int]] = {"n": 0}

    def consolidate(self, net, state, data):
        self.counter["n"] += 1
        return state._replace(params={k: p + 0.001 * self.counter["n"] for k, p in state.params.items()})


@dataclass(frozen=True)
class Growing(Strategy):
    """Its state grows with every experience."""

    def init(self, net, params, spec):
        return {"seen": params["head.bias"].new_zeros(1)}

    def consolidate(self, net, state, data):
        return state._replace(extra={"seen": torch.cat([state.extra["seen"], state.extra["seen"][:1]])})


@dataclass(frozen=True)
class NanOnPadding(Strategy):
    """A mean without weights, and a logarithm of the padding's weight."""

    def loss(self, net, state, batch, recalled):
        loss = cross_entropy(net(state.params, batch.x, batch.task).logits, batch.y, batch.weight)
        return loss + (batch.weight * batch.weight.log()).sum(), {}


@dataclass(frozen=True)
class Fragile(Strategy):
    """Factorises what need not be finite: a library's error, for all replicas."""

    def consolidate(self, net, state, data):
        weight = state.params["head.weight"]
        torch.linalg.cholesky(weight @ weight.mT + torch.eye(len(weight), dtype=weight.dtype))
        return state


@dataclass(frozen=True)
class Foresight(ICaRL):
    """Its memory holds samples that have not come yet."""

    memory: cl_lib.Memory = field(default_factory=lambda: cl_lib.Memory(20, 8, "strategy"))

    def consolidate(self, net, state, data):
        state = super().consolidate(net, state, data)
        memory = state.memory | {"index": (state.memory["index"] + 54) % 108}
        return state._replace(memory=memory)


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (Undocumented(), checks.check_docstring, "lacks an equation"),
        (Lazy(), checks.check_beats_chance, "where chance is 0.25"),
        (Global(), checks.check_same_seed, "two runs: differ"),
        (Global(), checks.check_save_and_load, "differ"),
        (Fragile(), checks.check_divergence_stays_alone, "cholesky"),
        (Growing(), checks.check_state_is_kept, r"state.extra.seen must stay \(2, 1\)"),
        (NanOnPadding(), checks.check_uneven_batches, "a loss that is not finite"),
        (Foresight(), checks.check_memory, "holds unseen samples"),
    ],
    ids=lambda v: getattr(v, "__name__", None) or type(v).__name__,
)
def test_a_broken_strategy_fails(broken: Any, check: Any, message: str):
    with pytest.raises((AssertionError, cl_lib.InputError, torch.linalg.LinAlgError), match=message):
        check(broken)


def test_check_strategy_lists_every_failure_and_names_the_class():
    with pytest.raises(checks.CheckFailed, match=r"Lazy fails 2 checks\n(.|\n)*beats_chance(.|\n)*docstring"):
        checks.check_strategy(Lazy())


def test_a_skipped_check_says_why():
    @dataclass(frozen=True)
    class Excused(Lazy):
        skips: ClassVar[dict[str, str]] = {"beats_chance": "it learns nothing", "docstring": "it is a test"}

    assert "beats_chance: skipped (it learns nothing)" in checks.check_strategy(Excused())


def test_all_checks_pass_for_fine_tuning():
    assert all(line.endswith("passed") for line in checks.check_strategy(Finetune()))
