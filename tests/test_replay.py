"""Oracles of the replay strategies: hand-written loops, brute force, definitions."""

import copy

import numpy as np
import pytest
import torch
from running import SMALL, equals_hand_loop, job, mean_over, same_params, trained
from scipy import stats
from torch import nn
from torch.nn import functional as F

import cl_lib
from cl_lib.checks import toy_data
from cl_lib.engine.net import FunctionalNet
from cl_lib.harness.session import Session
from cl_lib.strategies import CLSER, DER, ER, ERACE, MIR, RAR, SCR, Finetune, GenerativeReplay
from cl_lib.strategies.generative_replay import free_energy, gaussian
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


# ---------------------------------------------------------------------- RAR
def test_rar_moves_recalled_samples_towards_the_nearest_new_one_of_another_class():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    params = {k: p.detach() for k, p in module.named_parameters()}
    new, old = Batch(*samples(8, 0)), Recalled(*samples(12, 1), slot=torch.arange(12))
    strategy, net = RAR(epsilon=0.2, steps=4), FunctionalNet(module, {})
    moved = strategy.moved(net, State(params, {}, {}, {}, {}), new, old)
    assert (moved - old.x).abs().max() <= 0.2 + 1e-12
    features = lambda x: torch.relu(module[0](x))
    away = (features(old.x)[:, None] - features(new.x)).square().sum(-1).detach()
    for i in range(12):
        other = [j for j in range(8) if new.y[j] != old.y[i]]
        goal = features(new.x[min(other, key=lambda j, i=i: float(away[i, j]))]).detach()
        x = old.x[i].clone()
        for _ in range(4):
            x = x.detach().requires_grad_()
            (g,) = torch.autograd.grad((features(x) - goal).square().sum(), x)
            x = old.x[i] + (x - 0.1 * g.sign() - old.x[i]).clamp(-0.2, 0.2)
        assert torch.allclose(moved[i], x.detach(), atol=1e-12)


def test_rar_without_the_moved_samples_is_er():
    same_params(trained(RAR(SMALL, gamma=0.0)), trained(ER(SMALL)))


# ---------------------------------------------------------------------- SCR
def test_scr_contrast_equals_its_definition():
    g = torch.Generator().manual_seed(0)
    v = F.normalize(torch.randn(7, 4, dtype=torch.float64, generator=g), dim=1)
    y, weight = torch.tensor([0, 1, 1, 2, 0, 1, 0]), torch.tensor([1.0, 1, 1, 1, 1, 1, 0]).double()
    got = SCR(temperature=0.3).contrast(v, Batch(v, y, weight, torch.zeros(7, dtype=torch.long)))
    terms = []
    for i in range(6):
        partners = [p for p in range(6) if p != i and y[p] == y[i]]
        total = sum((v[i] @ v[a] / 0.3).exp() for a in range(6) if a != i)
        if partners:
            terms.append(-sum((v[i] @ v[p] / 0.3) - total.log() for p in partners) / len(partners))
    assert len(terms) == 5
    assert float(got) == pytest.approx(float(sum(terms) / 5), rel=1e-12)


def test_scr_answers_with_the_nearest_class_mean_of_the_memory():
    learner = trained(SCR(SMALL, width=5))
    learner.begin_evaluation()
    contents = learner.plan.contents()
    index = contents["index"][0, : int(contents["count"][0])]
    own = {k: p[0] for k, p in learner.state.params.items()}

    def features(x):
        return F.normalize(torch.relu(F.linear(x, own["body.1.weight"], own["body.1.bias"])), dim=1)

    data = toy_data()
    z, y = features(data.train.x[index].double()), data.train.y[index]
    means = torch.stack([F.normalize(z[y == c].mean(0), dim=0) for c in range(4)])
    x = data.test.x.double()
    expected = (features(x)[:, None] - means).square().sum(-1).argmin(1)
    got = learner.predict(x, torch.zeros(1, len(x), dtype=torch.long))[0].argmax(1)
    assert torch.equal(got, expected)


def test_scr_trains_its_projection_head():
    session = Session(job(SCR(SMALL, width=5)))
    rows = iter(session)
    next(rows)
    before = session.learner.state.params["~projection.2"].clone()
    for _ in rows:
        pass
    assert (session.learner.state.params["~projection.2"] - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (RAR(gamma=-1.0), "gamma=-1.0: must be 0 or more"),
        (RAR(steps=0), "steps=0: must be 1 or more"),
        (SCR(temperature=0.0), "temperature=0.0: must be above 0"),
        (SCR(width=0), "width=0: must be 1 or more"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_of_these_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))


# ---------------------------------------------------------------------- generative replay
def test_free_energy_equals_torchs_distributions():
    g = torch.Generator().manual_seed(0)
    shapes = {"encode": (6, 5), "code": (5, 4), "decode": (2, 5), "draw": (5, 6)}
    params = {f"~{k}.weight": torch.randn(*s, dtype=torch.float64, generator=g) / 3 for k, s in shapes.items()}
    params |= {f"~{k}.bias": torch.randn(s[1], dtype=torch.float64, generator=g) / 3 for k, s in shapes.items()}
    x, drawn = (torch.randn(8, n, dtype=torch.float64, generator=g) for n in (6, 2))
    layer = lambda v, name: v @ params[f"~{name}.weight"] + params[f"~{name}.bias"]
    mean, log_variance = layer(layer(x, "encode").relu(), "code").chunk(2, 1)
    coded = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(coded, torch.distributions.Normal(torch.zeros_like(mean), 1.0)).sum(1)
    back = layer(layer(mean + coded.scale * drawn, "decode").relu(), "draw")
    density = torch.distributions.Normal(back, 1.0).log_prob(x).sum(1) + 3 * np.log(2 * np.pi)
    assert torch.allclose(free_energy(params, x, drawn), (kl - density) / 6, atol=1e-12)


def test_numbers_made_gaussian_are():
    uniform = torch.rand(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert stats.kstest(gaussian(uniform).numpy(), "norm").pvalue > 0.01
    assert torch.isfinite(gaussian(torch.tensor([0.0, 1 - 2**-24]))).all()


def test_generative_replay_learns_the_first_experience_as_fine_tuning():
    one = {"stream": cl_lib.streams.split(toy_data(), 1)}
    learner, plain = trained(GenerativeReplay(codes=3, hidden=10), **one), trained(Finetune(), **one)
    for k, p in plain.state.params.items():
        assert (learner.state.params[k] - p).abs().max() < 1e-12


def test_generative_replay_keeps_old_classes():
    """Class-incremental digits, where fine-tuning answers with the newest two classes alone."""
    stream = cl_lib.streams.split(cl_lib.datasets.digits(), train_classes="seen")
    record = cl_lib.run(stream, GenerativeReplay(), seeds=1, epochs=20, optim=cl_lib.Adam(1e-3))
    assert record.metrics["accuracy"].mean > 0.3


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (GenerativeReplay(codes=0), "codes=0: must be 1 or more"),
        (GenerativeReplay(temperature=0.0), "temperature=0.0: must be above 0"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_of_generative_replay_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))
