"""Oracles of the replay strategies: hand-written loops, brute force, definitions."""

import copy

import pytest
import torch
from running import SMALL, equals_hand_loop, job, mean_over, same_params, trained
from torch import nn
from torch.nn import functional as F

import cl_lib
from cl_lib.engine.net import FunctionalNet
from cl_lib.session import Session
from cl_lib.strategies import CLSER, DER, ER, ERACE, MIR, Finetune
from cl_lib.types import Batch, Recalled, State

NONE = cl_lib.Memory(capacity=0, batch=8)


def test_er_ace_equals_a_hand_written_loop():
    def loss(net, new, draws):
        answer, present = net(new[0]), new[1].unique()
        place = torch.searchsorted(present, new[1])
        old = F.cross_entropy(net(draws[0][0]), draws[0][1], reduction="none")
        return F.cross_entropy(answer[:, present], place) + mean_over(draws[0][2], old)

    equals_hand_loop(ERACE(SMALL), loss)


def test_der_equals_a_hand_written_loop_that_stores_logits_before_the_update():
    stored = torch.zeros(21, 4, dtype=torch.float64)

    def loss(net, new, draws):
        (dark,) = draws
        answer = net(new[0])
        error = (net(dark[0]) - stored[dark[3]]).square().mean(1)
        value = F.cross_entropy(answer, new[1]) + 0.3 * mean_over(dark[2], error)
        for i, slot in enumerate(new[3]):
            stored[slot] = answer[i].detach()
        return value

    equals_hand_loop(DER(SMALL, alpha=0.3), loss)


def samples(count, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, dtype=torch.float64, generator=g)
    return (
        x,
        torch.randint(0, 3, (count,), generator=g),
        torch.ones(count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.long),
    )


@pytest.mark.parametrize("seed", range(5))
def test_mir_replays_what_a_brute_force_step_ranks_highest(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    params = {k: p.detach() for k, p in module.named_parameters()}
    new, pool = Batch(*samples(8, seed)), Recalled(*samples(30, 100 + seed), slot=torch.arange(30))
    pool.weight[25:] = 0  # padding is never chosen
    strategy, net = MIR(cl_lib.Memory(batch=6), candidates=30, eta=0.3), FunctionalNet(module, {})

    stepped = copy.deepcopy(module)
    grads = torch.autograd.grad(F.cross_entropy(stepped(new.x), new.y), list(stepped.parameters()))
    with torch.no_grad():
        for p, g in zip(stepped.parameters(), grads, strict=True):
            p -= 0.3 * g
        rise = [
            float(F.cross_entropy(stepped(x[None]), y[None]) - F.cross_entropy(module(x[None]), y[None]))
            for x, y in zip(pool.x, pool.y, strict=True)
        ]
    assert torch.allclose(
        strategy.interference(net, State(params, {}, {}, {}, {}), new, pool), torch.tensor(rise).double(), atol=1e-12
    )
    best = sorted(range(25), key=lambda i: -rise[i])[:6]
    x, y = torch.cat([new.x, pool.x[best]]), torch.cat([new.y, pool.y[best]])
    expected = torch.autograd.grad(F.cross_entropy(module(x), y), list(module.parameters()))
    got = strategy.gradient(net, State(params, {}, {}, {}, {}), new, (pool,)).grads
    for g, e in zip(got.values(), expected, strict=True):
        assert torch.allclose(g, e, atol=1e-12)


def test_cls_er_equals_a_hand_written_loop():
    lam, alpha, averages, steps = 0.4, (0.8, 0.9), {}, [0]
    strategy = CLSER(SMALL, lam=lam, alpha_plastic=0.8, alpha_stable=0.9, rate_plastic=1.0, rate_stable=1.0)

    def loss(net, new, draws):
        (old,) = draws
        if not averages:
            averages.update(plastic=copy.deepcopy(net), stable=copy.deepcopy(net))
        elif steps[0]:  # after the last step
            keep = [min(1 - 1 / (steps[0] + 1), a) for a in alpha]
            for own, k in zip(averages.values(), keep, strict=True):
                for p, q in zip(own.parameters(), net.parameters(), strict=True):
                    p.data = k * p.data + (1 - k) * q.data
        steps[0] += 1
        real = old[2] > 0
        x, y = torch.cat([new[0], old[0][real]]), torch.cat([new[1], old[1][real]])
        taught = [own(old[0]).detach() for own in averages.values()]
        sure = [F.softmax(t, 1)[torch.arange(len(t)), old[1]] for t in taught]
        target = torch.where((sure[0] > sure[1])[:, None], *taught)
        return F.cross_entropy(net(x), y) + lam * mean_over(old[2], (net(old[0]) - target).square().mean(1))

    equals_hand_loop(strategy, loss)


def test_cls_er_averages_stay_where_they_are_at_rate_zero():
    learner = trained(CLSER(SMALL, rate_plastic=0.0, rate_stable=0.0))
    start = learner.module
    assert all(torch.equal(learner.state.extra["stable"][k][0], p.double()) for k, p in start.named_parameters())


@pytest.mark.parametrize("reduced", [DER(NONE), DER(SMALL, alpha=0.0), MIR(NONE), CLSER(NONE)], ids=repr)
def test_reduces_to_fine_tuning(reduced):
    same_params(trained(reduced), trained(Finetune()))


def test_mir_with_as_many_candidates_as_are_replayed_is_er():
    same_params(trained(MIR(SMALL, candidates=8)), trained(ER(SMALL)), 1e-10)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (MIR(SMALL, candidates=3), "candidates=3: must be at least strategy.memory.batch=8"),
        (MIR(eta=-1.0), "eta=-1.0: must be 0 or more"),
        (CLSER(lam=-1.0), "lam=-1.0: must be 0 or more"),
        (CLSER(rate_stable=1.5), "rate_stable=1.5: must lie between 0 and 1"),
        (DER(alpha=float("inf")), "alpha=inf: must be a finite number"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))
