"""Every strategy passes every generic check; each has an oracle of its own; the reduction identities hold."""

from __future__ import annotations

import copy
import inspect
import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from running import BALANCED, SMALL, equals_hand_loop, experienced, job, mean_over, same_params, shared_traces, trained
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import cl_lib
from cl_lib import checks, strategies
from cl_lib.checks import CHECKS, parametrize_with_checks, toy_data
from cl_lib.curvature import diagonal_fisher, inner
from cl_lib.engine.net import FunctionalNet
from cl_lib.harness.assembly import make_learners, make_plan
from cl_lib.harness.session import Session
from cl_lib.memory.herding import herd
from cl_lib.strategies import AGEM, ER, EWC, SLDA, DERpp, Finetune, ICaRL, Joint, LwF
from cl_lib.strategies.strategy import Strategy, hyper_parameters
from cl_lib.types import Batch, State

EVERY = {
    "finetune": Finetune(),
    "joint": Joint(),
    "er": ER(SMALL),
    "er_sum": ER(SMALL, combine="sum", beta=0.7),
    "er_balanced": ER(cl_lib.Memory(20, 8, "class_balanced", "class_balanced")),
    "derpp": DERpp(SMALL),
    "agem": AGEM(cl_lib.Memory(20, 8, "ring")),
    "lwf": LwF(),
    "ewc": EWC(samples=30),
    "ewc_online": EWC(mode="online", gamma=0.9, fisher="sample"),
    "icarl": ICaRL(cl_lib.Memory(20, 8, "strategy")),
    "slda": SLDA(),
    "slda_identity": SLDA("identity"),
    "slda_random": SLDA("random", width=16),
    "cumulative": strategies.Cumulative(),
    "from_scratch": strategies.FromScratch(),
    "frozen": strategies.Frozen(),
    "random_guess": strategies.RandomGuess(),
    "er_ace": strategies.ERACE(SMALL),
    "der": strategies.DER(SMALL),
    "mir": strategies.MIR(SMALL, candidates=15),
    "gdumb": strategies.GDumb(BALANCED, passes=5),
    "cls_er": strategies.CLSER(SMALL, alpha_plastic=0.8, alpha_stable=0.9),
    "si": strategies.SI(),
    "mas": strategies.MAS(samples=30),
    "rwalk": strategies.RWalk(),
    "l2_init": strategies.L2Init(),
    "gem": strategies.GEM(cl_lib.Memory(20, 8, "ring"), margin=0.1),
    "ogd": strategies.OGD(directions=8),
    "gpm": strategies.GPM(samples=30, energy=0.8),
    "ncm": strategies.NCM(),
    "ranpac": strategies.RanPAC(expansion=30),
    "cope": strategies.CoPE(BALANCED, momentum=0.9),
    "knn": strategies.KNN(BALANCED, k=3),
    "hopfield": strategies.Hopfield(BALANCED),
    "mbpa": strategies.MbPA(BALANCED, k=4),
    "shrink_perturb": strategies.ShrinkPerturb(),
    "scr": strategies.SCR(SMALL, width=5),
    "rar": strategies.RAR(SMALL, steps=2),
    "bic": strategies.BiC(memory=BALANCED, passes=2),
    "bic_si": strategies.BiC(BALANCED, strategies.SI(), passes=2),
    "bic_derpp": strategies.BiC(base=strategies.DERpp(SMALL), passes=2),
    "kronecker_laplace": strategies.KroneckerLaplace(samples=30),
    "continual_backprop": strategies.ContinualBackprop(rate=0.02, maturity=10.0),
    "redo": strategies.ReDo(tau=0.5, every=10),
    "gss": strategies.GSS(cl_lib.Memory(20, 8, "strategy"), compared=5),
    "er_tricks": strategies.ERTricks(cl_lib.Memory(20, 8, "strategy")),
    "er_compressed": strategies.CompressedER(SMALL, bits=2),
    "latent_replay": strategies.LatentReplay(SMALL),
    "fromp": strategies.FROMP(points=12, samples=30),
    "key_value": strategies.KeyValue(slots=40, k=3),
    "lwf_multi": LwF(heads="multi"),
    "generative_replay": strategies.GenerativeReplay(codes=3, hidden=10),
    "er_tricks_bias": strategies.ERTricks(cl_lib.Memory(20, 8, "strategy"), bias_epochs=3),
    "er_plain_reservoir": strategies.ERTricks(cl_lib.Memory(20, 8, "strategy"), balanced=False, loss_aware=False),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


PROGRAMS: dict[Strategy, dict[Any, Any]] = {}
"""The traces of the strategy that is being checked; those of the one before are let go."""


@parametrize_with_checks(EVERY)
def test_generic_check(strategy, check):
    if strategy not in PROGRAMS:
        PROGRAMS.clear()
    # two runs that are traced apart must agree too
    with nullcontext() if check is checks.check_same_seed else shared_traces(PROGRAMS.setdefault(strategy, {})):
        check(strategy)


@pytest.mark.parametrize("name", EVERY)
def test_docstring_gives_equation_errors_cost_differences_and_an_example(name):
    strategy = EVERY[name]
    text = inspect.getdoc(type(strategy)) or ""
    wanted = [r"\.\. math::|:math:", r"Raises\n-----", r"Cost:", r"[Dd]ifferences from the paper", r">>> "]
    if hyper_parameters(strategy) or strategy.memory is not None:
        wanted.append(r"Parameters\n-----")
    assert [pattern for pattern in wanted if not re.search(pattern, text)] == []


def test_every_strategy_of_the_package_is_checked():
    exported = {
        getattr(cl_lib.strategies, n)
        for n in cl_lib.strategies.__all__
        if isinstance(getattr(cl_lib.strategies, n), type)
        and issubclass(getattr(cl_lib.strategies, n), cl_lib.strategies.Strategy)
    } - {cl_lib.strategies.Strategy}
    assert exported == {type(s) for s in EVERY.values()}


# ---------------------------------------------------------------------- oracles: replay
def test_er_concat_equals_a_hand_written_loop():
    def loss(net, new, draws):
        real = draws[0][2] > 0
        x, y = torch.cat([new[0], draws[0][0][real]]), torch.cat([new[1], draws[0][1][real]])
        return F.cross_entropy(net(x), y)

    equals_hand_loop(ER(SMALL), loss)


def test_derpp_equals_a_hand_written_loop_that_stores_logits_before_the_update():
    stored = torch.zeros(21, 4, dtype=torch.float64)

    def loss(net, new, draws):
        labelled, dark = draws
        answer = net(new[0])
        value = F.cross_entropy(answer, new[1])
        error = (net(dark[0]) - stored[dark[3]]).square().mean(1)
        past = F.cross_entropy(net(labelled[0]), labelled[1], reduction="none")
        value = value + 0.3 * mean_over(dark[2], error) + 0.8 * mean_over(labelled[2], past)
        for i, slot in enumerate(new[3]):
            stored[slot] = answer[i].detach()
        return value

    equals_hand_loop(DERpp(SMALL, alpha=0.3, beta=0.8), loss)


def test_agem_projects_to_a_gradient_that_does_not_hurt_the_memory():
    torch.manual_seed(0)
    net_module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    params = {k: p.detach() for k, p in net_module.named_parameters()}
    strategy, projected = AGEM(), 0
    for trial in range(20):
        g = torch.Generator().manual_seed(trial)
        make = lambda g=g: (
            torch.randn(8, 6, dtype=torch.float64, generator=g),
            torch.randint(0, 3, (8,), generator=g),
            torch.ones(8, dtype=torch.float64),
            torch.zeros(8, dtype=torch.long),
        )
        new = Batch(*make())
        old = cl_lib.types.Recalled(*make(), slot=torch.zeros(8, dtype=torch.long))
        net = FunctionalNet(net_module, {})
        bent = strategy.gradient(net, State(params, {}, {}, {}, {}), new, (old,)).grads
        plain, reference = (
            dict(
                zip(
                    params,
                    torch.autograd.grad(F.cross_entropy(net_module(b.x), b.y), list(net_module.parameters())),
                    strict=True,
                )
            )
            for b in (new, old)
        )
        along = inner(plain, reference)
        if along < 0:
            projected += 1
            assert abs(inner(bent, reference)) < 1e-12
            expected = {k: plain[k] - along / inner(reference, reference) * reference[k] for k in plain}
        else:
            expected = plain
        assert inner(bent, reference) > -1e-12
        for k in expected:
            assert torch.allclose(bent[k], expected[k], atol=1e-13)
    assert 0 < projected < 20


# ---------------------------------------------------------------------- oracles: distillation, exemplars
def test_lwf_equals_a_hand_written_loop():
    teacher = {}

    def loss(net, new, draws):
        answer = net(new[0])
        value = F.cross_entropy(answer, new[1])
        if teacher:
            taught = teacher["net"](new[0]).detach()
            log_q, log_p = (F.log_softmax(z[:, :2] / 2.0, 1) for z in (taught, answer))
            value = value + 0.7 * 4.0 * F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
        return value

    equals_hand_loop(LwF(alpha=0.7, temperature=2.0), loss, lambda net: teacher.update(net=copy.deepcopy(net)))


def naive_herding(features, count):
    mean, chosen = features.mean(0), []
    for k in range(1, count + 1):
        distances = {
            i: float(((mean - (features[[*chosen, i]].sum(0)) / k) ** 2).sum())
            for i in range(len(features))
            if i not in chosen
        }
        chosen.append(min(distances, key=distances.get))
    return chosen


def test_herding_equals_the_naive_greedy_definition():
    features = torch.randn(30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    member = torch.arange(30) % 2 == 0
    chosen, real = herd(features, member, 10)
    assert real.all()
    expected = [int(2 * i) for i in naive_herding(features[member].numpy(), 10)]
    assert chosen.tolist() == expected


def test_herding_of_too_few_members_says_so():
    chosen, real = herd(torch.randn(5, 2), torch.tensor([True, False, True, False, False]), 3)
    assert real.tolist() == [True, True, False]
    assert set(chosen[:2].tolist()) == {0, 2}


def test_icarl_keeps_equal_herded_prefixes_and_answers_with_the_nearest_mean():
    learner = trained(ICaRL(cl_lib.Memory(20, 8, "strategy")))
    memory, data = learner.state.memory, toy_data()
    count = int(memory["count"][0])
    index = memory["index"][0, :count]
    assert np.bincount(data.train.y[index]).tolist() == [5, 5, 5, 5]
    module = copy.deepcopy(learner.module).double()
    module.load_state_dict({k: v[0] for k, v in learner.state.params.items()})
    embed = lambda x: F.normalize(module.body(x.double()), dim=-1)
    # the classes of the last experience were herded with the network as it is now
    for label in (2, 3):
        own = torch.nonzero(data.train.y == label)[:, 0]
        expected = own[naive_herding(embed(data.train.x[own]).detach().numpy(), 5)]
        assert sorted(index[data.train.y[index] == label].tolist()) == sorted(expected.tolist())
    means = torch.stack(
        [F.normalize(embed(data.train.x[index[data.train.y[index] == c]]).mean(0), dim=0) for c in range(4)]
    )
    expected = torch.cdist(embed(data.test.x), means).argmin(1)
    learner.begin_evaluation()
    x = data.test.x.double()
    assert torch.equal(learner.predict(x, torch.zeros(1, len(x), dtype=torch.long))[0].argmax(1), expected)


def test_icarl_evicts_the_tail_of_each_herding_order_when_classes_are_added():
    session = Session(job(ICaRL(cl_lib.Memory(20, 8, "strategy"))))
    held = []
    for row in session:
        memory = session.learner.state.memory
        held.append(memory["index"][0, : int(memory["count"][0])].tolist())
        assert row.accuracy.shape == (1, 2)
    assert len(held[1]) == len(held[2]) == 20
    labels = toy_data().train.y
    for label in (0, 1):
        before = [i for i in held[1] if labels[i] == label]
        assert [i for i in held[2] if labels[i] == label] == before[:5]


# ---------------------------------------------------------------------- oracles: curvature
def slow_fisher(net, x, y, uniform, variant, batch):
    """One sample (or batch), one class, one backward pass at a time."""
    params = list(net.parameters())
    total = [torch.zeros_like(p) for p in params]
    if variant == "batched":
        starts = range(0, len(x), batch)
        for i in starts:
            grads = torch.autograd.grad(F.cross_entropy(net(x[i : i + batch]), y[i : i + batch]), params)
            total = [t + g**2 for t, g in zip(total, grads, strict=True)]
        return [t / len(starts) for t in total]
    for i in range(len(x)):
        log_p = F.log_softmax(net(x[i : i + 1])[0], 0)
        p = log_p.exp().detach()
        if variant == "exact":
            pairs = [(c, float(p[c])) for c in range(len(p))]
        elif variant == "sample":
            pairs = [(int(np.searchsorted(p.cumsum(0).numpy(), float(uniform[i]))), 1.0)]
        else:
            pairs = [(int(y[i]), 1.0)]
        for c, weight in pairs:
            grads = torch.autograd.grad(log_p[c], params, retain_graph=True)
            total = [t + weight * g**2 for t, g in zip(total, grads, strict=True)]
    return [t / len(x) for t in total]


NETS = {
    "mlp": (lambda: cl_lib.models.MLP((6,), 4, hidden=(5, 7)), (6,)),
    "convnet": (lambda: cl_lib.models.ConvNet((2, 8, 8), 4, channels=(3, 4), hidden=6), (2, 8, 8)),
    "strided": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)),
        (2, 8, 8),
    ),
    "group_norm": (lambda: cl_lib.models.SlimResNet18((1, 8, 8), 4, width=4), (1, 8, 8)),
}


