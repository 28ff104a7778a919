"""Oracles of the strategies that renew units: what the network answers is what it would without them."""

import pytest
import torch
from running import job, same_params, trained
from torch import nn

import cl_lib
from cl_lib.engine.net import FunctionalNet
from cl_lib.harness.session import Session
from cl_lib.strategies import ContinualBackprop, Finetune, Gradient, ReDo
from cl_lib.strategies.recycling import activity, hidden, recycled
from cl_lib.types import Batch, Spec, State

SPEC = Spec(classes=3, experiences=2, capacity=0, shape=(6,), features=4)


def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    return module, {k: p.detach().clone() for k, p in module.named_parameters()}


def batch(n=20):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, dtype=torch.float64, generator=g)
    weight = torch.ones(n, dtype=torch.float64)
    weight[-3:] = 0
    zeros = torch.zeros(n, dtype=torch.long)
    return Batch(x, zeros, weight, zeros, {"key": torch.rand(n, dtype=torch.float64, generator=g)})


def test_a_recycled_unit_leaves_the_function_as_it_is_without_the_unit():
    module, params = network()
    chosen = torch.tensor([False, True, False, False, True])
    new = recycled(params, params, ("0", "2"), chosen, torch.tensor(5))
    silenced = params | {"2.weight": torch.where(chosen, 0.0, params["2.weight"])}
    x = batch().x
    answers = [torch.func.functional_call(module, p, (x,)) for p in (new, silenced)]
    assert torch.equal(*answers)
    assert (new["0.weight"][~chosen] == params["0.weight"][~chosen]).all()
    assert (new["0.weight"][chosen] != params["0.weight"][chosen]).any(1).all()  # each unit is new
    assert torch.isin(new["0.weight"][chosen], params["0.weight"]).all()
    assert all(torch.equal(new[k], params[k]) for k in ("2.bias", "4.weight", "4.bias"))


def test_activity_is_the_weighted_mean_of_absolute_activations():
    module, params = network()
    pairs = hidden(module, params)
    assert pairs == [("0", "2"), ("2", "4")]
    own = batch()
    found = activity(FunctionalNet(module, {}), params, own, pairs)
    h1 = torch.relu(module[0](own.x[:17]))
    assert torch.allclose(found["0"], h1.mean(0), atol=1e-14)
    assert torch.allclose(found["2"], torch.relu(module[2](h1)).mean(0), atol=1e-14)


def stepped(strategy, module, state, own):
    net = FunctionalNet(module, {})
    return strategy.after_step(net, state, state, own, Gradient({}, torch.zeros(()), {}))


def test_continual_backprop_replaces_the_least_useful_mature_unit_when_one_is_due():
    module, params = network()
    strategy = ContinualBackprop(rate=0.1, decay=0.5, maturity=2.0)
    net, own = FunctionalNet(module, {}), batch()
    state = State(params, {}, {}, {}, strategy.init(net, params, SPEC))
    utility, due = torch.zeros(5).double(), 0.0
    h = torch.relu(module[0](own.x[:17])).mean(0)
    for step in range(1, 5):
        state = stepped(strategy, module, state, own)
        utility = 0.5 * utility + 0.5 * h * params["2.weight"].abs().sum(0)
        due += 0.1 * 5 * (step > 2)
        if step < 4:
            assert torch.allclose(state.extra["utility"]["0"], utility, atol=1e-14)
            assert all(torch.equal(state.params[k], p) for k, p in params.items())
    assert due == pytest.approx(1.0)  # after steps 3 and 4
    worst = int(utility.argmin())
    assert (state.params["2.weight"][:, worst] == 0).all()
    others = torch.arange(5) != worst
    assert torch.equal(state.params["2.weight"][:, others], params["2.weight"][:, others])
    assert float(state.extra["age"]["0"][worst]) == 0
    assert float(state.extra["due"]["0"]) == pytest.approx(0.0, abs=1e-12)


def test_redo_renews_the_units_that_hardly_answer():
    module, params = network()
    params["0.bias"][2] = -100.0  # never answers
    strategy = ReDo(tau=0.01, every=3)
    net, own = FunctionalNet(module, {}), batch()
    state = State(params, {}, {}, {}, strategy.init(net, params, SPEC))
    for _ in range(2):
        state = stepped(strategy, module, state, own)
        assert all(torch.equal(state.params[k], p) for k, p in params.items())
    state = stepped(strategy, module, state, own)
    answering = activity(net, params, own, [("2", "4")])["2"] > 0  # the others of the second layer are new as well
    assert 0 < answering.sum() < 4
    assert (state.params["2.weight"][answering, 2] == 0).all()
    assert (state.params["4.weight"][:, ~answering] == 0).all()
    kept = [0, 1, 3, 4]
    assert torch.equal(state.params["0.weight"][kept], params["0.weight"][kept])
    assert not torch.equal(state.params["0.weight"][2], params["0.weight"][2])
    assert float(state.extra["steps"]) == 0


@pytest.mark.parametrize("reduced", [ContinualBackprop(rate=0.0), ReDo(every=10**6)], ids=lambda s: type(s).__name__)
def test_reduces_to_fine_tuning(reduced):
    same_params(trained(reduced), trained(Finetune()))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (ContinualBackprop(rate=2.0), "rate=2.0: must lie between 0 and 1"),
        (ContinualBackprop(decay=1.0), "decay=1.0: must be 0 or more and below 1"),
        (ContinualBackprop(maturity=-1.0), "maturity=-1.0: must be 0 or more"),
        (ReDo(tau=-1.0), "tau=-1.0: must be 0 or more"),
        (ReDo(every=0), "every=0: must be 1 or more"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))
