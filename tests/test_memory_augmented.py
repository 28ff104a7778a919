"""Oracles of the strategies that answer from statistics or from memory: batch solutions, dense float64 references."""

import numpy as np
import pytest
import torch
from running import BALANCED, job, same_params, trained
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid
from torch.nn import functional as F

import cl_lib
from cl_lib.checks import toy_data
from cl_lib.harness.session import Session
from cl_lib.strategies import ER, KNN, NCM, CoPE, Hopfield, MbPA, RanPAC
from cl_lib.types import Batch


def answers(learner):
    """Probabilities of the test samples, and their features and logits, all by plain calls."""
    learner.begin_evaluation()
    x = toy_data().test.x.double()
    probabilities = learner.predict(x, torch.zeros(1, len(x), dtype=torch.long))[0].exp()
    features, logits = network(learner, x)
    return probabilities, features, logits


def network(learner, x):
    module = learner.module.double()
    params = {k: p[0] for k, p in learner.state.params.items()}
    logits = torch.func.functional_call(module, params, (x,))
    z = x
    for layer in module.body:
        own = [params.get(f"body.{n}.weight") for n, m in module.body.named_children() if m is layer]
        z = (
            F.linear(z, own[0], params[f"body.{list(module.body).index(layer)}.bias"])
            if own[0] is not None
            else layer(z)
        )
    return z, logits


def held(learner):
    """Inputs and labels in memory."""
    contents = learner.plan.contents()
    index = contents["index"][0, : int(contents["count"][0])]
    data = toy_data().train
    return data.x[index].double(), data.y[index]