@pytest.mark.parametrize("variant", ["exact", "sample", "empirical", "batched"])
@pytest.mark.parametrize("kind", NETS)
def test_fisher_equals_a_per_sample_loop(kind, variant):
    torch.manual_seed(1)
    make, shape = NETS[kind]
    net = make().double()
    data, x, y, uniform = experienced(7 if kind == "group_norm" else 20, shape, 4)
    params = {k: p.detach() for k, p in net.named_parameters()}
    fast = diagonal_fisher(FunctionalNet(net, {}), params, data, variant, batch=8)
    for (name, f), slow in zip(fast.items(), slow_fisher(net.eval(), x, y, uniform, variant, 8), strict=True):
        assert torch.allclose(f, slow, rtol=1e-9, atol=1e-15), name


def test_fisher_variants_differ_and_limit_uses_a_prefix():
    torch.manual_seed(1)
    net = NETS["mlp"][0]().double()
    data, x, y, uniform = experienced(20, (6,), 4)
    params = {k: p.detach() for k, p in net.named_parameters()}
    of = {
        v: diagonal_fisher(FunctionalNet(net, {}), params, data, v)["head.weight"]
        for v in ("exact", "sample", "empirical")
    }
    assert not torch.allclose(of["exact"], of["empirical"], rtol=0.01)
    assert not torch.allclose(of["exact"], of["sample"], rtol=0.01)
    first = diagonal_fisher(FunctionalNet(net, {}), params, data, "exact", samples=5)
    slow = slow_fisher(net, x[:5], y[:5], uniform[:5], "exact", 8)
    assert torch.allclose(first["body.1.weight"], slow[0], rtol=1e-9, atol=1e-15)


