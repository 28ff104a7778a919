"""Oracles of the strategies that hold parameters where they are: slow references, closed forms."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from running import BALANCED, experienced, job, same_params, trained
from torch import nn

import cl_lib
from cl_lib.checks import toy_data
from cl_lib.curvature import output_sensitivity, quadratic
from cl_lib.curvature.kronecker import kronecker_factors
from cl_lib.engine.net import FunctionalNet
from cl_lib.harness.assembly import make_learners, make_plan
from cl_lib.harness.session import Session
from cl_lib.models import MLP, ConvNet
from cl_lib.strategies import (
    CLSER,
    ER,
    KNN,
    MAS,
    NCM,
    SI,
    BiC,
    CompressedER,
    Finetune,
    GDumb,
    ICaRL,
    Joint,
    KeyValue,
    KroneckerLaplace,
    L2Init,
    LatentReplay,
    Phase,
    ReDo,
    RWalk,
)
from cl_lib.types import State

NETS = {
    "mlp": (lambda: MLP((6,), 4, hidden=(5,)), (6,)),
    "convnet": (lambda: ConvNet((1, 8, 8), 4, channels=(3, 4), hidden=5), (1, 8, 8)),
    "group_norm": (lambda: nn.Sequential(nn.Linear(6, 4), nn.GroupNorm(2, 4), nn.ReLU(), nn.Linear(4, 4)), (6,)),
}


@pytest.mark.parametrize("kind", NETS)
def test_output_sensitivity_equals_a_per_sample_loop(kind):
    torch.manual_seed(0)
    make, shape = NETS[kind]
    net = make().double().eval()
    data, x, *_ = experienced(9, shape, 4)
    params = {k: p.detach() for k, p in net.named_parameters()}
    fast = output_sensitivity(FunctionalNet(net, {}), params, data, samples=7)
    slow = {k: torch.zeros_like(p) for k, p in params.items()}
    for one in x[:7]:
        grads = torch.autograd.grad(net(one[None]).square().sum(), list(net.parameters()))
        for k, g in zip(slow, grads, strict=True):
            slow[k] += g.abs() / 7
    for k in slow:
        assert torch.allclose(fast[k], slow[k], rtol=1e-9, atol=1e-14), k


def test_classes_that_may_not_be_answered_do_not_count():
    torch.manual_seed(0)
    net = NETS["mlp"][0]().double()
    data, *_ = experienced(9, (6,), 4)
    mask = torch.tensor([[True, True, False, False]])
    params = {k: p.detach() for k, p in net.named_parameters()}
    found = output_sensitivity(FunctionalNet(net, {}, mask), params, data)["head.weight"]
    assert (found[2:] == 0).all()
    assert (found[:2] > 0).any(1).all()


def test_mas_adds_up_sensitivities_around_the_parameters_reached():
    session = Session(job(MAS(samples=54)))
    rows, data = iter(session), toy_data().train
    expected = {}
    for number, _ in enumerate(rows):
        params = {k: p[0] for k, p in session.learner.state.params.items()}
        if not number:
            expected = {k: torch.zeros_like(p) for k, p in params.items()}
            continue
        module = session.learner.module.double()
        module.load_state_dict(params)
        for one in data.x[(data.y >= 2) == (number == 2)].double():
            grads = torch.autograd.grad(module(one[None]).square().sum(), list(module.parameters()))
            for k, g in zip(expected, grads, strict=True):
                expected[k] += g.abs() / 54
        for k, found in session.learner.state.extra["importance"].items():
            assert torch.allclose(found[0], expected[k], rtol=1e-9, atol=1e-14), k
    extra = {k: {n: t[0] for n, t in own.items()} for k, own in session.learner.state.extra.items()}
    assert all(torch.equal(extra["anchor"][k], p) for k, p in params.items())
    moved = {k: p + 0.1 for k, p in params.items()}
    penalty = 2.0 * sum(float((0.01 * extra["importance"][k]).sum()) for k in params)
    assert float(MAS(lam=2.0).penalty(None, State(moved, {}, {}, {}, extra))) == pytest.approx(penalty, rel=1e-12)


class Recording(SI):
    """Keeps the path integral as it is when an experience ends."""

    def consolidate(self, net, state, data):
        return state


def path_and_fall(lr):
    """SI's path integral over full-batch training, and by how much the loss fell meanwhile."""
    options = {"stream": cl_lib.streams.split(toy_data(), 1), "batch_size": 108, "epochs": int(2 / lr)}
    session = Session(job(Recording(), optim=cl_lib.SGD(lr=lr), **options))
    rows = iter(session)
    next(rows)
    learner, data = session.learner, toy_data().train
    module = learner.module.double()

    def loss():
        params = {k: p[0] for k, p in learner.state.params.items()}
        return float(nn.functional.cross_entropy(torch.func.functional_call(module, params, data.x.double()), data.y))

    before = loss()
    for _ in rows:
        pass
    return sum(float(v.sum()) for v in learner.state.extra["path"].values()), before - loss()


