"""The generic checks that every strategy must pass."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cl_lib.checks.toy import toy_data, toy_stream
from cl_lib.checks.watch import as_written, named_tensors, watched
from cl_lib.engine.optim import SGD
from cl_lib.engine.population import Population
from cl_lib.errors import InputError
from cl_lib.harness.job import Job
from cl_lib.harness.reduction import make_record
from cl_lib.harness.session import Interrupted, Session
from cl_lib.models import MLP
from cl_lib.noise import SeededRandom
from cl_lib.record import Record
from cl_lib.strategies.strategy import Strategy, hyper_parameters
from cl_lib.streams import permuted, split


class _Stopping(Session):
    """Session that stops after a number of steps, as on Ctrl-C."""

    after = 0

    def _stops(self, done: int) -> bool:
        return done == self.after


def _job(strategy: Strategy, **options: Any) -> Job:
    defaults: dict[str, Any] = {
        "stream": toy_stream(),
        "model": MLP.factory(hidden=(8,)),
        "optim": SGD(lr=0.05, momentum=0.5),
        "seeds": 3,
        "epochs": 5,
        "dtype": "float64",
        "device": "cpu",
    }
    return Job(strategy=strategy, **(defaults | options))


def _finished(session: Session) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
    """Run a session to its end; return the final state and the rows."""
    rows = [row.arrays for row in session]
    assert isinstance(session.learner, Population)
    return session.learner.tree, rows


def _state(strategy: Strategy, **options: Any) -> dict[str, Any]:
    return _finished(Session(_job(strategy, **options)))[0]


def _replica(tree: Any, r: int) -> list[torch.Tensor]:
    return [t[r] for t in pytree.tree_leaves(tree)]


def _compare(a: list[torch.Tensor], b: list[torch.Tensor], tolerance: float | None, what: str) -> None:
    """Assert that tensors are equal bit for bit, or within an absolute and relative tolerance."""
    for x, y in zip(a, b, strict=True):
        if x.is_floating_point():  # the loss is NaN before the first step
            assert torch.equal(x.isnan(), y.isnan()), f"{what}: have NaN at different positions"
            x, y = x.nan_to_num(), y.nan_to_num()
        if tolerance is None or not x.is_floating_point():
            assert torch.equal(x, y), f"{what}: differ (largest difference {(x.double() - y.double()).abs().max():.1e})"
        else:
            difference = ((x - y).abs() / (1 + y.abs())).max().item() if x.numel() else 0.0
            assert difference <= tolerance, f"{what}: differ by {difference:.1e}, allowed {tolerance:.0e}"


# ---------------------------------------------------------------------- the checks
def check_same_seed(strategy: Strategy) -> None:
    """The same seed gives the same result, bit for bit."""
    _compare(
        pytree.tree_leaves(_state(strategy, seeds=2)), pytree.tree_leaves(_state(strategy, seeds=2)), None, "two runs"
    )


def check_seeds_differ(strategy: Strategy) -> None:
    """Replicas with the same initial weights end with different predictions: seeds decide more than weights."""
    with SeededRandom(0):  # a module is copied, so both seeds start from its weights
        module = MLP((6,), 4, hidden=(8,))
    session = Session(_job(strategy, model=module, seeds=2))
    _finished(session)
    predictions = _predict(session.learner, toy_data().test.x.double())
    assert not torch.equal(*predictions), "seeds 0 and 1 start from the same weights and end with the same predictions"


def _predict(learner: Any, x: Tensor, **options: Any) -> Tensor:
    learner.begin_evaluation()
    predictions: Tensor = learner.predict(x, torch.zeros(learner.replicas, len(x), dtype=torch.long), **options)
    return predictions


def check_inputs_not_mutated(strategy: Strategy) -> None:
    """No method of a strategy changes its arguments, bit for bit; called twice, it returns the same."""
    session = Session(_job(watched(strategy), seeds=1, epochs=2, lift="never"))
    _finished(session)
    learner = session.learner
    assert isinstance(learner, Population)
    before = pytree.tree_map(torch.clone, learner.tree)
    x = torch.randn(5, *learner.spec.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = _predict(learner, x)
    assert torch.equal(first, _predict(learner, x)), "logits: two calls with the same input differ"
    if strategy.liftable:
        learner.strategy = strategy  # not watched: values inside vmap cannot be compared
        _compare([_predict(learner, x, lifted=True)], [first], 1e-9, "logits of all replicas at once and alone")
    _compare(pytree.tree_leaves(learner.tree), pytree.tree_leaves(before), None, "the state after an evaluation")


def check_population_equals_single_runs(strategy: Strategy) -> None:
    """Three replicas at once equal three single unlifted runs, to 1e-9 in float64 over at least 50 steps."""
    together = _state(strategy)
    for r in range(3):
        alone = _state(strategy, seeds=[r], lift="never")
        _compare(_replica(together, r), _replica(alone, 0), 1e-9, f"replica {r} of 3 and alone")


def check_population_bit_for_bit(strategy: Strategy) -> None:
    """With ``lift="always"`` a replica is the same in float32, bit for bit, whichever other replicas run with it."""
    together = _state(strategy, dtype="float32", lift="always")
    for r in range(3):
        alone = _state(strategy, dtype="float32", lift="always", seeds=[r])
        _compare(_replica(together, r), _replica(alone, 0), None, f"replica {r} of 3 and alone")


def check_divergence_stays_alone(strategy: Strategy) -> None:
    """A replica whose parameters overflow does not disturb the other, to 1e-9 in float64."""
    together = _state(strategy, seeds=1, grid={"optim.lr": [0.05, 1e300]})
    alone = _state(strategy, seeds=1)
    _compare(_replica(together, 0), _replica(alone, 0), 1e-9, "a replica with one that diverges, and alone")


def check_hyper_parameters_by_replica(strategy: Strategy) -> None:
    """A grid trained as one population equals separate runs, for every float hyper-parameter."""
    for name in hyper_parameters(strategy):
        value = getattr(strategy, name) or 0.1  # 0 and None cannot be halved
        values = [value, value * 0.5]
        if not getattr(strategy, name) and any(_refused(_with(strategy, name, number)) for number in values):
            continue
        together = _state(strategy, seeds=1, grid={f"strategy.{name}": values})
        for i, number in enumerate(values):
            alone = _state(_with(strategy, name, number), seeds=1)
            _compare(_replica(together, i), _replica(alone, 0), 1e-9, f"{name}={number} in a grid")


def _refused(strategy: Strategy) -> bool:
    try:
        _job(strategy).check()
    except InputError:
        return True
    return False


def _with(strategy: Strategy, name: str, value: float) -> Strategy:
    changed: dict[str, Any] = {name: value}
    return dataclasses.replace(strategy, **changed)


def check_state_is_kept(strategy: Strategy) -> None:
    """The state keeps its shapes, dtypes, devices and addresses during a run, and is finite at the end."""
    session = Session(_job(strategy, seeds=2))
    rows = iter(session)
    next(rows)
    assert isinstance(session.learner, Population)
    first = [(t.shape, t.dtype, t.device, t.data_ptr()) for t in pytree.tree_leaves(session.learner.tree)]
    for _ in rows:
        pass
    last = [(t.shape, t.dtype, t.device, t.data_ptr()) for t in pytree.tree_leaves(session.learner.tree)]
    assert first == last, "the state changed its structure, or was replaced instead of updated"
    floats = [t for t in pytree.tree_leaves(session.learner.state) if t.is_floating_point()]
    assert all(torch.isfinite(t).all() for t in floats), "the state holds numbers that are not finite"


def check_state_shares_no_storage(strategy: Strategy) -> None:
    """No two tensors of a state, and no two elements of a tensor, share memory, since updates are in place."""
    for lift, seeds in (("never", 1), ("always", 1), ("auto", 2)):
        # eight float64 numbers (one for each experience) fill 64 bytes, so that they are not copied to be aligned
        session = Session(_job(strategy, stream=permuted(toy_data(), 8), lift=lift, seeds=seeds))
        next(iter(session))
        assert isinstance(session.learner, Population)
        spans = []
        for where, tensor in named_tensors(session.learner.state._asdict(), "state"):
            apart = all(stride > 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1)
            assert apart, f"lift={lift}: {where} has several indices for one element"
            if tensor.numel():
                last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
                start = tensor.data_ptr()
                spans.append((start, start + (last + 1) * tensor.element_size(), where))
        spans.sort()
        for (_, end, where), (start, _, other) in itertools.pairwise(spans):
            assert start >= end, f"lift={lift}: {where} and {other} share storage"


def check_record_by_replica(strategy: Strategy) -> None:
    """Every number of a replica's record is the same alone and with replicas on other schedules, bit for bit."""
    stream = split(toy_data(each=(120, 200, 140, 320)), 2, class_order="seed")
    variant, seeds = as_written(strategy), [0, 1, 2, 3]
    together, *alone = (
        _record(variant, stream=stream, seeds=single, epochs=2, batch_size=64, lift="never")
        for single in (seeds, *([seed] for seed in seeds))
    )
    for r, single in enumerate(alone):
        what = f"of replica {r} of 4 and alone differ"
        for name, values in together.arrays.items():
            assert len(values) == len(seeds), f"arrays[{name!r}] has no replica axis: {values.shape}"
            assert np.array_equal(values[r], single.arrays[name][0], equal_nan=True), f"arrays[{name!r}] {what}"
        for name, metric in together.metrics.items():
            assert metric.per_seed[r] == single.metrics[name].per_seed[0], f"metrics[{name!r}] {what}"
        assert together.replicas[r] == single.replicas[0], f"replicas {what}"
    means, singles = _means(together), [_means(single) for single in alone]
    for where, value in means.items():
        defined = [number for single in singles if (number := single.get(where)) is not None]
        expected = float(np.mean(defined)) if defined else None
        same = value == expected or (None not in (value, expected) and np.isclose(value, expected, 1e-12, 1e-12))  # type: ignore[arg-type]
        assert same, f"{where} is {value} of four replicas; the mean over each alone is {expected}"