def test_separate_penalties_equal_their_sum_written_out():
    g = torch.Generator().manual_seed(0)
    rand = lambda: {
        "w": torch.rand(3, 2, dtype=torch.float64, generator=g),
        "b": torch.rand(2, dtype=torch.float64, generator=g),
    }
    fishers, anchors = [rand() for _ in range(4)], [rand() for _ in range(4)]
    fishers[1]["b"][0] = fishers[0]["b"][0] = 0.0
    strategy = EWC(lam=3.0)
    zeros = {k: torch.zeros_like(v) for k, v in fishers[0].items()}
    state = State(
        anchors[0], {}, {}, {}, {"fisher": zeros, "anchor": zeros, "constant": torch.zeros((), dtype=torch.float64)}
    )
    with pytest.MonkeyPatch.context() as patch:
        for f, a in zip(fishers, anchors, strict=True):
            patch.setattr("cl_lib.strategies.ewc.diagonal_fisher", lambda *_, f=f, **__: f)
            state = strategy.consolidate(None, state._replace(params=a), None)
    theta = rand()
    expected = 1.5 * sum(
        float((f[k] * (theta[k] - a[k]) ** 2).sum()) for f, a in zip(fishers, anchors, strict=True) for k in f
    )
    assert float(strategy.penalty(None, state._replace(params=theta))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_ewc_reaches_the_closed_form_minimum_of_quadratic_tasks(mode):
    """Tasks with loss a/2 |theta - t_e|^2: after the second, theta = (a t_2 + lam F t_1) / (a + lam F)."""

    @dataclass(frozen=True)
    class Quadratic(EWC):
        def loss(self, net, state, batch, recalled):
            away = sum((p - 0.5 - batch.task[0]).square().sum() for p in state.params.values())
            return 0.5 * 2.0 * away, {}

    learner = trained(Quadratic(lam=7.0, mode=mode), epochs=80, optim=cl_lib.SGD(lr=0.2))
    first = trained(Quadratic(lam=7.0, mode=mode), epochs=[80, 1], optim=cl_lib.SGD(lr=0.2))
    # the Fisher information that the second task was held by is that of theta = t_1
    assert first.plan.steps_in(0) == learner.plan.steps_in(0)
    session = Session(job(Quadratic(lam=7.0, mode=mode), epochs=80, optim=cl_lib.SGD(lr=0.2)))
    rows = iter(session)
    next(rows), next(rows)
    fisher = {k: v[0].clone() for k, v in session.learner.state.extra["fisher"].items()}
    assert max(float(f.max()) for f in fisher.values()) > 1e-3
    for k, p in learner.state.params.items():
        assert torch.allclose(p[0], (2.0 * 1.5 + 7.0 * fisher[k] * 0.5) / (2.0 + 7.0 * fisher[k]), atol=1e-9)


def test_online_ewc_decays_the_fisher_information():
    """F_2 = gamma F_1 + the Fisher information of experience 2, which the end of the same run gives again."""
    session = Session(job(EWC(mode="online", gamma=0.5, lam=1.0)))
    rows = iter(session)
    next(rows), next(rows)
    first = {k: v[0].clone() for k, v in session.learner.state.extra["fisher"].items()}
    for _ in rows:
        pass
    state, data = session.learner.state, toy_data()
    module = copy.deepcopy(session.learner.module).double()
    module.load_state_dict({k: v[0] for k, v in state.params.items()})
    second = data.train.y >= 2
    new = slow_fisher(module, data.train.x[second].double(), data.train.y[second], None, "exact", 0)
    for (k, f), g in zip(state.extra["fisher"].items(), new, strict=True):
        assert first[k].max() > 1e-6
        assert torch.allclose(f[0], 0.5 * first[k] + g, rtol=1e-9, atol=1e-15), k
    assert all(torch.equal(state.extra["anchor"][k], p) for k, p in state.params.items())


# ---------------------------------------------------------------------- oracles: streaming LDA
def test_slda_equals_the_batch_solution_in_any_order():
    data = toy_data()
    x, y = data.train.x.double(), data.train.y
    for seed in (0, 1):
        extra = {k: v[0] for k, v in trained(SLDA("identity"), seeds=[seed]).state.extra.items()}
        means = torch.stack([x[y == c].mean(0) for c in range(4)])
        scatter = sum((x[y == c] - means[c]).T @ (x[y == c] - means[c]) for c in range(4))
        assert torch.allclose(extra["mean"], means, atol=1e-12)
        assert torch.allclose(extra["scatter"], scatter, rtol=1e-10)
        assert extra["count"].tolist() == torch.bincount(y).tolist()


def test_slda_answers_as_scikit_learns_discriminant():
    data, learner = toy_data(), trained(SLDA("identity", shrinkage=1e-9))
    reference = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.25] * 4).fit(
        data.train.x.double().numpy(), data.train.y.numpy()
    )
    learner.begin_evaluation()
    x = data.test.x.double()
    probabilities = learner.predict(x, torch.zeros(1, len(x), dtype=torch.long))[0].exp().numpy()
    # scikit-learn divides the scatter by n as well
    assert np.abs(probabilities - reference.predict_proba(x.numpy())).max() < 1e-6