# ---------------------------------------------------------------------- sums: the batch solution, in any order
@pytest.mark.parametrize("seed", [0, 1])
def test_ncm_is_the_nearest_centroid_whatever_the_order(seed):
    data, learner = toy_data(), trained(NCM("identity"), seeds=[seed])
    reference = NearestCentroid().fit(data.train.x.double().numpy(), data.train.y.numpy())
    probabilities, *_ = answers(learner)
    x = data.test.x.double().numpy()
    assert (probabilities.argmax(1).numpy() == reference.predict(x)).all()
    distance = ((x[:, None] - reference.centroids_) ** 2).sum(-1)
    assert np.allclose(probabilities.numpy(), torch.softmax(-torch.from_numpy(distance), 1).numpy(), atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_ranpac_is_a_ridge_regression_whatever_the_order(seed):
    data, learner = toy_data(), trained(RanPAC("identity", expansion=40, ridge=0.7), seeds=[seed])
    expand = learner.state.extra["expand"][0].numpy()
    h = lambda x: np.maximum(x.double().numpy() @ expand, 0)
    reference = Ridge(alpha=0.7, fit_intercept=False).fit(h(data.train.x), np.eye(4)[data.train.y.numpy()])
    probabilities, *_ = answers(learner)
    scores = torch.from_numpy(reference.predict(h(data.test.x)))
    assert torch.allclose(probabilities, torch.softmax(scores, 1), atol=1e-9)


# ---------------------------------------------------------------------- from memory: dense references
def test_knn_votes_as_a_dense_reference():
    learner = trained(KNN(BALANCED, k=5, temperature=0.2))
    probabilities, z, _ = answers(learner)
    x, y = held(learner)
    keys, _ = network(learner, x)
    alike = (F.normalize(z, dim=1) @ F.normalize(keys, dim=1).T).detach().numpy()
    for row, got in zip(alike, probabilities, strict=True):
        near = np.argsort(-row)[:5]
        weight = np.exp(row[near] / 0.2)
        votes = np.bincount(y.numpy()[near], weight, minlength=4) / weight.sum()
        assert np.allclose(got.numpy(), (1 - 4e-6) * votes + 1e-6, atol=1e-10)


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_hopfield_reads_out_as_a_dense_reference(updates):
    learner = trained(Hopfield(BALANCED, beta=7.0, updates=updates))
    probabilities, z, _ = answers(learner)
    x, y = held(learner)
    keys = F.normalize(network(learner, x)[0], dim=1)
    xi = F.normalize(z, dim=1)
    for _ in range(updates):
        xi = torch.softmax(7.0 * xi @ keys.T, 1) @ keys
    votes = torch.softmax(7.0 * xi @ keys.T, 1) @ F.one_hot(y, 4).double()
    assert torch.allclose(probabilities, (1 - 4e-6) * votes + 1e-6, atol=1e-10)


def test_mbpa_adapts_the_head_as_gradient_descent_written_out():
    eta, lam, temperature, k, steps = 0.05, 0.3, 0.2, 4, 3
    learner = trained(MbPA(BALANCED, k=k, steps=steps, eta=eta, lam=lam, temperature=temperature))
    probabilities, z, _ = answers(learner)
    x, y = held(learner)
    keys = network(learner, x)[0].detach()
    start = [learner.state.params[f"head.{n}"][0] for n in ("weight", "bias")]
    for query, got in zip(z.detach(), probabilities, strict=True):
        alike = F.cosine_similarity(query[None], keys)
        near = alike.topk(k).indices
        weight = torch.softmax(alike[near] / temperature, 0)
        own = [p.clone().requires_grad_() for p in start]
        for _ in range(steps):
            loss = (weight * F.cross_entropy(F.linear(keys[near], *own), y[near], reduction="none")).sum()
            loss = loss + lam * sum((p - s).square().sum() for p, s in zip(own, start, strict=True))
            grads = torch.autograd.grad(loss, own)
            own = [(p - eta * g).detach().requires_grad_() for p, g in zip(own, grads, strict=True)]
        assert torch.allclose(got, torch.softmax(F.linear(query, *own), 0).detach(), atol=1e-10)


def test_mbpa_without_a_step_is_the_network():
    learner = trained(MbPA(BALANCED, steps=0))
    probabilities, _, logits = answers(learner)
    assert torch.allclose(probabilities, torch.softmax(logits, 1).detach(), atol=1e-12)


@pytest.mark.parametrize(
    "strategy", [KNN(BALANCED), Hopfield(BALANCED), MbPA(BALANCED)], ids=lambda s: type(s).__name__
)
def test_trained_as_experience_replay(strategy):
    same_params(trained(strategy), trained(ER(BALANCED)))


def test_an_empty_memory_leaves_the_answer_to_the_network():
    for strategy in (KNN(BALANCED), Hopfield(BALANCED), MbPA(BALANCED)):
        session = Session(job(strategy))
        next(iter(session))
        probabilities, _, logits = answers(session.learner)
        assert torch.allclose(probabilities, torch.softmax(logits, 1).detach(), atol=1e-12)


# ---------------------------------------------------------------------- CoPE
def test_cope_loss_equals_its_definition_term_by_term():
    g = torch.Generator().manual_seed(0)
    z = F.normalize(torch.randn(7, 5, dtype=torch.float64, generator=g), dim=1)
    prototypes = F.normalize(torch.randn(4, 5, dtype=torch.float64, generator=g), dim=1)
    y, weight, t = torch.tensor([0, 1, 1, 2, 0, 1, 3]), torch.tensor([1.0, 1, 1, 1, 1, 1, 0]).double(), 0.5
    batch = Batch(z, y, weight, torch.zeros(7, dtype=torch.long))
    got = CoPE(temperature=t).proxy_loss(z, batch, prototypes)

    def p(c, j, proxy):
        own = np.exp(float(z[j] @ proxy) / t)
        return own / (own + sum(np.exp(float(z[j] @ prototypes[k]) / t) for k in range(4) if k != c))

    total, real = 0.0, range(6)
    for i in real:
        c = int(y[i])
        votes = [p(c, i, prototypes[c]), *(p(c, i, z[j]) for j in real if j != i and y[j] == c)]
        total += np.log(np.mean(votes)) + sum(np.log(1 - p(c, j, z[i])) for j in real if y[j] != c)
    assert float(got) == pytest.approx(-total / 6, rel=1e-12)


def test_cope_prototypes_follow_the_features():
    learner = trained(CoPE(BALANCED, momentum=0.5))
    prototypes = learner.state.extra["prototypes"][0]
    assert torch.allclose(prototypes.norm(dim=1), torch.ones(4).double(), atol=1e-12)
    x, y = held(learner)
    z = F.normalize(network(learner, x)[0], dim=1)
    nearest = (z @ prototypes.T).argmax(1)
    assert (nearest == y).double().mean() > 0.8


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (NCM(temperature=0.0), "temperature=0.0: must be above 0"),
        (NCM("last"), "features='last': must be one of first, identity, random"),
        (RanPAC(ridge=0.0), "ridge=0.0: must be above 0"),
        (RanPAC(expansion=0), "expansion=0: must be 1 or more"),
        (KNN(k=0), "k=0: must be 1 or more"),
        (KNN(cl_lib.Memory(0)), "capacity=0: this strategy needs at least 1"),
        (Hopfield(beta=0.0), "beta=0.0: must be above 0"),
        (Hopfield(updates=-1), "updates=-1: must be 0 or more"),
        (MbPA(eta=-1.0), "eta=-1.0: must be 0 or more"),
        (CoPE(momentum=1.0), "momentum=1.0: must be 0 or more and below 1"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))