def _record(strategy: Strategy, **options: Any) -> Record:
    session = Session(_job(strategy, **options))
    _finished(session)
    return make_record(session.result(), session.job.name)


def _means(record: Record) -> dict[str, float | None]:
    """The numbers of a record that are means over its replicas."""
    slices = {
        name: {k: dict(zip(part["labels"], v, strict=True)) if isinstance(v, list) else v for k, v in part.items()}
        for name, part in record.slices.items()
    }
    tree = {"accuracy_matrix": record.accuracy_matrix, "matrices": record.matrices, "slices": slices}

    def numbers(value: Any, where: str) -> Iterator[tuple[str, float | None]]:
        if isinstance(value, (dict, list)):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                yield from numbers(part, f"{where}[{key!r}]")
        elif not isinstance(value, str):
            yield where, value

    return dict(numbers(tree, "record"))


def check_save_and_load(strategy: Strategy) -> None:
    """A run that is interrupted in the middle of an experience and resumed equals an uninterrupted run, bit for bit."""
    session = Session(_job(strategy))
    whole, rows = _finished(session)
    (group,) = session.groups
    steps = group.steps
    with tempfile.TemporaryDirectory() as directory:
        stopping = _Stopping(_job(strategy), Path(directory))
        stopping.after = steps * 5 // 8
        try:
            for _ in stopping:
                pass
        except Interrupted:
            pass
        else:
            assert not steps, f"a run of {steps} steps was not stopped at step {stopping.after}"
        resumed, again = _finished(Session(_job(strategy), Path(directory), resume=True))
    _compare(pytree.tree_leaves(resumed), pytree.tree_leaves(whole), None, "the resumed run and the whole one")
    assert len(rows) == len(again), f"the resumed run gave {len(again)} rows, the whole one {len(rows)}"
    for a, b in zip(rows, again, strict=True):
        for name in a:
            assert np.array_equal(a[name], b[name], equal_nan=True), f"{name} differs after resuming"


