"""Oracles of the strategies that bend the gradient: optimality conditions, inner products, answers that stay."""

import numpy as np
import pytest
import torch
from running import experienced, job, same_params, trained
from scipy.optimize import minimize
from torch import nn

import cl_lib
from cl_lib.curvature import inner
from cl_lib.curvature.algebra import eigh
from cl_lib.engine.net import FunctionalNet
from cl_lib.harness.session import Session
from cl_lib.strategies import AGEM, GEM, GPM, OGD, Finetune
from cl_lib.types import Batch, Recalled, Spec, State

SPEC = Spec(classes=3, experiences=3, capacity=0, shape=(6,), features=5)


def network(seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    return module, {k: p.detach() for k, p in module.named_parameters()}, FunctionalNet(module, {})


def samples(count, seed, tasks=1):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 6, dtype=torch.float64, generator=g), torch.randint(0, 3, (count,), generator=g)
    return x, y, torch.ones(count, dtype=torch.float64), torch.randint(0, tasks, (count,), generator=g)


# ---------------------------------------------------------------------- GEM
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_cone_weights_meet_the_optimality_conditions(seed, margin):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4, 12)) if seed % 2 else np.repeat(rng.normal(size=(2, 12)), 2, 0)  # also singular ones
    k, q = rows @ rows.T, rows @ rng.normal(size=12)
    v = torch.ops.cl_lib.cone_weights(*(torch.from_numpy(a) for a in (k, q, np.full(4, margin)))).numpy()
    slope = k @ v + q
    assert (v >= margin - 1e-12).all()
    assert (slope >= -1e-8).all()
    assert abs(slope @ (v - margin)) < 1e-8
    other = minimize(lambda u: 0.5 * u @ k @ u + u @ q, np.full(4, margin + 1.0), bounds=[(margin, None)] * 4)
    assert 0.5 * v @ k @ v + v @ q <= other.fun + 1e-6


def test_gem_hurts_no_past_experience_and_stays_as_near_as_can_be():
    module, params, net = network()
    strategy, bent = GEM(), 0
    for seed in range(20):
        new, old = Batch(*samples(8, seed)), Recalled(*samples(40, 100 + seed, 3), slot=torch.arange(40))
        extra = {"past": torch.tensor([1.0, 1.0, 0.0]).double()}
        got = strategy.gradient(net, State(params, {}, {}, {}, extra), new, (old,)).grads
        plain = Finetune().gradient(net, State(params, {}, {}, {}, {}), new, ()).grads
        references = []
        for e in (0, 1):
            own = old.task == e
            loss = nn.functional.cross_entropy(module(old.x[own]), old.y[own])
            references.append(dict(zip(params, torch.autograd.grad(loss, list(module.parameters())), strict=True)))
        assert min(float(inner(got, r)) for r in references) > -1e-10
        violated = min(float(inner(plain, r)) for r in references) < 0
        moved = {k: got[k] - plain[k] for k in got}
        if violated:
            bent += 1
            # what is added lies in the cone, and is orthogonal to the result: a projection
            assert abs(float(inner(moved, got))) < 1e-10
        else:
            assert float(inner(moved, moved)) < 1e-20
    assert 0 < bent < 20


def test_gem_with_one_constraint_is_agem():
    _, params, net = network(3)
    for seed in range(10):
        new, old = Batch(*samples(8, seed)), Recalled(*samples(12, 50 + seed), slot=torch.arange(12))
        extra = {"past": torch.tensor([1.0, 0.0, 0.0]).double()}
        gem = GEM().gradient(net, State(params, {}, {}, {}, extra), new, (old,)).grads
        agem = AGEM().gradient(net, State(params, {}, {}, {}, {}), new, (old,)).grads
        assert all(torch.allclose(gem[k], agem[k], atol=1e-12) for k in gem)


# ---------------------------------------------------------------------- OGD
def test_ogd_steps_keep_the_logits_of_past_samples_to_first_order():
    module, params, net = network()
    strategy = OGD(directions=12)
    state = State(params, {}, {}, {}, strategy.init(net, params, SPEC))
    data, x, y, _ = experienced(20, (6,), 3)
    state = strategy.consolidate(net, state, data)
    basis = state.extra["basis"][0]
    assert torch.allclose(basis @ basis.T, torch.eye(4).double(), atol=1e-12)
    assert (state.extra["basis"][1:] == 0).all()
    new = Batch(*samples(8, 9))
    got = strategy.gradient(net, state, new, ()).grads
    flat = torch.cat([g.flatten() for g in got.values()])
    assert (basis @ flat).abs().max() < 1e-12
    plain = Finetune().gradient(net, state, new, ()).grads
    for grads, bound in ((got, 1e-6), (plain, None)):
        with torch.no_grad():
            stepped = {k: p - 1e-4 * grads[k] for k, p in params.items()}
            moved = torch.func.functional_call(module, stepped, (x[:4],)) - module(x[:4])
        largest = float(moved[torch.arange(4), y[:4]].abs().max())
        assert largest < bound if bound is not None else largest > 1e-5