def test_si_path_integral_is_the_fall_of_the_loss():
    """To first order in the step: halving the learning rate halves what is missing."""
    (coarse, fall), (fine, same) = path_and_fall(0.01), path_and_fall(0.005)
    assert fine == pytest.approx(same, rel=0.02)
    assert (fine - same) / (coarse - fall) == pytest.approx(0.5, abs=0.1)


def test_si_path_integral_of_a_quadratic_by_hand():
    """One parameter, L = (theta - 1)^2 / 2 from 0: the path is sum lr (1 - theta)^2."""

    strategy, lr = SI(c=0.5, xi=0.1), 0.1
    one = lambda v: {"w": torch.tensor([v], dtype=torch.float64)}
    extra = {"path": one(0.0), "importance": one(0.3), "anchor": one(0.2)}
    theta, expected, state = 0.0, 0.0, State(one(0.0), {}, {}, {}, extra)
    for _ in range(20):
        grad = (theta - 1) + 2 * 0.5 * 0.3 * (theta - 0.2)
        new = theta - lr * grad
        expected += -(theta - 1) * (new - theta)
        gradient = cl_lib.strategies.Gradient(one(grad), torch.zeros(()), {})
        after = state._replace(params=one(new))
        extra = strategy.after_step(None, state, after, None, gradient)
        state, theta = after._replace(extra=extra), new
    assert float(state.extra["path"]["w"]) == pytest.approx(expected, rel=1e-12)
    done = strategy.consolidate(None, state, None).extra
    assert float(done["importance"]["w"]) == pytest.approx(
        0.3 + max(expected, 0) / ((theta - 0.2) ** 2 + 0.1), rel=1e-12
    )
    assert float(done["anchor"]["w"]) == pytest.approx(theta)
    assert float(done["path"]["w"]) == 0


def test_rwalk_score_by_hand():
    strategy, theta, fisher, path = RWalk(lam=2.0, alpha=0.25), 0.0, 0.0, 0.0
    one = lambda v: {"w": torch.tensor([v], dtype=torch.float64)}
    extra = {"fisher": one(0.0), "path": one(0.0), "score": one(0.8), "importance": one(0.5), "anchor": one(0.1)}
    state = State(one(0.0), {}, {}, {}, extra)
    for g in (0.5, -0.2, 0.7):
        total = g + 2 * 2.0 * 0.5 * (theta - 0.1)
        new = theta - 0.1 * total
        fisher = 0.25 * g * g + 0.75 * fisher
        path += max(0.0, -g * (new - theta) / (0.5 * fisher * (new - theta) ** 2 + 1e-3))
        gradient = cl_lib.strategies.Gradient(one(total), torch.zeros(()), {})
        after = state._replace(params=one(new))
        state, theta = after._replace(extra=strategy.after_step(None, state, after, None, gradient)), new
    assert float(state.extra["fisher"]["w"]) == pytest.approx(fisher, rel=1e-12)
    assert float(state.extra["path"]["w"]) == pytest.approx(path, rel=1e-12)
    done = strategy.consolidate(None, state, None).extra
    assert float(done["score"]["w"]) == pytest.approx(0.5 * (0.8 + path), rel=1e-12)
    assert float(done["importance"]["w"]) == pytest.approx(2.0)  # the only parameter is the most important: 1 + 1