def check_memory(strategy: Strategy) -> None:
    """The memory holds at most its capacity, and only samples that have been seen."""
    if strategy.memory is None:
        return
    session = Session(_job(strategy, seeds=2, epochs=1))
    for number, _ in enumerate(session):
        learner = session.learner
        assert isinstance(learner, Population)
        plan, capacity = learner.plan, strategy.memory.capacity
        for r in range(2):
            if strategy.memory.planned:
                filled, index = plan.admits[r].filled, plan.held[r].index
            else:
                filled, index = int(learner.state.memory["count"][r]), learner.state.memory["index"][r].numpy()
            assert filled <= capacity, f"holds {filled} samples, its capacity is {capacity}"
            seen = [plan.streams[r][e].train for e in range(number)] or [torch.zeros(0, dtype=torch.long)]
            unseen = set(index[:filled].tolist()) - set(torch.cat(seen).tolist())
            assert not unseen, f"after {number} experiences holds unseen samples {sorted(unseen)[:5]}"


def check_uneven_batches(strategy: Strategy) -> None:
    """Parameters and losses are finite with batches of one sample and with a short last batch of an epoch."""
    stream = split(toy_data(each=12), 2)  # 18 samples in an experience
    for size in (1, 7, 64):
        state = _state(strategy, stream=stream, seeds=2, epochs=1, batch_size=size)
        finite = all(torch.isfinite(p).all() for p in state["state"]["params"].values())
        assert finite, f"batch_size={size}: parameters that are not finite"
        assert (state["status"]["diverged"] < 0).all(), f"batch_size={size}: a loss that is not finite"


def check_beats_chance(strategy: Strategy) -> None:
    """On a toy domain-incremental stream the mean accuracy is well above chance (0.25)."""
    session = Session(_job(strategy, stream=permuted(toy_data(each=80), 2), seeds=3, epochs=4))
    accuracy = [row.accuracy.mean() for row in session][-1]
    assert accuracy > 0.4, f"accuracy {accuracy:.2f} where chance is 0.25"
