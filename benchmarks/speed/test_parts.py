"""The parts of a run, each beside a plain reference in the same group, so that a regression shows as a ratio.

    pytest benchmarks/speed --benchmark-enable

writes ``records/parts.json``. Without ``--benchmark-enable`` every case runs once, untimed, and results are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hand import hand_loop
from memories import Reservoir
from torch import Tensor
from torch.nn import functional as F
from works import WORKS, make_stream

from cl_lib import SGD, InputError
from cl_lib.curvature import diagonal_fisher
from cl_lib.engine.net import FunctionalNet
from cl_lib.engine.step import keep
from cl_lib.harness.assembly import make_learners, make_plan
from cl_lib.harness.evaluate import CHUNK, Evaluator
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.metrics import ClasswiseSums, GroupSums, Scores
from cl_lib.types import ExperienceData

WORK, STEPS, REPLICAS, CPU = WORKS["W2"], 128, 10, torch.device("cpu")


@pytest.fixture(scope="module")
def stream() -> Any:
    """128 steps of each experience of the second work, all 10,000 test images."""
    try:
        return make_stream(WORK, STEPS, 10_000)
    except InputError as error:
        pytest.skip(f"Fashion-MNIST is not on this machine ({error})")


def made(stream: Any, replicas: int, **options: Any) -> tuple[Any, Any, Any]:
    """Plan, population and evaluator."""
    options = {
        "model": WORK.model,
        "optim": SGD(0.1),
        "batch_size": WORK.batch,
        "seeds": replicas,
        "device": "cpu",
    } | options
    session = Session(Job(stream, WORK.strategy, **options))
    (group,) = session.groups
    plan = make_plan(session.job, group)
    evaluator = Evaluator(stream, group.realisations, "test", torch.float32, CPU)
    return plan, make_learners(session.job, group, plan), evaluator


# ---------------------------------------------------------------------- what every step does many times
@pytest.mark.benchmark(group="rows of 138 images of bytes")
@pytest.mark.parametrize("how", ["index_select", "plain indexing"])
def test_rows(benchmark: Any, stream: Any, how: str) -> None:
    x, index = stream.data.train.x, torch.arange(138) * 17
    found = benchmark((lambda: x.index_select(0, index)) if how == "index_select" else (lambda: x[index]))
    assert torch.equal(found, x[index])


@pytest.mark.benchmark(group="one call: transposing a small matrix")
@pytest.mark.parametrize("how", ["method", "plain torch.ops"])
def test_one_call(benchmark: Any, how: str) -> None:
    x = torch.rand(16, 10)
    found = benchmark(x.t if how == "method" else lambda: torch.ops.aten.t.default(x))
    assert torch.equal(found, x.mT)


# ---------------------------------------------------------------------- plan: 128 steps of ten replicas
@pytest.mark.benchmark(group="plan, 128 steps x 10 replicas")
def test_plan(benchmark: Any, stream: Any) -> None:
    (block, *_) = benchmark.pedantic(
        lambda plan: list(plan.experience(0)), setup=lambda: ((made(stream, REPLICAS)[0],), {}), rounds=15
    )
    assert block.batch["index"].shape == (STEPS, REPLICAS, WORK.batch)


@pytest.mark.benchmark(group="plan, 128 steps x 10 replicas")
def test_plan_by_hand(benchmark: Any, stream: Any) -> None:
    own = [stream.realise(seed).experiences[0].train.numpy() for seed in range(REPLICAS)]

    def plan() -> int:
        recalled = 0
        for seed, index in enumerate(own):
            memory, order = Reservoir(500, seed), np.random.default_rng(seed).permutation(index)
            for start in range(0, len(order), WORK.batch):
                recalled += len(memory.held[memory.recall(10)])
                memory.offer(order[start : start + WORK.batch])
        return recalled

    assert benchmark(plan) == REPLICAS * (STEPS - 1) * 10


# ---------------------------------------------------------------------- step: 128 of them
@pytest.mark.benchmark(group="128 steps of one replica")
@pytest.mark.parametrize("replicas", [1, REPLICAS], ids=["R=1", "R=10"])
def test_steps(benchmark: Any, stream: Any, replicas: int) -> None:
    plan, learner, _ = made(stream, replicas)
    block = next(plan.experience(0))
    learner.observe(block, 0)  # traced

    def steps() -> None:
        for s in range(len(block)):
            learner.observe(block, s)

    benchmark.extra_info["replicas"] = replicas
    benchmark(steps)
    assert np.isfinite(learner.loss).all()


@pytest.mark.benchmark(group="128 steps of one replica")
def test_steps_by_hand(benchmark: Any, stream: Any) -> None:
    loop = hand_loop(WORK, stream, 0, CPU)
    index = next(loop.experiences)

    def steps() -> None:
        for start in range(0, len(index), WORK.batch):
            loop.step(index[start : start + WORK.batch])

    benchmark(steps)


# ---------------------------------------------------------------------- memory write: logits of ten samples
def written(lifted: bool) -> tuple[Tensor, Tensor, Tensor, Callable[[Tensor], None]]:
    generator = torch.Generator().manual_seed(0)
    slot = torch.stack([torch.randperm(500, generator=generator)[:10] for _ in range(REPLICAS)])
    memory, value = torch.zeros(REPLICAS, 501, 10), torch.rand(REPLICAS, 10, 10, generator=generator)
    row = torch.arange(REPLICAS) * 501

    def plain(memory: Tensor) -> None:
        for r in range(REPLICAS):
            memory[r, slot[r]] = value[r]

    return memory, slot, value, (lambda memory: keep(memory, slot, value, row)) if lifted else plain


@pytest.mark.benchmark(group="memory write, 10 samples x 10 replicas")
@pytest.mark.parametrize("lifted", [True, False], ids=["cl_lib", "by hand"])
def test_memory_write(benchmark: Any, lifted: bool) -> None:
    memory, slot, value, write = written(lifted)
    benchmark(write, memory)
    assert all(torch.equal(memory[r, slot[r]], value[r]) for r in range(REPLICAS))


# ---------------------------------------------------------------------- Fisher information, MLP 256-256
def samples(stream: Any, count: int) -> tuple[Any, dict[str, Tensor], ExperienceData]:
    module = WORKS["W3"].model(stream.data.shape, 10)
    x, y = stream.data.train.x[:count].float() / 255, stream.data.train.y[:count]
    every, task = torch.ones(10, dtype=torch.bool), torch.zeros(count, dtype=torch.long)
    index, uniform, key = torch.arange(count), torch.rand(count), torch.tensor(0)
    data = ExperienceData(0, every, every, 10, 10, index, task, uniform, key, lambda i, t: (x[i].clone(), y[i]))
    return module, {k: p.detach() for k, p in module.named_parameters()}, data


def fisher_loop(module: Any, data: ExperienceData) -> dict[str, Tensor]:
    """One sample and one class at a time."""
    batch, params = data.read(slice(0, len(data))), dict(module.named_parameters())
    total = {k: torch.zeros_like(p) for k, p in params.items()}
    for x in batch.x:
        log_probs = torch.log_softmax(module(x[None]), -1)[0]
        for c, log_prob in enumerate(log_probs):
            grads = torch.autograd.grad(log_prob, list(params.values()), retain_graph=c < 9)
            for k, g in zip(params, grads, strict=True):
                total[k] += log_prob.detach().exp() * g.square() / len(data)
    return total


@pytest.mark.benchmark(group="exact Fisher, 1,000 samples, MLP 256-256")
@pytest.mark.parametrize("ours", [True, False], ids=["cl_lib", "by hand"])
def test_fisher(benchmark: Any, stream: Any, ours: bool) -> None:
    module, params, data = samples(stream, 20 if benchmark.disabled else 1000)
    if ours:
        found = benchmark(diagonal_fisher, FunctionalNet(module, {}), params, data, "exact")
        for k, reference in fisher_loop(module, data).items():
            assert (found[k] - reference).norm() <= 1e-5 * reference.norm()
    else:
        benchmark.pedantic(fisher_loop, (module, data), rounds=3)


@pytest.mark.benchmark(group="gradients of 1,000 samples, MLP 256-256")
@pytest.mark.parametrize("variant", ["plain gradient", "and one more backward pass", "sample", "empirical"])
def test_fisher_variants(benchmark: Any, stream: Any, variant: str) -> None:
    module, params, data = samples(stream, 1000)
    net, backward = FunctionalNet(module, {}), 1 + ("more" in variant)

    def plain() -> None:
        for part in data.batches(128):
            batch = data.read(part)
            loss = F.cross_entropy(module(batch.x), batch.y)
            for left in reversed(range(backward)):
                torch.autograd.grad(loss, list(module.parameters()), retain_graph=left > 0)

    if variant in ("sample", "empirical"):
        benchmark(diagonal_fisher, net, params, data, variant)
    else:
        benchmark(plain)


# ---------------------------------------------------------------------- evaluation: 10,000 images, ten replicas
@pytest.mark.benchmark(group="evaluation, 10,000 images x 10 replicas")
def test_evaluation(benchmark: Any, stream: Any) -> None:
    _, learner, evaluator = made(stream, REPLICAS)
    arrays = benchmark(evaluator.run, learner, np.zeros((REPLICAS, 10), bool))
    assert arrays["support"].sum() == REPLICAS * 10_000


@pytest.mark.benchmark(group="evaluation, 10,000 images x 10 replicas")
def test_bare_forward_passes(benchmark: Any, stream: Any) -> None:
    modules = [WORK.model(stream.data.shape, 10) for _ in range(REPLICAS)]
    x = stream.data.test.x.float() / 255

    @torch.no_grad()
    def forward() -> None:
        for module in modules:
            for part in x.split(CHUNK):
                torch.log_softmax(module(part), -1)

    benchmark(forward)


# ---------------------------------------------------------------------- metric sums: 1,000 samples, ten replicas
def answers() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.log_softmax(torch.randn(REPLICAS, 1000, 10, generator=generator), -1)
    return log_probs, torch.randint(0, 10, (REPLICAS, 1000), generator=generator), torch.arange(1000)[None] % 5


@pytest.mark.benchmark(group="metric sums, 1,000 samples x 10 replicas")
def test_sums(benchmark: Any) -> None:
    log_probs, y, task = answers()

    def sums() -> tuple[GroupSums, ClasswiseSums]:
        scores = Scores.from_log_probs(log_probs, y)
        return (
            GroupSums.zeros(REPLICAS, 5).add_(scores, task),
            ClasswiseSums.zeros(REPLICAS, 5, 10).add_(scores, task),
        )

    groups, _ = benchmark(sums)
    assert torch.equal(groups.correct, sums_by_hand(log_probs, y, task)[..., 1])


@pytest.mark.benchmark(group="metric sums, 1,000 samples x 10 replicas")
def test_sums_by_hand(benchmark: Any) -> None:
    benchmark(sums_by_hand, *answers())


def sums_by_hand(log_probs: Tensor, y: Tensor, task: Tensor) -> Tensor:
    """Count, hits, NLL, Brier and fifteen confidence bins of each experience, replica by replica; no classwise bins."""
    out = torch.zeros(REPLICAS, 5, 4 + 15 * 3, dtype=torch.float64)
    for r, (own, labels) in enumerate(zip(log_probs.double(), y, strict=True)):
        probabilities = own.exp()
        confidence, answer = probabilities.max(-1)
        hit = (answer == labels).double()
        nll = F.nll_loss(own, labels, reduction="none")
        brier = (probabilities - F.one_hot(labels, 10)).square().sum(-1)
        place = (confidence * 15).long().clamp_max(14)
        for e in range(5):
            chosen = task[0] == e
            out[r, e, :4] = torch.stack([v[chosen].sum() for v in (torch.ones_like(hit), hit, nll, brier)])
            for b in range(15):
                inside = chosen & (place == b)
                out[r, e, 4 + 3 * b : 7 + 3 * b] = torch.stack(
                    [inside.double().sum(), confidence[inside].sum(), hit[inside].sum()]
                )
    return out
