"""Oracles of the strategies that look at the model to choose what they keep: brute force on a few items."""

import numpy as np
import pytest
import torch
from running import job, same_params, trained
from scipy import stats
from torch import nn
from torch.nn import functional as F

import cl_lib
from cl_lib.curvature import gradient_gram
from cl_lib.engine.net import FunctionalNet
from cl_lib.harness.session import Session
from cl_lib.noise import uniform
from cl_lib.strategies import GSS, ERTricks, Finetune, Gradient
from cl_lib.strategies.bias import fit_bias
from cl_lib.types import Batch, Recalled, State

TEN = cl_lib.Memory(10, 4, "strategy")


def batch(seed, n=6, classes=3):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 6, dtype=torch.float64, generator=g), torch.randint(0, classes, (n,), generator=g)
    chance = torch.rand(n, 2, dtype=torch.float64, generator=g)
    return Batch(x, y, torch.ones(n).double(), torch.zeros(n, dtype=torch.long), {"chance": chance})


# ---------------------------------------------------------------------- GSS
def test_gss_scores_are_one_plus_the_largest_cosine_of_gradients():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    params = {k: p.detach() for k, p in module.named_parameters()}
    new, old = batch(0), batch(1, 5)
    held = Recalled(old.x, old.y, torch.tensor([1.0, 1, 1, 1, 0]).double(), old.task, torch.arange(5))
    got = GSS(TEN).alike(FunctionalNet(module, {}), State(params, {}, {}, {}, {}), new, held)

    def gradient(x, y):
        grads = torch.autograd.grad(F.cross_entropy(module(x[None]), y[None]), list(module.parameters()))
        return torch.cat([g.flatten() for g in grads])

    theirs = [gradient(old.x[k], old.y[k]) for k in range(4)]
    for i in range(6):
        mine = gradient(new.x[i], new.y[i])
        assert float(got[i]) == pytest.approx(
            1 + max(float(F.cosine_similarity(mine, t, 0)) for t in theirs), abs=1e-12
        )
    empty = Recalled(old.x, old.y, torch.zeros(5).double(), old.task, torch.arange(5))
    assert (GSS(TEN).alike(FunctionalNet(module, {}), State(params, {}, {}, {}, {}), new, empty) == 0.1).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)),
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
        ),
        lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3)),
    ],
    ids=["no_bias", "convolution", "another_layer"],
)
def test_inner_products_of_gradients_equal_those_of_gradients_that_are_made(make):
    torch.manual_seed(0)
    module, own = make().double(), batch(0)
    params = {k: p.detach() for k, p in module.named_parameters()} | {"~own": torch.ones(2).double()}
    rows = []
    for x, y in zip(own.x, own.y, strict=True):
        grads = torch.autograd.grad(F.cross_entropy(module(x[None]), y[None]), list(module.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    got, expected = gradient_gram(FunctionalNet(module, {}), params, own), torch.stack(rows) @ torch.stack(rows).mT
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_gss_fills_and_replaces_as_the_greedy_rule_written_out(seed):
    rng, strategy = np.random.default_rng(seed), GSS(TEN)
    score, count = rng.random(11) + 0.1, int(rng.integers(4, 11))
    own, alike = batch(seed), rng.random(6) * 2
    offered = torch.tensor([1.0, 1, 0, 1, 1, 1]).double()
    memory = {"score": torch.from_numpy(score.copy()), "count": torch.tensor(count)}
    gradient = Gradient({}, torch.zeros(()), {}, {"alike": torch.from_numpy(alike)})
    slots, whole, _ = strategy.admit(None, State({}, {}, {}, memory, {}), own, gradient, offered)

    expected = []
    for i in range(6):
        slot = 10
        if offered[i] and count < 10:
            slot = count
            count += 1
        elif offered[i]:
            total = np.cumsum(score[:10])
            victim = int((float(own.noise["chance"][i, 0]) * total[-1] > total).sum())
            if alike[i] < 1 and float(own.noise["chance"][i, 1]) < score[victim] / (score[victim] + alike[i]):
                slot = victim
        if slot < 10:
            score[slot] = alike[i]
        expected.append(slot)
    assert slots.tolist() == expected
    assert np.allclose(whole["score"][:10].numpy(), score[:10])


# ---------------------------------------------------------------------- ER with tricks
def reference(balanced, loss_aware, loss, label, count, seen, own, losses, offered):
    """The reservoir with its eviction, one sample after the other."""

    def unit(v):
        return (v - v.min()) / (v.max() - v.min()) if v.max() > v.min() else np.ones_like(v)

    slots, held = [], np.bincount(label[:count].astype(int), minlength=3).astype(float)
    for i, y in enumerate(own.y.tolist()):
        if not offered[i]:
            slots.append(10)
            continue
        seen, slot = seen + 1, 10
        if count < 10:
            slot, count = count, count + 1
        elif float(own.noise["chance"][i, 0]) < 10 / seen:
            share = held[label[:10].astype(int)] / held.max()
            weight = np.ones(10)
            if loss_aware and balanced:
                weight = unit(0.5 * unit(-loss[:10]) + 0.5 * share)
            elif loss_aware:
                weight = unit(-loss[:10])
            elif balanced:
                weight = (share == 1).astype(float)
            total = np.cumsum(weight + 1e-6)
            slot = int((float(own.noise["chance"][i, 1]) * total[-1] > total).sum())
            held[int(label[slot])] -= 1
        if slot < 10:
            held[y] += 1
            label[slot], loss[slot] = y, losses[i]
        slots.append(slot)
    return slots, loss, label, held, seen


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("loss_aware", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_reservoir_evicts_as_written_out(seed, balanced, loss_aware):
    rng = np.random.default_rng(seed)
    own, losses, count = batch(seed, 12), rng.random(12), 8 + seed
    count = min(count, 10)
    loss, label = rng.random(11), rng.integers(0, 3, 11).astype(float)
    offered = torch.tensor([1.0] * 11 + [0.0]).double()
    refreshed = {"slot": torch.tensor([1, 3, 10]), "old": torch.tensor([9.0, -1.0, 5.0]).double()}
    held = torch.from_numpy(np.bincount(label[:count].astype(int), minlength=3).astype(float))
    memory = {
        "loss": torch.from_numpy(loss.copy()),
        "label": torch.from_numpy(label.copy()),
        "count": torch.tensor(count),
    }
    extra = {"offered": torch.tensor(15.0).double(), "held": held}
    gradient = Gradient({}, torch.zeros(()), {}, {"new": torch.from_numpy(losses), **refreshed})
    strategy = ERTricks(TEN, balanced, loss_aware)
    slots, whole, after = strategy.admit(None, State({}, {}, {}, memory, extra), own, gradient, offered)
    loss[1], loss[3] = 9.0, -1.0  # what was replayed has a new loss
    expected = reference(balanced, loss_aware, loss, label, count, 15, own, losses, offered)
    assert slots.tolist() == expected[0]
    assert np.allclose(whole["loss"][:10].numpy(), expected[1][:10])
    assert np.allclose(whole["label"][:10].numpy(), expected[2][:10])
    assert after["held"].tolist() == expected[3].tolist()
    assert float(after["offered"]) == expected[4]


def test_without_tricks_every_sample_is_as_likely_to_be_held():
    """Algorithm R: 108 offered, 20 places; the share of each experience's samples over 40 seeds."""
    strategy = ERTricks(cl_lib.Memory(20, 4, "strategy"), balanced=False, loss_aware=False)
    learner = trained(strategy, seeds=40, epochs=2, lift="auto")
    assert (learner.state.memory["count"] == 20).all()
    held = learner.state.memory["index"][:, :20].numpy()
    assert all(len(set(own.tolist())) == 20 for own in held)  # offered in the first epoch only
    first = set(learner.plan.streams[0][0].train.tolist())
    early = sum(int(i) in first for i in held.ravel())
    assert stats.binomtest(early, held.size, 0.5).pvalue > 0.01


def test_the_balanced_reservoir_ends_balanced():
    learner = trained(ERTricks(cl_lib.Memory(20, 4, "strategy"), loss_aware=False), epochs=1)
    label = learner.state.memory["label"][0, :20].long()
    assert np.ptp(np.bincount(label.numpy(), minlength=4)) <= 2


def test_what_lies_in_a_slot_is_what_its_label_says():
    for strategy in (ERTricks(cl_lib.Memory(20, 4, "strategy")), GSS(cl_lib.Memory(20, 4, "strategy"))):
        learner = trained(strategy)
        index = learner.state.memory["index"][0, :20]
        if "label" in learner.state.memory:
            assert torch.equal(learner.shared["y"][index], learner.state.memory["label"][0, :20].long())
        assert len(set(index.tolist())) == 20


@pytest.mark.parametrize("kind", [GSS, ERTricks])
def test_before_anything_is_held_it_is_fine_tuning(kind):
    one = {"epochs": 1, "batch_size": 108, "stream": cl_lib.streams.split(cl_lib.checks.toy_data(), 1)}
    same_params(trained(kind(cl_lib.Memory(20, 4, "strategy")), **one), trained(Finetune(), **one))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (GSS(cl_lib.Memory(10, 4)), "admission='reservoir': GSS chooses itself what its memory holds"),
        (GSS(TEN, compared=0), "compared=0: must be 1 or more"),
        (ERTricks(cl_lib.Memory(10, 4)), "admission='reservoir': ERTricks chooses itself what its memory holds"),
        (ERTricks(cl_lib.Memory(0, 4, "strategy")), "capacity=0: this strategy needs at least 1"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))


# ---------------------------------------------------------------------- bias correction
def test_the_bias_is_fitted_as_autograd_would():
    g = torch.Generator().manual_seed(0)
    f, y = torch.randn(50, 5, generator=g, dtype=torch.float64), torch.randint(0, 5, (50,), generator=g)
    weight = (torch.rand(50, generator=g) > 0.3).double()
    newest, key = torch.tensor([False, True, False, True, False]), torch.tensor(3)
    numbers = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for epoch in range(4):
        for part in uniform(key + epoch, (50,)).argsort().split(8):
            logits = torch.where(newest, (1 + numbers[0]) * f[part] + numbers[1], f[part])
            nll = F.cross_entropy(logits, y[part], reduction="none")
            (step,) = torch.autograd.grad((nll * weight[part]).sum() / weight[part].sum(), numbers)
            numbers = (numbers - 0.5 * step).detach().requires_grad_()
    got = fit_bias(f, y, weight, newest, key, epochs=4, batch=8, lr=0.5)
    assert torch.allclose(torch.stack(got), numbers.detach(), atol=1e-13)


def test_the_correction_answers_for_the_classes_of_the_last_experience_only():
    memory = cl_lib.Memory(20, 8, "strategy")
    plain, bent = (trained(ERTricks(memory, bias_epochs=epochs)) for epochs in (0, 20))
    same_params(plain, bent)  # training is the same
    x = cl_lib.checks.toy_data().test.x.double()
    params = {k: p[0] for k, p in plain.state.params.items()}
    raw = torch.func.functional_call(plain.module.double(), params, (x,))
    extra = bent.state.extra
    assert extra["newest"][0].tolist() == [False, False, True, True]
    assert float(extra["scale"].abs() + extra["shift"].abs()) > 0.01
    raw[:, 2:] = (1 + extra["scale"][0]) * raw[:, 2:] + extra["shift"][0]
    bent.begin_evaluation()
    got = bent.predict(x, torch.zeros(1, len(x), dtype=torch.long))[0]
    assert torch.allclose(got, raw.log_softmax(1), atol=1e-12)
