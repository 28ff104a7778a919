"""Optimisers on stacked parameters against torch.optim, replica by replica, in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_lib.engine.optim import SGD, Adam, Schedule
from cl_lib.errors import InputError

R, STEPS = 3, 30
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "scale": ()}
LR = [0.3, 0.05, 0.01]


def start() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {k: torch.randn(R, *s, generator=generator, dtype=torch.float64) for k, s in SHAPES.items()}


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1 + step)
    return {k: torch.randn(R, *s, generator=generator, dtype=torch.float64) for k, s in SHAPES.items()}


def ours(optimiser: SGD | Adam, hyper: dict[str, list[float]], factors: list[float] | None = None) -> dict[str, Tensor]:
    """Parameters after `STEPS` steps, all replicas at once."""
    params = start()
    numbers = {k: torch.tensor(v, dtype=torch.float64) for k, v in hyper.items()}
    state = optimiser.init(params, numbers)
    for step in range(STEPS):
        lr = numbers["lr"] * (factors[step] if factors else 1.0)
        optimiser.update_(params, gradients(step), state, numbers, lr)
    return params


def alone(optimiser: SGD | Adam, hyper: dict[str, list[float]], r: int) -> dict[str, Tensor]:
    """The same for one replica, without the replica axis and with 0-d hyper-parameters."""
    params = {k: p[r].clone() for k, p in start().items()}
    numbers = {k: torch.tensor(v[r], dtype=torch.float64) for k, v in hyper.items()}
    state = optimiser.init(params, numbers)
    for step in range(STEPS):
        optimiser.update_(params, {k: g[r] for k, g in gradients(step).items()}, state, numbers, numbers["lr"])
    return params


def theirs(
    make: Callable[[list[nn.Parameter], int], torch.optim.Optimizer],
    clip: list[float] | None = None,
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
) -> dict[str, Tensor]:
    """Parameters after `STEPS` steps of torch.optim, one replica after the other."""
    out = start()
    for r in range(R):
        params = [nn.Parameter(p[r].clone()) for p in start().values()]
        optimiser = make(params, r)
        scheduler = schedule(optimiser) if schedule else None
        for step in range(STEPS):
            for p, g in zip(params, gradients(step).values(), strict=True):
                p.grad = g[r].clone()
            if clip:
                nn.utils.clip_grad_norm_(params, clip[r])
            optimiser.step()
            if scheduler:
                scheduler.step()
        for own, p in zip(out.values(), params, strict=True):
            own[r] = p.detach()
    return out


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- SGD and Adam
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [None, [0.9, 0.5, 0.0]])
@pytest.mark.parametrize("decay", [None, [0.1, 0.0, 1e-3]])
@pytest.mark.parametrize("clip", [None, [0.5, 2.0, 100.0]])
def test_sgd_equals_torch(
    nesterov: bool, momentum: list[float] | None, decay: list[float] | None, clip: list[float] | None
) -> None:
    if nesterov:
        momentum = [0.9, 0.5, 0.1] if momentum else [0.9] * 3
    given = {"lr": LR, "momentum": momentum, "weight_decay": decay, "clip_norm": clip}
    hyper = {k: v for k, v in given.items() if v is not None}

    def make(params: list[nn.Parameter], r: int) -> torch.optim.Optimizer:
        own = {k: v[r] for k, v in hyper.items() if k != "clip_norm"}
        return torch.optim.SGD(params, nesterov=nesterov, **own)

    got = ours(SGD(nesterov=nesterov), hyper)
    assert_same(got, theirs(make, clip))
    for r in range(R):
        assert_same({k: p[r] for k, p in got.items()}, alone(SGD(nesterov=nesterov), hyper, r))


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [None, [0.1, 0.0, 1e-2]])
@pytest.mark.parametrize("clip", [None, [0.5, 2.0, 100.0]])
def test_adam_equals_torch(decoupled: bool, decay: list[float] | None, clip: list[float] | None) -> None:
    hyper = {"lr": LR, "beta1": [0.9, 0.8, 0.0], "beta2": [0.999, 0.9, 0.99], "eps": [1e-8, 1e-4, 1e-2]}
    hyper |= {} if decay is None else {"weight_decay": decay}
    hyper |= {} if clip is None else {"clip_norm": clip}
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam

    def make(params: list[nn.Parameter], r: int) -> torch.optim.Optimizer:
        betas = hyper["beta1"][r], hyper["beta2"][r]
        return kind(params, lr=LR[r], betas=betas, eps=hyper["eps"][r], weight_decay=decay[r] if decay else 0.0)

    got = ours(Adam(decoupled=decoupled), hyper)
    assert_same(got, theirs(make, clip))
    for r in range(R):
        assert_same({k: p[r] for k, p in got.items()}, alone(Adam(decoupled=decoupled), hyper, r))


def test_parameters_are_updated_in_place_and_gradients_left_alone() -> None:
    for optimiser in (SGD(), Adam()):
        params, grads = start(), gradients(0)
        hyper = {"lr": LR, "momentum": LR, "weight_decay": LR, "beta1": LR, "beta2": LR, "eps": LR, "clip_norm": LR}
        numbers = {k: torch.tensor(v, dtype=torch.float64) for k, v in hyper.items()}
        state, before = optimiser.init(params, numbers), dict(params)
        for _ in range(2):
            optimiser.update_(params, grads, state, numbers, numbers["lr"])
        assert all(params[k] is before[k] for k in params)
        assert all(not torch.equal(params[k], start()[k]) for k in params)
        assert all(torch.equal(g, gradients(0)[k]) for k, g in grads.items())


def test_gradients_of_some_parameters_leave_the_others() -> None:
    params, hyper = start(), {"lr": torch.tensor(LR, dtype=torch.float64)}
    SGD().update_(params, {"scale": torch.ones(R, dtype=torch.float64)}, {}, hyper, hyper["lr"])
    assert torch.equal(params["0.bias"], start()["0.bias"])
    torch.testing.assert_close(params["scale"], start()["scale"] - hyper["lr"])


# ---------------------------------------------------------------------- schedules
@pytest.mark.parametrize(
    ("schedule", "counterpart"),
    [
        (Schedule("constant"), lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0)),
        (Schedule("exponential", decay=0.9), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
        (Schedule("cosine"), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS)),
        (
            Schedule("step", decay=0.2, milestones=(0.3, 0.5, 0.9)),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [9, 15, 27], 0.2),
        ),
    ],
    ids=lambda v: getattr(v, "kind", ""),
)
def test_schedules_equal_torch(schedule: Schedule, counterpart: Any) -> None:
    factors = schedule.factors(0, STEPS, STEPS)
    got = ours(SGD(), {"lr": LR}, factors)
    assert_same(got, theirs(lambda params, r: torch.optim.SGD(params, lr=LR[r]), schedule=counterpart))


def test_cosine_ends_at_its_final_factor_as_in_torch() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20, eta_min=0.25)
    expected = []
    for _ in range(20):
        expected.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    assert Schedule("cosine", final=0.25).factors(0, 20, 20) == pytest.approx(expected, abs=1e-12)


def test_a_schedule_can_be_asked_in_parts() -> None:
    for kind in ("constant", "exponential", "cosine", "step"):
        schedule = Schedule(kind)  # type: ignore[arg-type]
        assert schedule.factors(0, 7, 20) + schedule.factors(7, 13, 20) == schedule.factors(0, 20, 20)


# ---------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("optimiser", "message"),
    [
        (SGD(lr=-0.1), r"optim\.lr=-0\.1: must be a number, 0 or more"),
        (SGD(lr=math.nan), r"optim\.lr=nan"),
        (SGD(lr=math.inf), r"optim\.lr=inf"),
        (SGD(lr="0.1"), r"optim\.lr='0\.1'"),  # type: ignore[arg-type]
        (SGD(lr=True), r"optim\.lr=True"),
        (SGD(momentum=1.0), r"optim\.momentum=1\.0: must be a number, 0 or more and below 1"),
        (SGD(weight_decay=-1), r"optim\.weight_decay=-1"),
        (SGD(nesterov=True), r"optim\.nesterov=true: needs optim\.momentum above 0"),
        (SGD(clip_norm=0.0), r"optim\.clip_norm=0\.0: must be above 0, or null"),
        (Adam(beta1=1.0), r"optim\.beta1=1\.0"),
        (Adam(beta2=-0.1), r"optim\.beta2=-0\.1"),
        (Adam(eps=-1e-8), r"optim\.eps"),
        (Adam(clip_norm=-1), r"optim\.clip_norm=-1"),
        (SGD(schedule=Schedule("linear")), r"optim\.schedule\.kind='linear': must be one of constant"),  # type: ignore[arg-type]
        (Adam(schedule=Schedule(span="epoch")), r"optim\.schedule\.span='epoch': must be one of run, experience"),  # type: ignore[arg-type]
    ],
)
def test_check_names_what_cannot_work(optimiser: SGD | Adam, message: str) -> None:
    with pytest.raises(InputError, match=message):
        optimiser.check()


def test_check_passes_what_works() -> None:
    SGD(lr=0, momentum=0.9, nesterov=True, clip_norm=1).check()
    Adam(decoupled=True, weight_decay=0.1, schedule=Schedule("step", span="experience")).check()
