"""No two tensors of a state share storage: steps write in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from running import BALANCED, job, same_params
from torch import Tensor
from torch.utils import _pytree as pytree

from cl_lib import strategies, streams
from cl_lib.checks import toy_data
from cl_lib.harness.assembly import make_learners, make_plan
from cl_lib.harness.session import Session
from cl_lib.strategies import Strategy


def learner(strategy: Strategy, **options: Any) -> Any:
    """The replicas before training."""
    session = Session(job(strategy, **options))
    return make_learners(session.job, session.groups[0], make_plan(session.job, session.groups[0]))


def is_shared(tree: Any) -> bool:
    """Whether two tensors lie in one storage, or two elements of a tensor in one place."""
    leaves = [t for t in pytree.tree_leaves(tree) if t.numel()]
    places = [t.untyped_storage().data_ptr() for t in leaves]
    expanded = any(n > 1 and stride == 0 for t in leaves for n, stride in zip(t.shape, t.stride(), strict=True))
    return expanded or len(set(places)) < len(places)


@dataclass(frozen=True)
class Doubled(Strategy):
    """Fine-tuning with tensors of its own that are one and the same, or the same for all replicas."""

    kind: str = ""

    def parameters(self, net: Any, params: Any, spec: Any, key: Tensor) -> Any:
        first = next(iter(params.values()))
        made = {"two names": first.new_zeros(8), "for all replicas": torch.zeros(8, dtype=first.dtype)}
        own = first if self.kind == "of the network" else made[self.kind]
        return {"~a": own, "~b": own}


@pytest.mark.parametrize("kind", ["two names", "for all replicas", "of the network"])
@pytest.mark.parametrize(("lift", "seeds"), [("always", 1), ("auto", 3), ("never", 2), ("never", 1)])
def test_tensors_that_a_strategy_gives_twice_are_two(kind: str, lift: str, seeds: int) -> None:
    assert not is_shared(learner(Doubled(kind), lift=lift, seeds=seeds).state._asdict())


def test_scale_and_shift_of_bic_are_two_tensors() -> None:
    """Eight experiences in float64 are 64 bytes: nothing has to be moved for the sake of addresses."""
    options = {"stream": streams.split(toy_data(classes=16), 8), "dtype": "float64", "epochs": 1}
    strategy = strategies.BiC(BALANCED, passes=2)
    lifted = learner(strategy, lift="always", **options)
    assert not is_shared(lifted.state._asdict())
    trained = []
    for lift in ("always", "never"):
        session = Session(job(strategy, lift=lift, **options))
        list(session)
        trained.append(session.learner)
    same_params(*trained)
    scale, shift = (trained[0].state.params[f"~correction.{name}"] for name in ("scale", "shift"))
    assert (scale - shift).abs().max() > 1e-6
