"""What a trace may see, and what a population must give: the numbers of replicas on their own and of plain loops."""

import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cl_lib
from cl_lib import SGD, Memory, Schedule
from cl_lib.datasets import digits, from_arrays
from cl_lib.engine import trace
from cl_lib.engine.population import Population
from cl_lib.engine.trace import Program, TraceError
from cl_lib.engine.weights import build
from cl_lib.harness.assembly import make_learners, make_plan
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.models import MLP, ConvNet, SlimResNet18
from cl_lib.strategies import ER, DERpp, Finetune, Phase, RanPAC, Strategy, cross_entropy
from cl_lib.streams import permuted, split
from cl_lib.types import Batch, ExperienceData, Spec, State

DIGITS = digits()
SMALL = MLP.factory(hidden=(16,))
LIFTED = pytest.mark.parametrize("lifted", [False, True], ids=["unlifted", "lifted"])
Body = Callable[[Tensor, Tensor], Tensor]


def pictures() -> Any:
    """A few images of four classes, 23 to train on: the last batch is uneven."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (46, 1, 8, 8)).astype(np.uint8)
    return from_arrays((x[:23], np.arange(23) % 4), (x[23:], np.arange(23) % 4), std=100.0, mean=128.0)


PICTURES = pictures()


# ---------------------------------------------------------------------- one program, directly
def program(body: Body, lifted: bool, **options: Any) -> Program:
    """A program that writes ``body(w, x)`` into ``y``."""

    def step(static: Any, fixed: Any, varying: Any) -> None:
        fixed["y"].copy_((torch.func.vmap(body) if lifted else body)(fixed["w"], varying["x"]))

    return Program(step, **options)


def inputs(
    lifted: bool, size: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    lead = (2,) if lifted else ()
    fixed = {"w": torch.ones(*lead, size, dtype=dtype), "y": torch.zeros(lead, dtype=dtype)}
    return fixed, {"x": torch.rand(*lead, size, dtype=dtype)}


def call(run: Any, fixed: dict[str, Tensor], varying: dict[str, Tensor]) -> Tensor:
    run(*fixed.values(), *varying.values())
    return fixed["y"]


@LIFTED
def test_a_program_gives_what_the_step_gives(lifted: bool) -> None:
    made = program(lambda w, x: (w * x.exp()).sum(), lifted)
    fixed, varying = inputs(lifted)
    run = made.prepare(fixed, varying)
    for _ in range(3):
        fixed["w"].uniform_()
        varying["x"].uniform_()
        torch.testing.assert_close(call(run, fixed, varying), (fixed["w"] * varying["x"].exp()).sum(-1))


@LIFTED
def test_preparing_changes_nothing(lifted: bool) -> None:
    def step(static: Any, fixed: Any, varying: Any) -> None:
        fixed["w"].add_(1)
        fixed["y"].add_(varying["x"].sum(-1))
        varying["x"].mul_(2)

    fixed, varying = inputs(lifted)
    before = [t.clone() for t in (*fixed.values(), *varying.values())]
    Program(step).prepare(fixed, varying)
    assert all(torch.equal(a, b) for a, b in zip(before, (*fixed.values(), *varying.values()), strict=True))


def test_keys_that_differ_only_by_case_are_not_mixed_up() -> None:
    def step(static: Any, fixed: Any, varying: Any) -> None:
        fixed["W"].add_(varying["x"])
        fixed["w"].sub_(10 * varying["X"])

    fixed = {"W": torch.zeros(2), "w": torch.zeros(2)}
    varying = {"x": torch.tensor([1.0, 2.0]), "X": torch.tensor([3.0, 4.0])}
    Program(step).prepare(fixed, varying)(*fixed.values(), *varying.values())
    assert fixed["W"].tolist() == [1.0, 2.0]
    assert fixed["w"].tolist() == [-30.0, -40.0]


@LIFTED
@pytest.mark.parametrize(
    "body",
    [
        lambda w, x: w.sum() * x.sum().item(),
        lambda w, x: w.sum() * float(x.sum()),
        lambda w, x: w[: int(x.sum())].sum(),
        lambda w, x: w.sum() if x.sum() > 0 else x.sum(),
        lambda w, x: w.sum() if bool((x > 0).all()) else x.sum(),
    ],
    ids=["item", "float", "int", "if", "bool"],
)
def test_branching_on_a_value_is_refused(lifted: bool, body: Body) -> None:
    with pytest.raises(
        TraceError, match=r"branches on, indexes by or reads out a tensor's value .*; use torch\.where, masks or topk"
    ):
        program(body, lifted).prepare(*inputs(lifted))


@LIFTED
@pytest.mark.parametrize(
    "body",
    [
        lambda w, x: (w * x)[x > 0.5].sum(),
        lambda w, x: w[torch.nonzero(x)[:, 0]].sum(),
        lambda w, x: torch.unique(x).sum() * w.sum(),
    ],
    ids=["boolean", "nonzero", "unique"],
)
def test_shapes_that_depend_on_values_are_refused(lifted: bool, body: Body) -> None:
    with pytest.raises(TraceError, match=r"use torch\.where, masks or topk"):
        program(body, lifted).prepare(*inputs(lifted))


@pytest.mark.parametrize("read", [lambda w: sum(w.tolist()), lambda w: float(w.numpy().sum())], ids=["tolist", "numpy"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_reading_values_as_a_list_or_an_array_is_refused(read: Any, seeds: int) -> None:
    @dataclass(frozen=True)
    class Reading(Strategy):
        def loss(self, net: Any, state: Any, batch: Any, recalled: Any) -> Any:
            return super().loss(net, state, batch, recalled)[0] / read(batch.weight), {}

    with pytest.raises(TraceError, match="reads out a tensor's value"):
        cl_lib.run(split(PICTURES, 2), Reading(), model=MLP.factory(hidden=(8,)), seeds=seeds)


@LIFTED
def test_indexing_by_integers_is_fine(lifted: bool) -> None:
    made = program(lambda w, x: (w[(3 * x).long()] * x).sum(), lifted)
    fixed, varying = inputs(lifted)
    run = made.prepare(fixed, varying)
    varying["x"].copy_(torch.tensor([0.9, 0.1, 0.5]))
    fixed["w"].copy_(torch.tensor([1.0, 10.0, 100.0]))
    torch.testing.assert_close(call(run, fixed, varying), torch.full(fixed["y"].shape, 90.0 + 0.1 + 5.0))


FROZEN = torch.ones(3)


@LIFTED
@pytest.mark.parametrize("body", [lambda w, x: (w * x * FROZEN).sum(), lambda w, x: (w * torch.tensor(2.0) * x).sum()])
def test_a_captured_tensor_is_refused(lifted: bool, body: Body) -> None:
    with pytest.raises(TraceError, match=r"uses a tensor that is not one of its inputs.*put it into `extra`"):
        program(body, lifted).prepare(*inputs(lifted))


@LIFTED
@pytest.mark.parametrize(
    "body",
    [
        lambda w, x: (w * torch.randn_like(x)).sum(),
        lambda w, x: (w * torch.rand(3)).sum(),
        lambda w, x: (w * torch.bernoulli(x)).sum(),
        lambda w, x: nn.functional.dropout(w * x).sum(),
        lambda w, x: w[torch.randperm(3)].sum() * x.sum(),
    ],
    ids=["randn_like", "rand", "bernoulli", "dropout", "randperm"],
)
def test_random_numbers_are_refused(lifted: bool, body: Body) -> None:
    with pytest.raises(TraceError, match=r"draws random numbers.*declare `noise`"):
        program(body, lifted).prepare(*inputs(lifted))


def test_another_error_of_the_step_is_passed_on() -> None:
    with pytest.raises(RuntimeError, match="size of tensor") as caught:
        program(lambda w, x: (w * torch.cat([x, x])).sum(), lifted=False).prepare(*inputs(lifted=False))
    assert not isinstance(caught.value, TraceError)


def test_each_structure_shape_and_type_has_a_program_of_its_own() -> None:
    made = program(lambda w, x: (w * x).mean(), lifted=False)
    for size, dtype, expected in [
        (3, torch.float32, 1),
        (4, torch.float32, 2),
        (4, torch.float64, 3),
        (3, torch.float32, 3),
    ]:
        fixed, varying = inputs(False, size, dtype)
        varying["x"].fill_(size)
        assert call(made.prepare(fixed, varying), fixed, varying) == size
        assert len(made._programs) == expected
    fixed, varying = inputs(False)
    made.prepare({**fixed, "more": torch.zeros(3)}, varying)
    assert len(made._programs) == 4


# ---------------------------------------------------------------------- bfloat16
@pytest.mark.parametrize("lift", ["never", "auto"])
def test_bf16_multiplies_in_bfloat16_and_keeps_all_state_float32(lift: Any) -> None:
    stream, strategy = split(DIGITS), DERpp(Memory(capacity=20, batch=6))
    runs = {
        kind: leaves(trained(stream, strategy, model=SMALL, seeds=2, lift=lift, matmul=kind))
        for kind in ("float32", "bf16")
    }
    for key, value in runs["float32"].items():
        half = runs["bf16"][key]
        assert half.dtype == value.dtype, key
        assert not torch.equal(half, value), f"{key} was not computed in another way"
        torch.testing.assert_close(half, value, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matmul": "fp8"}, "engine.matmul='fp8': must be one of float32, tf32, bf16"),
        ({"matmul": "tf32", "device": "cpu"}, "engine.matmul=tf32: only CUDA"),
        ({"matmul": "bf16", "dtype": "float64"}, "engine.matmul=bf16: is for dtype=float32"),
    ],
)
def test_products_that_cannot_be_had_are_refused(options: Any, message: str) -> None:
    with pytest.raises(cl_lib.InputError, match=re.escape(message)):
        Job(split(DIGITS), Finetune(), **options).check()


# ---------------------------------------------------------------------- compiling
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler here")
@pytest.mark.parametrize("lift", ["never", "auto"])
def test_a_compiled_run_learns_what_the_traced_one_does(lift: Any) -> None:
    options = {"model": SMALL, "seeds": 2, "lift": lift, "dtype": "float64", "batch_size": 13}
    stream, strategy = split(DIGITS), ER(Memory(capacity=20, batch=6))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="engine.compile")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        compiled = leaves(trained(stream, strategy, compile=True, **options))
    for key, value in leaves(trained(stream, strategy, **options)).items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-9, atol=1e-9)


def test_without_a_compiler_the_traced_program_runs_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler\nlong explanation")

    monkeypatch.setattr(trace, "compile_graph", fail)
    made = program(lambda w, x: (w * x).sum(), lifted=True, compiled=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for size in (3, 4):
            fixed, varying = inputs(True, size)
            torch.testing.assert_close(call(made.prepare(fixed, varying), fixed, varying), varying["x"].sum(-1))
    (warning,) = caught
    assert str(warning.message) == "engine.compile: falling back to the traced program (no C++ compiler)"


def test_a_run_without_a_compiler_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler")

    stream, options = split(PICTURES, 2), {"model": SMALL, "seeds": 2}
    expected = trained(stream, ER(), **options)
    monkeypatch.setattr(trace, "compile_graph", fail)
    with pytest.warns(UserWarning, match="falling back") as caught:
        got = trained(stream, ER(), compile=True, **options)
    assert len(caught) == 1
    assert_equal(got, expected)


# ---------------------------------------------------------------------- whole runs
def trained(stream: Any, strategy: Any, **options: Any) -> Any:
    """The learner after a whole stream."""
    session = Session(Job(stream, strategy, **options))
    (group,) = session.groups
    plan = make_plan(session.job, group)
    learner = make_learners(session.job, group, plan)
    for e in range(stream.length):
        learner.begin_experience(e)
        for block in plan.experience(e):
            for s in range(len(block)):
                learner.observe(block, s)
        learner.end_experience(e)
    return learner


def leaves(population: Population) -> dict[str, Tensor]:
    state = population.state
    return {**state.params, **state.buffers, **{f"memory.{k}": v for k, v in state.memory.items()}}


def assert_equal(one: Population, other: Population) -> None:
    for name, tensor in leaves(one).items():
        assert torch.equal(tensor, leaves(other)[name]), name


def assert_close(got: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


class Plain:
    """A learner as anyone would write it: a module, torch.optim, unpadded batches."""

    def __init__(
        self, seed: int, model: Any, shape: Any, classes: int, lr: float = 0.1, schedule: Any = None, mask: Any = None
    ) -> None:
        self.module = build(model, shape, classes, [seed])[0].double()
        self.optimiser = torch.optim.SGD(self.module.parameters(), lr=lr)
        self.schedule = schedule(self.optimiser) if schedule else None
        self.mask, self.number = mask, 0

    def observe(self, batch: Batch) -> None:
        self.module.train()
        logits = self.module(batch.x)
        if self.mask is not None:
            logits = logits.masked_fill(~self.mask(self.number, batch.task), -1e9)
        self.optimiser.zero_grad()
        nn.functional.cross_entropy(logits, batch.y).backward()
        self.optimiser.step()
        if self.schedule is not None:
            self.schedule.step()

    def end_experience(self, data: ExperienceData) -> None:
        self.number += 1

    @torch.no_grad()
    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        return torch.log_softmax(self.module.eval()(x), -1)


def plain(stream: Any, model: Any, options: dict[str, Any], **own: Any) -> nn.Module:
    """The module of a plain learner after the whole stream."""
    shape, classes = tuple(stream.data.shape), len(stream.classes)
    learner = Plain(0, model, shape, classes, **own)
    trained(stream, learner, dtype="float64", **options)
    return learner.module


@pytest.mark.parametrize("lift", ["never", "auto", "always"])
@pytest.mark.parametrize("model", [SMALL, ConvNet.factory(channels=(3,), hidden=8)])
def test_padding_an_uneven_batch_changes_nothing(lift: Any, model: Any) -> None:
    stream, options = split(PICTURES, 2), {"batch_size": 5, "epochs": 3}
    got = trained(stream, Finetune(), model=model, dtype="float64", lift=lift, **options)
    expected = plain(stream, model, options)
    for name, p in expected.named_parameters():
        assert_close(got.state.params[name][0], p.detach())
    assert len(got.blocks.program._programs) == 1


def normalised(shape: Any, classes: int) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 8))
    return nn.Sequential(body, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


@pytest.mark.parametrize("lift", ["never", "auto", "always"])
def test_batch_statistics_are_those_of_the_real_samples(lift: Any) -> None:
    stream, options = split(PICTURES, 2), {"batch_size": 4, "epochs": 3}
    got = trained(stream, Finetune(), model=normalised, dtype="float64", lift=lift, **options)
    expected = plain(stream, normalised, options)
    for name, p in expected.named_parameters():
        assert_close(got.state.params[name][0], p.detach())
    for name, b in expected.named_buffers():
        assert_close(got.state.buffers[name][0], b)
    assert len(got.blocks.program._programs) == 2  # 12 and 11 samples: batches of 4 and 3


# ---------------------------------------------------------------------- whatever changes is an input
@pytest.mark.parametrize("lift", ["never", "auto", "always"])
def test_the_learning_rate_is_followed(lift: Any) -> None:
    stream, options = split(PICTURES, 2), {"batch_size": 5, "epochs": 4}
    optim = SGD(0.2, schedule=Schedule("exponential", decay=0.8))
    got = trained(stream, Finetune(), model=SMALL, optim=optim, dtype="float64", lift=lift, **options)
    expected = plain(stream, SMALL, options, lr=0.2, schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8))
    for name, p in expected.named_parameters():
        assert_close(got.state.params[name][0], p.detach())


@pytest.mark.parametrize("lift", ["never", "auto", "always"])
@pytest.mark.parametrize("classes", ["seen", "experience"])
def test_the_class_mask_is_followed(lift: Any, classes: Any) -> None:
    stream = split(PICTURES, 4, class_order=[2, 0, 3, 1], train_classes=classes)
    table = stream.realise(0).classes

    def mask(number: int, task: Tensor) -> Tensor:
        return table[: number + 1].any(0) if classes == "seen" else table[task]

    options = {"batch_size": 4, "epochs": 2}
    got = trained(stream, Finetune(), model=SMALL, dtype="float64", lift=lift, **options)
    expected = plain(stream, SMALL, options, mask=mask)
    for name, p in expected.named_parameters():
        assert_close(got.state.params[name][0], p.detach())


@dataclass(frozen=True)
class Teacher(Strategy):
    """Pulls the parameters towards those at the end of the last experience."""

    pull: float = 0.5

    def init(self, net: Any, params: Any, spec: Spec) -> dict[str, Any]:
        return {"teacher": dict(params), "steps": torch.zeros(()), "seen": torch.zeros(spec.classes)}

    def penalty(self, net: Any, state: State) -> Tensor:
        assert isinstance(self.pull, Tensor)
        assert self.pull.shape == ()
        gaps = [(p - state.extra["teacher"][k]).square().sum() for k, p in state.params.items()]
        return self.pull * torch.stack(gaps).sum()

    def after_step(self, net: Any, old: State, new: State, batch: Batch, gradient: Any) -> dict[str, Any]:
        ones = torch.ones_like(new.extra["seen"])
        return {**new.extra, "steps": new.extra["steps"] + 1, "seen": new.extra["seen"] + ones * batch.weight.sum()}

    def consolidate(self, net: Any, state: State, data: ExperienceData) -> State:
        return state._replace(extra={**state.extra, "teacher": dict(state.params)})


@pytest.mark.parametrize("lift", ["never", "auto", "always"])
def test_a_teacher_and_counters_are_followed(lift: Any) -> None:
    stream, options = split(PICTURES, 2), {"batch_size": 5, "epochs": 2, "seeds": 2, "model": SMALL, "dtype": "float64"}
    got = trained(stream, Teacher(), grid={"strategy.pull": [0.0, 2.0]}, lift=lift, **options)
    free = trained(stream, Finetune(), lift=lift, **options)
    bound = trained(stream, Teacher(2.0), lift=lift, **options)
    for name, p in got.state.params.items():
        assert_close(p[:2], free.state.params[name])  # the grid's points are next to each other
        assert_close(p[2:], bound.state.params[name])
        assert torch.equal(got.state.extra["teacher"][name], p)
    assert got.state.extra["steps"].tolist() == [2 * 3 + 2 * 3] * 4
    assert (got.state.extra["seen"] == 2 * 23).all()  # padding weighs nothing


@dataclass(frozen=True)
class Keeper(Strategy):
    """Keeps beside each sample the task it came with, and checks what it is given."""

    memory: Memory = field(default_factory=lambda: Memory(capacity=9, batch=4))  # type: ignore[assignment]

    def keeps(self, spec: Spec) -> dict[str, Any]:
        return {"task": (), "pixels": (2, 3)}

    def loss(self, net: Any, state: State, batch: Batch, recalled: Any) -> Any:
        kept = {"task": batch.task.to(batch.x.dtype), "pixels": batch.x.flatten(1)[:, :6].unflatten(1, (2, 3))}
        (old,) = recalled
        wrong = (old.kept["pixels"] - old.x.flatten(1)[:, :6].unflatten(1, (2, 3))).abs().sum((1, 2))
        wrong = wrong + (old.kept["task"] - old.task).abs()
        # the loss counts what does not belong to its sample
        return (wrong * old.weight).sum() + 0 * net(state.params, batch.x, batch.task).logits.sum(), kept


@pytest.mark.parametrize("lift", ["never", "auto", "always"])
@pytest.mark.parametrize("admission", ["reservoir", "class_balanced", "ring"])
def test_what_is_kept_belongs_to_its_sample(lift: Any, admission: Any) -> None:
    strategy = Keeper(Memory(capacity=20 if admission == "ring" else 9, batch=4, admission=admission))
    session = Session(Job(split(DIGITS), strategy, model=SMALL, seeds=2, lift=lift, eval_every=5, batch_size=6))
    (group,) = session.groups
    plan = make_plan(session.job, group)
    learner: Any = make_learners(session.job, group, plan)
    for block in plan.experience(0):
        for s in range(len(block)):
            learner.observe(block, s)
            assert (learner.loss == 0).all()
            slots = block.batch["slot"][s]
            for own in slots:
                assert len(own[own < 9].unique()) == (own < 9).sum()


# ---------------------------------------------------------------------- strategies that a trace would get wrong
@dataclass(frozen=True)
class Wrong(Strategy):
    """One of several mistakes."""

    strength: float = 1.0
    kind: str = "item"
    table: ClassVar[Tensor] = torch.ones(10)

    def loss(self, net: Any, state: State, batch: Batch, recalled: Any) -> Any:
        logits = net(state.params, batch.x, batch.task).logits
        loss = cross_entropy(logits, batch.y, batch.weight)
        match self.kind:
            case "item":
                return loss * batch.weight.sum().item(), {}
            case "number":
                return loss * float(self.strength), {}
            case "branch":
                return (loss if loss > 0 else -loss), {}
            case "boolean":
                return cross_entropy(logits[batch.weight > 0], batch.y[batch.weight > 0], batch.weight), {}
            case "captured":
                return loss * self.table.sum(), {}
            case "random":
                return loss + torch.rand_like(logits).sum(), {}
        return loss, {}


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("kind", ["item", "number", "branch", "boolean", "captured", "random"])
def test_a_strategy_that_a_trace_would_get_wrong_is_refused(seeds: int, kind: str) -> None:
    with pytest.raises(TraceError):
        cl_lib.run(split(PICTURES, 2), Wrong(kind=kind), model=SMALL, seeds=seeds)


@pytest.mark.parametrize("seeds", [1, 2])
def test_dropout_in_the_model_is_refused(seeds: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 4))
    with pytest.raises(TraceError, match=r"dropout: leave it out of the model"):
        cl_lib.run(split(PICTURES, 2), Finetune(), model=model, seeds=seeds)


@dataclass(frozen=True)
class Eager(Finetune):
    traceable: ClassVar[bool] = False


@dataclass(frozen=True)
class Unlifted(Finetune):
    liftable: ClassVar[bool] = False


@pytest.mark.parametrize("strategy", [Eager(), Unlifted()])
def test_strategies_that_cannot_be_traced_or_lifted_give_the_same(strategy: Strategy) -> None:
    stream, options = split(PICTURES, 2), {"model": SMALL, "seeds": 2, "dtype": "float64", "epochs": 3}
    got, expected = trained(stream, strategy, **options), trained(stream, Finetune(), **options)
    for name, p in expected.state.params.items():
        assert_close(got.state.params[name], p)


def test_masked_logits_give_no_nan_where_the_weight_is_0() -> None:
    logits = torch.full((3, 4), -1e9, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 1, 2]), torch.zeros(3))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()  # type: ignore[union-attr]
    stream = split(PICTURES, 4, scenario="task")
    record = cl_lib.run(stream, ER(), model=SMALL, seeds=2)  # the first recall has weight 0 and masked classes
    assert [r["status"] for r in record.replicas] == ["ok", "ok"]
    assert np.isnan(record.arrays["loss"][:, 0]).all()  # nothing was trained on yet
    assert np.isfinite(record.arrays["loss"][:, 1:]).all()


@dataclass(frozen=True)
class Phased(Strategy):
    """Body and head in turn."""

    def phases(self, experience: int, spec: Spec) -> tuple[Phase, ...]:
        return (Phase("body", trainable=("body",)), Phase("none", trainable=()))


def test_phases_train_their_own_parameters_and_have_their_own_program() -> None:
    stream = split(PICTURES, 2)
    got = trained(stream, Phased(), model=SMALL, seeds=2)
    (before, _) = build(SMALL, PICTURES.shape, 4, [0, 1])
    for name, p in before.named_parameters():
        assert torch.equal(got.state.params[name][0], p) == (not name.startswith("body"))
    assert sorted(key[0].name for key in got.blocks.program._programs) == ["body", "none"]


# ---------------------------------------------------------------------- populations against replicas on their own
NETWORKS = {
    "mlp": SMALL,
    "convnet": ConvNet.factory(channels=(4,), hidden=8),
    "resnet": SlimResNet18.factory(width=4),
    "batchnorm": normalised,
}


@pytest.mark.parametrize("optim", [SGD(), SGD(momentum=0.9, weight_decay=1e-3, clip_norm=1.0), cl_lib.Adam()])
def test_three_replicas_of_an_mlp_equal_three_lifted_runs_bit_for_bit(optim: Any) -> None:
    stream, strategy = split(DIGITS), ER(Memory(capacity=20, batch=6))
    options = {"model": SMALL, "optim": optim, "batch_size": 13}
    options["lift"] = "always"
    together = trained(stream, strategy, seeds=[3, 0, 5], **options)
    for r, seed in enumerate((3, 0, 5)):
        alone = trained(stream, strategy, seeds=[seed], **options)
        for key, value in leaves(alone).items():
            assert torch.equal(value[0], leaves(together)[key][r]), key


def test_a_readout_is_the_same_alone_and_in_company() -> None:
    """That of RanPAC comes from a solver, whose result is transposed in memory."""
    options: Any = {"model": SMALL, "lift": "always", "batch_size": 32}
    strategy = RanPAC(expansion=100)
    together = cl_lib.run(split(DIGITS), strategy, seeds=3, **options)
    for seed in range(3):
        alone = cl_lib.run(split(DIGITS), strategy, seeds=[seed], **options)
        for name, values in together.arrays.items():
            assert np.array_equal(values[seed], alone.arrays[name][0], equal_nan=True), name


@pytest.mark.parametrize("lift", ["never", "auto", "always"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_replica_among_three_equals_a_single_run(name: str, lift: str) -> None:
    """Convolutions of several replicas are grouped ones, that add up in another order: close, not bit for bit."""
    stream, strategy = split(PICTURES, 2), ER(Memory(capacity=20, batch=6))
    options = {"model": NETWORKS[name], "dtype": "float64", "batch_size": 4, "epochs": 9}
    together = trained(stream, strategy, seeds=[3, 0, 5], **options)
    alone = trained(stream, strategy, seeds=[0], lift=lift, **options)
    assert together.plan.step >= 50
    for key, value in leaves(alone).items():
        assert_close(value[0], leaves(together)[key][1], atol=1e-9)


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_a_plain_learner_gives_the_same_matrix_as_fine_tuning(scenario: Any) -> None:
    stream = split(DIGITS, 5, scenario=scenario, train_classes="all")
    options = {"seeds": 2, "dtype": "float64", "epochs": 2, "batch_size": 32}
    expected = cl_lib.run(stream, Finetune(), model=SMALL, **options)
    got = cl_lib.run(stream, lambda seed: Plain(seed, SMALL, (1, 8, 8), len(stream.classes)), **options)
    np.testing.assert_allclose(got.arrays["matrix.accuracy"], expected.arrays["matrix.accuracy"], rtol=0, atol=0)
    np.testing.assert_allclose(got.arrays["matrix.nll"], expected.arrays["matrix.nll"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(got.arrays["age"], expected.arrays["age"])


def test_replicas_whose_class_orders_differ_in_size_form_groups_and_stay_in_order() -> None:
    stream = split(DIGITS, 5, class_order="seed")
    options = {"model": SMALL, "lift": "always", "batch_size": 64}
    session = Session(Job(stream, ER(), seeds=3, **options))
    assert sorted(m for group in session.groups for m in group.members) == [0, 1, 2]
    assert len(session.groups) > 1
    together = cl_lib.run(stream, ER(), seeds=3, **options)
    for seed in range(3):
        alone = cl_lib.run(stream, ER(), seeds=[seed], **options)
        assert (alone.arrays["matrix.nll"][0].tobytes()) == together.arrays["matrix.nll"][seed].tobytes()
        assert alone.metrics["accuracy"].per_seed == together.metrics["accuracy"].per_seed[seed : seed + 1]


def test_a_replica_that_diverges_is_marked_and_leaves_the_others_alone() -> None:
    stream, options = permuted(DIGITS, 2), {"model": SMALL, "seeds": 2, "lift": "always", "batch_size": 64}
    record = cl_lib.run(stream, Finetune(), grid={"optim.lr": [0.1, 1e30, 0.3]}, **options)
    healthy = cl_lib.run(stream, Finetune(), grid={"optim.lr": [0.1, 0.3]}, **options)
    assert [r["status"] for r in record.replicas] == ["ok"] * 2 + ["diverged"] * 2 + ["ok"] * 2
    for replica in record.replicas:
        assert (replica["diverged_at"] is not None) == (replica["hyper"]["optim.lr"] == 1e30)
    assert all(0 < r["diverged_at"] <= 3 for r in record.replicas[2:4])
    for metric, other in zip(record.metrics.values(), healthy.metrics.values(), strict=True):
        assert metric.per_seed[2:4] == [None, None]
        assert metric.per_seed[:2] + metric.per_seed[4:] == other.per_seed
        assert (metric.mean, metric.std) == (other.mean, other.std)
    keep = [0, 1, 4, 5]
    for name in ("matrix.nll", "matrix.accuracy", "loss"):
        assert record.arrays[name][keep].tobytes() == healthy.arrays[name].tobytes()
    assert np.isfinite(record.arrays["matrix.accuracy"][2:4, 0]).all()  # before it diverged
    assert np.isnan(record.arrays["matrix.accuracy"][2:4, 1:]).all()
    assert [point["metrics"]["accuracy"]["mean"] for point in record.grid][1] is None


@pytest.mark.parametrize("head", ["multi", "cosine"])
def test_a_population_takes_every_head(head: str) -> None:
    record = cl_lib.run(split(PICTURES, 2), Finetune(), model=MLP.factory(hidden=(8,), head=head), seeds=2)
    assert [r["status"] for r in record.replicas] == ["ok", "ok"]


@pytest.mark.parametrize("model", [ConvNet.factory(channels=(4,), hidden=8), SlimResNet18.factory(width=4)])
def test_convolutions_lifted_always_are_bit_for_bit_the_same_for_any_number_of_replicas(model: Any) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options: dict[str, Any] = {"model": model, "lift": "always", "epochs": 5, "batch_size": 4}
    together = cl_lib.run(split(PICTURES, 2), ER(Memory(8, 4)), seeds=3, **options)
    for r in range(3):
        alone = cl_lib.run(split(PICTURES, 2), ER(Memory(8, 4)), seeds=[r], **options)
        for name in ("matrix.nll", "matrix.accuracy", "loss"):
            assert together.arrays[name][r].tobytes() == alone.arrays[name][0].tobytes()
    torch.set_num_threads(threads)


def test_batch_norm_with_a_last_batch_of_one_sample_is_refused_before_work_starts() -> None:
    model = SlimResNet18.factory(width=4, norm="batch")
    with pytest.raises(cl_lib.InputError, match=r"batch_size=11: leaves a last batch of one sample in experience 1"):
        cl_lib.run(split(PICTURES, 2), Finetune(), model=model, batch_size=11)
