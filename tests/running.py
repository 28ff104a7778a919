"""What several test files do: small runs, and the loops that they must equal."""

import copy
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import cl_lib
from cl_lib.checks import toy_data
from cl_lib.engine.resident import gather
from cl_lib.engine.trace import Program
from cl_lib.harness.assembly import make_learners, make_plan
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.types import ExperienceData

SMALL = cl_lib.Memory(capacity=20, batch=8)
BALANCED = cl_lib.Memory(20, 8, "class_balanced")


@contextmanager
def shared_traces(programs: dict[Any, Any]):
    """Populations of the same strategy, network, optimiser and shapes run one program, which is traced once.

    Tracing takes half of a small run. Sharing is for tests of networks whose text says what they compute (MLP).
    """
    trace = Program._make

    def make(self, flat, spec, static, fixed):
        step: Any = self.step
        parts = (type(step.strategy), step.strategy, str(step.module), step.optimiser, step.spec, step.dtype)
        how = (step.lifted, step.bfloat16, self.traced, self.compiled, self.probe is None)
        key = (parts, how, static, spec, fixed, tuple((t.shape, t.dtype) for t in flat))
        if key not in programs:
            run = trace(self, flat, spec, static, fixed)
            programs[key] = run, self.changes.get(run)
        run, changes = programs[key]
        if changes is not None:
            self.changes[run] = changes
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "_make", make)
        yield


def final(session: Session) -> list[Tensor]:
    """All tensors of the learner's state at the end."""
    for _ in session:
        pass
    assert session.learner is not None
    return pytree.tree_leaves(session.learner.tree)


def job(strategy, **options):
    """A small unlifted run in float64 on toy data."""
    defaults = {
        "stream": cl_lib.streams.split(toy_data(), 2),
        "model": cl_lib.models.MLP.factory(hidden=(8,)),
        "optim": cl_lib.SGD(lr=0.05),
        "seeds": 1,
        "epochs": 3,
        "dtype": "float64",
        "device": "cpu",
        "lift": "never",
    }
    return Job(strategy=strategy, **(defaults | options))


def trained(strategy, **options):
    """The learner after the last experience."""
    session = Session(job(strategy, **options))
    for _ in session:
        pass
    return session.learner


def same_params(a, b, tolerance=1e-12):
    """Two learners ended with the same parameters."""
    for k, p in a.state.params.items():
        assert (p - b.state.params[k]).abs().max() <= tolerance


def hand_loop(strategy, loss, after=None, **options):
    """A careful person's loop over the planned batches: ordinary module, torch.optim, autograd."""
    own = job(strategy, **options)
    session = Session(own)
    plan = make_plan(session.job, session.groups[0])
    learner = make_learners(session.job, session.groups[0], plan)
    plan = make_plan(session.job, session.groups[0])
    net = copy.deepcopy(learner.module).double()
    optimiser = torch.optim.SGD(net.parameters(), lr=own.optim.lr)
    read = lambda d, s, n=None: (
        *gather(learner.shared, {}, d["index"][s, 0, :n], d["task"][s, 0, :n], torch.float64),
        d["weight"][s, 0, :n],
        d["slot"][s, 0, :n],
    )
    for e in range(own.stream.length):
        for block in plan.experience(e):
            for s in range(len(block)):
                value = loss(net, read(block.batch, s, block.size[s]), [read(d, s) for d in block.draws])
                optimiser.zero_grad()
                value.backward()
                optimiser.step()
        if after is not None:
            after(net)
    return {k: p.detach() for k, p in net.named_parameters()}


def equals_hand_loop(strategy, loss, after=None, **options):
    """A run ends with the parameters of the hand-written loop."""
    expected = hand_loop(strategy, loss, after, **options)
    reached = trained(strategy, **options).state.params
    for k, p in expected.items():
        assert (p - reached[k][0]).abs().max() < 1e-12


def mean_over(weight, values):
    """Weighted mean, 0 where all weights are."""
    return (weight * values).sum() / weight.sum() if weight.sum() > 0 else values.sum() * 0


def experienced(n, shape, classes, seed=0):
    """Random data of an experience: as the engine hands it over, and its inputs, labels and uniform numbers."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, dtype=torch.float64, generator=g)
    y = torch.randint(0, classes, (n,), generator=g)
    seen = torch.ones(classes, dtype=torch.bool)
    uniform = torch.rand(n, dtype=torch.float64, generator=g)
    order = torch.arange(n)
    zeros, key = torch.zeros(n, dtype=torch.long), torch.tensor(seed)
    data = ExperienceData(0, seen, seen, classes, classes, order, zeros, uniform, key, lambda i, t: (x[i], y[i]))
    return data, x, y, uniform