def test_ogd_directions_of_later_experiences_are_new_ones():
    learner = trained(OGD(directions=10), epochs=1)
    basis = learner.state.extra["basis"][0].flatten(0, 1)
    gram = basis @ basis.T
    held = gram.diagonal() > 0.5
    assert held.sum() >= 8
    assert (gram - torch.diag(held.double())).abs().max() < 1e-10


# ---------------------------------------------------------------------- GPM
def test_gpm_keeps_what_layers_answer_to_past_inputs():
    _, params, net = network()
    strategy = GPM(energy=1.0, samples=4)
    state = State(params, {}, {}, {}, strategy.init(net, params, SPEC))
    data, x, *_ = experienced(4, (6,), 3)
    state = strategy.consolidate(net, state, data)
    got = strategy.gradient(net, state, Batch(*samples(8, 9)), ()).grads
    assert (got["0.weight"] @ x.T).abs().max() < 1e-12
    hidden = torch.relu(x @ params["0.weight"].T + params["0.bias"])
    assert (got["2.weight"] @ hidden.T).abs().max() < 1e-12
    assert got["0.weight"].abs().max() > 1e-3  # four of six directions are taken
    assert (got["0.bias"] == 0).all()


@pytest.mark.parametrize("energy", [0.3, 0.8, 0.99])
def test_gpm_takes_the_fewest_directions_that_keep_the_energy(energy):
    rows = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 8)
    second = rows.T @ rows
    m = GPM(energy=energy).grown(torch.zeros(7, 7).double(), second)
    values = np.sort(np.linalg.eigvalsh(second.numpy()))[::-1]
    fewest = int(np.searchsorted(values.cumsum() / values.sum(), energy)) + 1
    assert round(float(m.trace())) == fewest
    assert torch.allclose(m @ m, m, atol=1e-12)
    again = GPM(energy=energy).grown(m, second)
    assert torch.allclose(again, m, atol=1e-12)  # nothing is missing


def test_eigenvectors_of_layers_with_dead_units_and_of_diverged_ones():
    """LAPACK gives up on ten or so of these 25 in float32, and on a small matrix of NaN."""
    g = torch.Generator().manual_seed(0)
    for alive in (2, 5, 10, 20, 50):
        for _ in range(5):
            inputs, units = torch.zeros(100, 256), torch.randperm(256, generator=g)[:alive]
            inputs[:, units] = 30 * torch.randn(100, alive, generator=g).relu() * torch.logspace(0, -3, alive)
            second = inputs.mT @ inputs
            values, vectors = eigh(second)
            largest = float(values[-1])
            assert float((second @ vectors - vectors * values).abs().max()) < 1e-5 * largest
            expected = np.linalg.eigvalsh(second.double().numpy())
            np.testing.assert_allclose(values.double().numpy(), expected, rtol=0, atol=1e-6 * largest)
    both = torch.stack([torch.full((4, 4), torch.nan), torch.diag(torch.arange(4.0))])
    values, _ = eigh(both)
    assert values[0].isnan().all()
    assert values[1].tolist() == [0, 1, 2, 3]
    m = torch.diag(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert torch.equal(GPM().grown(m, both[0]), m)


def test_gpm_projects_convolutions_by_their_patches():
    data = cl_lib.datasets.from_arrays(
        (np.random.default_rng(0).integers(0, 255, (40, 1, 8, 8)).astype(np.uint8), np.arange(40) % 4),
        (np.zeros((4, 1, 8, 8), np.uint8), np.arange(4)),
    )
    stream = cl_lib.streams.split(data, 2)
    learner = trained(
        GPM(energy=1.0, samples=20), stream=stream, model=cl_lib.models.ConvNet.factory(channels=(3, 4), hidden=5)
    )
    for m in learner.state.extra["projector"].values():
        assert torch.allclose(m[0] @ m[0], m[0], atol=1e-9)


# ---------------------------------------------------------------------- reductions, mistakes
@pytest.mark.parametrize("reduced", [GEM(cl_lib.Memory(0, 8, "ring")), GPM(energy=0.0)], ids=lambda s: type(s).__name__)
def test_reduces_to_fine_tuning(reduced):
    same_params(trained(reduced), trained(Finetune()))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (OGD(directions=1), "directions=1: must be 2 or more, one for each experience"),
        (GEM(margin=-1.0), "margin=-1.0: must be 0 or more"),
        (GPM(energy=1.5), "energy=1.5: must lie between 0 and 1"),
        (GPM(samples=0), "samples=0: must be 1 or more"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))
