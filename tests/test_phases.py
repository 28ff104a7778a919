"""Reference points, phases over the memory, fresh starts, and random numbers from a key."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from running import BALANCED, job, same_params, trained
from scipy import stats
from torch.nn import functional as F

import cl_lib
from cl_lib import noise
from cl_lib.checks import toy_data
from cl_lib.engine.weights import build
from cl_lib.harness.assembly import make_plan
from cl_lib.harness.session import Session
from cl_lib.strategies import (
    Cumulative,
    Finetune,
    FromScratch,
    Frozen,
    GDumb,
    Joint,
    Phase,
    RandomGuess,
    ShrinkPerturb,
)


# ---------------------------------------------------------------------- reference points
def test_from_scratch_ends_as_joint_training_in_the_last_experience():
    """The same data, the same initial network; only the order of the batches differs, so both answer alike well."""
    scratch = trained(FromScratch(), epochs=20)
    assert scratch.plan.steps_in(0) == 20 * 6
    assert scratch.plan.steps_in(1) == 20 * 11
    joint = trained(Joint(), epochs=20)
    x, y = toy_data().test.x.double(), toy_data().test.y
    task = torch.zeros(1, len(x), dtype=torch.long)
    assert min(float((m.predict(x, task)[0].argmax(1) == y).double().mean()) for m in (scratch, joint)) > 0.9


def test_from_scratch_starts_each_experience_from_the_initial_network():
    """With a learning rate of 0 in sight of nothing else to change it, the network is the initial one."""
    learner = trained(FromScratch(), epochs=2, optim=cl_lib.SGD(lr=1e-12, momentum=0.9))
    (module,) = build(cl_lib.models.MLP.factory(hidden=(8,)), (6,), 4, [0])
    for k, p in module.named_parameters():
        assert (learner.state.params[k][0] - p).abs().max() < 1e-9
    # after many large steps in experience 1, experience 2 begins at the start again
    one_step = {"batch_size": 200, "epochs": [50, 1], "optim": cl_lib.SGD(lr=0.1, momentum=0.9)}
    reached = trained(FromScratch(), **one_step)
    net = build(cl_lib.models.MLP.factory(hidden=(8,)), (6,), 4, [0])[0].double()
    x, y = toy_data().train.x.double(), toy_data().train.y
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    for (k, p), g in zip(net.named_parameters(), grads, strict=True):
        assert torch.allclose(reached.state.params[k][0], p - 0.1 * g, atol=1e-12)


def test_cumulative_goes_on_from_where_it_was():
    first = cl_lib.streams.split(toy_data(), 1)
    same_params(trained(Cumulative(), stream=first), trained(Finetune(), stream=first))
    assert trained(Cumulative()).plan.steps_in(1) == 3 * 11


def test_frozen_is_fine_tuning_stopped_after_the_first_experience():
    session = Session(job(Finetune()))
    rows = iter(session)
    next(rows), next(rows)
    reached = {k: p.clone() for k, p in session.learner.state.params.items()}
    learner = trained(Frozen())
    assert all(torch.equal(learner.state.params[k], p) for k, p in reached.items())


def test_random_guess_is_chance_with_the_confidence_of_chance():
    stream = cl_lib.streams.split(cl_lib.datasets.digits(), eval_classes="all")
    record = cl_lib.run(stream, RandomGuess(), seeds=1)
    assert record.metrics["nll"].mean == pytest.approx(np.log(10), abs=1e-3)
    assert 0.03 < record.metrics["accuracy"].mean < 0.2


# ---------------------------------------------------------------------- GDumb
def test_gdumb_trains_a_fresh_network_on_what_the_memory_holds():
    strategy = GDumb(cl_lib.Memory(20, 100, "class_balanced"), passes=1)
    learner = trained(strategy, optim=cl_lib.SGD(lr=0.1, momentum=0.9))
    contents = learner.plan.contents()
    assert int(contents["count"][0]) == 20
    index = contents["index"][0]
    labels = toy_data().train.y[index]
    assert labels.bincount().tolist() == [5, 5, 5, 5]
    net = build(cl_lib.models.MLP.factory(hidden=(8,)), (6,), 4, [0])[0].double()
    grads = torch.autograd.grad(
        F.cross_entropy(net(toy_data().train.x[index].double()), labels), list(net.parameters())
    )
    for (k, p), g in zip(net.named_parameters(), grads, strict=True):
        assert torch.allclose(learner.state.params[k][0], p - 0.1 * g, atol=1e-12)


@pytest.mark.parametrize("admission", ["reservoir", "class_balanced"])
@pytest.mark.parametrize("capacity", [7, 54, 80, 500])
def test_the_steps_of_a_phase_over_the_memory_are_known_before(admission, capacity):
    strategy = GDumb(cl_lib.Memory(capacity, 8, admission), passes=3)
    session = Session(job(strategy, seeds=2))
    plan = make_plan(session.job, session.groups[0])
    said, total = [plan.steps_in(e) for e in range(2)], plan.total
    taken = [sum(len(block) for block in plan.experience(e)) for e in range(2)]
    assert taken == said
    assert sum(taken) == total
    assert said[1] == 6 + 3 * -(-min(capacity, 108) // min(8, capacity))


def test_a_phase_over_the_memory_needs_a_fill_that_is_known():
    with pytest.raises(cl_lib.InputError, match="admission='ring': GDumb trains on what its memory holds"):
        Session(job(GDumb(cl_lib.Memory(20, 8, "ring"))))
    with pytest.raises(cl_lib.InputError, match="passes=0: must be 1 or more"):
        Session(job(GDumb(BALANCED, passes=0)))


# ---------------------------------------------------------------------- shrink and perturb
def test_shrink_perturb_mixes_in_entries_of_the_initial_network():
    shrink, perturb = 0.7, 0.2
    strategy = ShrinkPerturb(shrink, perturb)
    one = {"stream": cl_lib.streams.split(toy_data(), 1)}
    plain, learner = trained(Finetune(), **one), trained(strategy, **one)
    for k, p in plain.state.params.items():
        added = (learner.state.params[k][0] - shrink * p[0]) / perturb
        initial = learner.state.extra["initial"][k][0].flatten()
        assert torch.isclose(added.flatten()[:, None], initial, atol=1e-12).any(1).all()
    drawn = (learner.state.params["body.1.weight"][0] - shrink * plain.state.params["body.1.weight"][0]).flatten()
    assert drawn.unique().numel() > 20


def test_shrink_perturb_without_either_is_fine_tuning():
    same_params(trained(ShrinkPerturb(1.0, 0.0)), trained(Finetune()))


# ---------------------------------------------------------------------- random numbers from a key
@dataclass(frozen=True)
class TrainsHead(Finetune):
    """Trains parameters of one name."""

    name: str = "head."

    def phases(self, experience, spec):
        return (Phase(trainable=(self.name,)),)


def test_a_phase_that_names_no_parameter_is_refused():
    trained(TrainsHead())
    message = re.escape("strategy: phase 'train' trains 'haed.', but no trainable parameter has a name that begins so")
    with pytest.raises(cl_lib.InputError, match=message):
        trained(TrainsHead("haed."))


def test_numbers_from_keys_are_uniform_and_independent():
    keys = torch.arange(200)
    drawn = torch.stack([noise.uniform(k, (500,), torch.float64) for k in keys]).numpy()
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    counts = np.histogram2d(drawn[:, :-1].ravel(), drawn[:, 1:].ravel(), 8)[0]
    assert stats.chisquare(counts.ravel()).pvalue > 0.01
    neighbours = np.histogram2d(drawn[:-1].ravel(), drawn[1:].ravel(), 8)[0]
    assert stats.chisquare(neighbours.ravel()).pvalue > 0.01


def test_numbers_from_keys_are_the_same_inside_a_lift():
    keys = torch.tensor([3, 2**61, 12345678901234567])
    lifted = torch.func.vmap(lambda k: noise.uniform(k, (4, 5)))(keys)
    assert all(torch.equal(own, noise.uniform(k, (4, 5))) for own, k in zip(lifted, keys, strict=True))


def test_numbers_from_keys_are_splitmix64():
    """Against the generator written in Python's integers, 24 of its 64 bits."""

    def mixed(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    for key in (0, 1, 987654321):
        state = mixed(key * golden % 2**64)
        expected = [(mixed((state + (i + 1) * golden) % 2**64) >> 40) / 2**24 for i in range(5)]
        assert noise.uniform(torch.tensor(key), (5,), torch.float64).tolist() == expected