def test_l2_init_reaches_the_closed_form_minimum():
    """Loss |theta - 2|^2 with the penalty lam |theta - theta_0|^2: theta = (2 + lam theta_0) / (1 + lam)."""

    class Pull(L2Init):
        def loss(self, net, state, batch, recalled):
            return sum((p - 2.0).square().sum() for p in state.params.values()), {}

    learner = trained(Pull(lam=3.0), epochs=40, optim=cl_lib.SGD(lr=0.1))
    for k, p in learner.state.params.items():
        assert torch.allclose(p, (2.0 + 3.0 * learner.state.extra["initial"][k]) / 4.0, atol=1e-9)


def test_quadratic_is_its_definition():
    g = torch.Generator().manual_seed(0)
    a, b, c = ({"x": torch.rand(3, generator=g), "y": torch.rand(2, 2, generator=g)} for _ in range(3))
    assert quadratic(a, b, c) == pytest.approx(sum(float((a[k] * (b[k] - c[k]) ** 2).sum()) for k in a))


@pytest.mark.parametrize("reduced", [SI(c=0.0), MAS(lam=0.0), RWalk(lam=0.0), L2Init(lam=0.0)], ids=repr)
def test_reduces_to_fine_tuning(reduced):
    same_params(trained(reduced), trained(Finetune()))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (SI(c=-1.0), "c=-1.0: must be 0 or more"),
        (SI(xi=0.0), "xi=0.0: must be above 0"),
        (MAS(lam=-1.0), "lam=-1.0: must be 0 or more"),
        (MAS(samples=0), "samples=0: must be 1 or more"),
        (RWalk(alpha=1.5), "alpha=1.5: must lie between 0 and 1"),
        (L2Init(lam=-0.1), "lam=-0.1: must be 0 or more"),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_named(strategy, message):
    with pytest.raises(cl_lib.InputError, match=message):
        Session(job(strategy))


# ---------------------------------------------------------------------- Kronecker factors
@pytest.mark.parametrize("kind", ["mlp", "convnet"])
def test_kronecker_factors_equal_a_per_sample_loop(kind):
    torch.manual_seed(0)
    make, shape = NETS[kind]
    net = make().double().eval()
    data, x, *_ = experienced(5, shape, 4)
    params = {k: p.detach() for k, p in net.named_parameters()}
    found = kronecker_factors(FunctionalNet(net, {}), params, data)
    layers = {n: m for n, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    for name, layer in layers.items():
        entered, left = [], []

        def hook(_, args, out, entered=entered, left=left):
            entered.append(args[0])
            left.append(out)

        handle = layer.register_forward_hook(hook)
        a = g = 0.0
        for one in x:
            log_p = torch.log_softmax(net(one[None]), 1)[0]
            h, s = entered[-1], left[-1]
            if isinstance(layer, nn.Conv2d):
                h = nn.functional.unfold(h, layer.kernel_size, layer.dilation, layer.padding, layer.stride)[0].T
            rows = torch.cat([h, torch.ones(len(h), 1).double()], 1)
            a = a + rows.T @ rows / 5
            for c in range(4):
                (e,) = torch.autograd.grad(log_p[c], s, retain_graph=True)
                e = e.flatten(2)[0].T if e.ndim == 4 else e
                g = g + log_p[c].exp().detach() * e.T @ e / len(e) / 5
        handle.remove()
        assert torch.allclose(found[name]["A"], a, rtol=1e-9, atol=1e-12), name
        assert torch.allclose(found[name]["G"], g, rtol=1e-9, atol=1e-12), name


def test_kronecker_factors_of_one_sample_are_the_exact_fisher_information():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 3)).double()
    data, x, *_ = experienced(1, (6,), 3)
    params = {k: p.detach() for k, p in net.named_parameters()}
    factors = kronecker_factors(FunctionalNet(net, {}), params, data)["0"]
    log_p = torch.log_softmax(net(x), 1)[0]
    exact = 0.0
    for c in range(3):
        w, b = torch.autograd.grad(log_p[c], list(net.parameters()), retain_graph=True)
        flat = torch.cat([w, b[:, None]], 1).flatten()
        exact = exact + log_p[c].exp().detach() * torch.outer(flat, flat)
    assert torch.allclose(torch.kron(factors["G"], factors["A"]), exact, atol=1e-12)