# ---------------------------------------------------------------------- reduction identities
NONE = cl_lib.Memory(capacity=0, batch=8)


@pytest.mark.parametrize(
    "reduced",
    [
        EWC(lam=0.0),
        EWC(lam=0.0, mode="online"),
        ER(NONE),
        ER(NONE, combine="sum"),
        DERpp(NONE),
        AGEM(cl_lib.Memory(0, 8, "ring")),
        LwF(alpha=0.0),
    ],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'combine', getattr(s, 'mode', ''))}",
)
def test_reduces_to_fine_tuning(reduced):
    same_params(trained(reduced), trained(Finetune()))


def test_derpp_without_logits_is_er_with_two_means():
    same_params(trained(DERpp(SMALL, alpha=0.0, beta=0.8)), trained(ER(SMALL, combine="sum", beta=0.8)))


def test_joint_is_fine_tuning_on_a_stream_of_one_experience():
    whole = cl_lib.streams.split(toy_data(), 1)
    joint, one = trained(Joint()), trained(Finetune(), stream=whole)
    assert joint.plan.step == one.plan.step == 3 * -(-108 // 10)
    assert {tuple(p.shape) for p in pytree.tree_leaves(joint.state.params)} == {
        tuple(p.shape) for p in pytree.tree_leaves(one.state.params)
    }
    x = toy_data().test.x.double()
    task = torch.zeros(1, len(x), dtype=torch.long)
    right = [(m.predict(x, task)[0].argmax(1) == toy_data().test.y).double().mean() for m in (joint, one)]
    assert min(right) > 0.9


# ---------------------------------------------------------------------- bad hyper-parameters
@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (ER(cl_lib.Memory(capacity=-1)), "capacity=-1: must be 0 or more"),
        (ER(cl_lib.Memory(batch=0)), "batch=0: must be 1 or more"),
        (ER(combine="both"), "combine='both': must be one of concat, sum"),
        (ER(cl_lib.Memory(admission="fifo")), "admission='fifo': must be one of reservoir"),
        (ICaRL(cl_lib.Memory(3, 8, "strategy")), "capacity=3: this strategy needs at least 4"),
        (ICaRL(cl_lib.Memory(20, 8)), "admission='reservoir': ICaRL chooses itself what its memory holds"),
        (EWC(lam=-1.0), "lam=-1.0: must be 0 or more"),
        (EWC(gamma=2.0), "gamma=2.0: must lie between 0 and 1"),
        (EWC(fisher="exakt"), "fisher='exakt': must be one of exact"),
        (EWC(samples=0), "samples=0: must be 1 or more"),
        (LwF(temperature=0.0), "temperature=0.0: must be above 0"),
        (SLDA("first", shrinkage=1.0), "shrinkage=1.0: must lie between 0 and 1"),
        (SLDA("last"), "features='last': must be one of first"),
        (DERpp(alpha=float("nan")), "alpha=nan: must be a finite number"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message.replace("(", r"\(")):
        Session(job(strategy))


# ---------------------------------------------------------------------- hyper-parameters that may be left out
@dataclass(frozen=True)
class Decayed(Finetune):
    """An optional penalty: None switches it off."""

    lam: float | None = None

    def penalty(self, net, state):
        return None if self.lam is None else self.lam * sum(p.square().sum() for p in state.params.values())


@pytest.mark.parametrize("lift", ["never", "always", "auto"])
def test_an_optional_number_is_none_for_all_or_a_tensor_of_each(lift):
    same_params(trained(Decayed(), seeds=2, lift=lift), trained(Finetune(), seeds=2, lift=lift))
    for strategy in (Decayed(), Decayed(lam=0.3)):
        grid = trained(strategy, grid={"strategy.lam": [0.1, 0.2]}, lift=lift)
        for i, lam in enumerate((0.1, 0.2)):
            alone = trained(Decayed(lam=lam), lift=lift)
            for k, p in alone.state.params.items():
                assert (grid.state.params[k][i] - p[0]).abs().max() < 1e-12
    assert set(trained(Decayed(lam=0.1), lift=lift).hyper["strategy"]) == {"lam"}


def test_an_optional_number_passes_the_generic_checks():
    for check in CHECKS:
        check(Decayed())


def test_an_optional_number_of_an_optimiser_may_be_none():
    @dataclass(frozen=True)
    class Limited(cl_lib.SGD):
        least: float | None = None

        def update_(self, params, grads, state, hyper, lr):
            assert "least" not in hyper
            super().update_(params, grads, state, hyper, lr)

    same_params(trained(Finetune(), optim=Limited(lr=0.05)), trained(Finetune()))


def test_none_among_the_numbers_of_a_grid_is_refused():
    with pytest.raises(
        cl_lib.InputError,
        match=r"grid.strategy.lam=\[None, 0.1\]: null cannot be mixed with numbers.*run null separately",
    ):
        Session(job(Decayed(), grid={"strategy.lam": [None, 0.1]}))


def test_none_for_some_replicas_is_refused():
    session = Session(job(Decayed(), seeds=2))
    learner = make_learners(session.job, session.groups[0], make_plan(session.job, session.groups[0]))
    wanted = r"strategy.lam=\[None, 0.1\]: must be null for all replicas or a number for each"
    with pytest.raises(cl_lib.InputError, match=wanted):
        learner._numbers("strategy", Decayed(), {"strategy.lam": [None, 0.1]})


# ---------------------------------------------------------------------- found by trying to break it
def test_icarl_learns_and_shares_its_exemplars_where_classes_come_back():
    stream = cl_lib.streams.permuted(cl_lib.datasets.digits(), 3)
    record = cl_lib.run(stream, ICaRL(cl_lib.Memory(300, 32, "strategy")), seeds=2, epochs=3)
    assert record.metrics["learning_accuracy"].mean > 0.8
    session = Session(
        job(ICaRL(cl_lib.Memory(30, 8, "strategy")), stream=cl_lib.streams.permuted(toy_data(), 3), epochs=1)
    )
    for _ in session:
        pass
    memory = session.learner.state.memory
    count = int(memory["count"][0])
    assert count == 28  # seven of each of four classes
    assert np.bincount(memory["task"][0, :count]).min() >= 8


def test_icarl_has_a_loss_of_ordinary_size_where_classes_are_masked():
    record = cl_lib.run(
        cl_lib.streams.split(toy_data(), 2, scenario="task"), ICaRL(cl_lib.Memory(20, 8, "strategy")), epochs=3
    )
    assert np.nanmax(record.arrays["loss"]) < 10
    assert record.metrics["accuracy"].mean > 0.9


@pytest.mark.parametrize("size", [2, 4, 5, 8])
@pytest.mark.parametrize("name", ["er", "derpp", "agem", "lwf", "ewc", "icarl", "slda"])
def test_replicas_are_bit_for_bit_the_same_for_any_number_of_them(name, size):
    optim = cl_lib.SGD(lr=0.05, clip_norm=0.5) if size % 4 else cl_lib.Adam(clip_norm=0.5)
    options = {"optim": optim, "epochs": 2}
    stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), 2)
    both = [cl_lib.run(stream, EVERY[name], seeds=s, lift="always", **options) for s in (size, [size - 1])]
    for key, values in both[0].arrays.items():
        if key.startswith(("matrix.", "pooled.", "loss", "class.")):
            assert values[-1].tobytes() == both[1].arrays[key][0].tobytes(), key


def test_a_model_that_changes_its_input_is_refused():
    class Changing(nn.Linear):
        def forward(self, x):
            return super().forward(x.add_(1))

    with pytest.raises(cl_lib.InputError, match="changes its input in place"):
        cl_lib.run(cl_lib.streams.split(toy_data(), 2), Finetune(), model=Changing(6, 4))


def test_a_learner_whose_state_cannot_be_saved_is_refused_before_work_starts():
    class Lists:
        def observe(self, batch):
            raise AssertionError("work has started")

        end_experience = predict = observe

        def save_state(self):
            return {"optimiser": [1, 2]}

        load_state = save_state

    with pytest.raises(
        cl_lib.InputError, match=r"\['optimiser'\] is a list; its state must be nested dicts of tensors"
    ):
        cl_lib.run(cl_lib.streams.split(toy_data(), 2), lambda seed: Lists())