def test_kronecker_penalty_is_the_quadratic_form_of_the_dense_product():
    strategy = KroneckerLaplace(lam=3.0)
    learner = trained(strategy)
    extra = {k: v[0] if torch.is_tensor(v) else {n: t[0] for n, t in v.items()} for k, v in learner.state.extra.items()}
    params = {k: p[0] for k, p in learner.state.params.items()}
    g = torch.Generator().manual_seed(0)
    moved = {k: p + 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=g) for k, p in params.items()}

    def dense(moved):
        total = 0.0
        for name, a in extra["A"].items():
            weight, bias = (moved[f"{name}.{n}"] - extra["anchor"][f"{name}.{n}"] for n in ("weight", "bias"))
            delta = torch.cat([weight, bias[:, None]], 1).flatten()
            total = total + 1.5 * delta @ torch.kron(extra["G"][name], a) @ delta
        return total

    def ours(moved):
        return strategy.penalty(None, State(moved, {}, {}, {}, extra))

    assert float(ours(moved)) == pytest.approx(float(dense(moved)), rel=1e-10)
    got, expected = (torch.func.grad(f)(moved) for f in (ours, dense))
    for k, g in expected.items():
        torch.testing.assert_close(got[k], g, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------- BiC
def test_bic_trains_two_numbers_of_the_newest_experience_and_nothing_else():
    strategy = BiC(BALANCED, passes=3)
    plain, learner = trained(Finetune()), trained(strategy)
    for k, p in plain.state.params.items():
        assert torch.equal(learner.state.params[k], p)  # the base learns as it would alone
    scale, shift = (learner.state.params[f"~correction.{n}"][0] for n in ("scale", "shift"))
    assert scale[0] == shift[0] == 0
    assert abs(float(shift[1])) > 1e-3
    assert float(shift[1]) < 0  # the newest classes are too large
    assert learner.state.extra["owner"][0].tolist() == [0, 0, 1, 1]


def test_bic_corrects_by_the_loops_numbers():
    """The correction after experience 2, by a hand-written loop over the planned batches."""
    strategy = BiC(BALANCED, passes=2)
    session = Session(job(strategy))
    plan = make_plan(session.job, session.groups[0])
    learner = make_learners(session.job, session.groups[0], plan)
    for e in range(2):
        learner.begin_experience(e)
        for block in plan.experience(e):
            for s in range(len(block)):
                if block.phase.name == "bias" and block.begins and s == 0:
                    frozen = {k: p[0].clone() for k, p in learner.state.params.items() if not k.startswith("~")}
                    own = torch.zeros(2, dtype=torch.float64, requires_grad=True)
                if block.phase.name == "bias":
                    n = block.size[s]
                    index = block.batch["index"][s, 0, :n]
                    x, y = toy_data().train.x[index].double(), toy_data().train.y[index]
                    raw = torch.func.functional_call(learner.module.double(), frozen, (x,))
                    new = torch.tensor([0.0, 0, 1, 1]).double()
                    logits = (1 + own[0] * new) * raw + own[1] * new
                    (g,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y), own)
                    own = (own - 0.05 * g).detach().requires_grad_()
                learner.observe(block, s)
        learner.end_experience(e)
    got = torch.stack([learner.state.params[f"~correction.{n}"][0, 1] for n in ("scale", "shift")])
    assert torch.allclose(got, own.detach(), atol=1e-12)


def test_bic_uses_the_memory_of_its_base_and_refuses_one_that_is_filled():
    assert BiC(base=ER(BALANCED)).memory == BALANCED
    assert BiC(BALANCED, ER()).base.memory == BALANCED
    assert BiC(base=ER()).base.memory.admission == "class_balanced"
    with pytest.raises(cl_lib.InputError, match=r"capacity=77.*share one memory"):
        Session(job(BiC(BALANCED, ER(cl_lib.Memory(77)))))
    with pytest.raises(cl_lib.InputError, match="GDumb fills or trains on its memory itself"):
        Session(job(BiC(base=GDumb(BALANCED))))
    with pytest.raises(cl_lib.InputError, match="BiC does not fill its memory itself"):
        Session(job(BiC(base=ICaRL(cl_lib.Memory(20, 8, "strategy")))))
    for base in (CompressedER(BALANCED), LatentReplay(BALANCED)):
        with pytest.raises(cl_lib.InputError, match=f"strategy.base: {type(base).__name__} keeps no inputs in memory"):
            Session(job(BiC(base=base)))
    with pytest.raises(cl_lib.InputError, match="passes=0: must be 1 or more"):
        Session(job(BiC(BALANCED, passes=0)))
    with pytest.raises(cl_lib.InputError, match="Joint does not train on each experience"):
        Session(job(BiC(BALANCED, Joint())))
    with pytest.raises(cl_lib.InputError, match="KNN predicts from its memory"):
        Session(job(BiC(base=KNN(BALANCED))))
    with pytest.raises(cl_lib.InputError, match=r"strategy\.base\.lam=-1\.0: must be 0 or more"):
        Session(job(BiC(BALANCED, L2Init(lam=-1.0))))
    with pytest.raises(cl_lib.InputError, match="base=3: must be Strategy"):
        Session(job(BiC(BALANCED, base=3)))


OTHER = [NCM("identity"), KeyValue("identity", slots=30), CLSER(alpha_plastic=0.8, alpha_stable=0.9)]


@pytest.mark.parametrize("base", OTHER, ids=lambda s: type(s).__name__)
def test_bic_corrects_what_its_base_answers(base):
    """Fitted on anything else the correction would turn right answers into wrong ones."""
    stream = cl_lib.streams.split(toy_data(), 2)
    alone, corrected = (
        cl_lib.run(stream, strategy, seeds=4, epochs=3).metrics["accuracy"].mean
        for strategy in (base, BiC(BALANCED, base))
    )
    assert corrected > alone - 0.1


def test_bic_sits_on_strategies_that_change_parameters_after_a_step():
    redo = ReDo(tau=0.5, every=10)
    alone, corrected = trained(redo), trained(BiC(BALANCED, redo, passes=2))
    same_params(alone, corrected, 0.0)
    assert (corrected.state.params["~correction.shift"][0] != 0).tolist() == [False, True]


def test_bic_runs_as_its_base_must():
    @dataclass(frozen=True)
    class Branching(Finetune):
        """Reads a number out of a tensor, which neither a trace nor a lifted step can."""

        liftable: ClassVar[bool] = False
        traceable: ClassVar[bool] = False

        def penalty(self, net, state):
            total = sum(p.square().sum() for k, p in state.params.items() if not k.startswith("~"))
            return 0.0 * total if state.params["head.bias"].shape[0] == 4 else None

        def after_step(self, net, old, new, batch, gradient):
            assert float(new.params["head.bias"].sum()) < 1e9
            return new.extra

    strategy = BiC(BALANCED, Branching(), passes=2)
    assert (strategy.liftable, strategy.traceable) == (False, False)
    assert (BiC().liftable, BiC().traceable) == (True, True)
    same_params(trained(strategy, seeds=2), trained(BiC(BALANCED, passes=2), seeds=2))


@dataclass(frozen=True)
class ReadsAgain(CompressedER):
    """Reads inputs from a memory that keeps none: for its read-out, or when an experience ends."""

    where: str = "readout"

    def readout(self, net, state, memory):
        return {"x": next(memory.batches()).x} if self.where == "readout" else {}

    def consolidate(self, net, state, data):
        if self.where == "consolidate":
            next(data.memory.batches())
        return state

    def phases(self, experience, spec):
        return (Phase(), Phase("again", "memory")) if self.where == "phases" else (Phase(),)


@pytest.mark.parametrize("lift", ["never", "always"])
@pytest.mark.parametrize("where", ["readout", "consolidate", "phases"])
def test_inputs_are_not_read_from_a_memory_that_keeps_none(where, lift):
    says = "trains on what its memory holds, but keeps_inputs=False" if where == "phases" else "that keeps none"
    with pytest.raises(cl_lib.InputError, match=says):
        trained(ReadsAgain(BALANCED, where=where), lift=lift)
