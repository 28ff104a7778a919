"""Additive sums, against float64 loops over samples, torchmetrics and scikit-learn."""

from dataclasses import fields

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.metrics import ClasswiseSums, GroupSums, Scores
from cl_lib.metrics.scores import bin_index

R, N, C, G = 3, 200, 5, 4


def sample(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, from nearly uniform to saturated, labels of each replica, and groups from -1."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(R, N, C, generator=rng, dtype=dtype) * torch.linspace(0, 40, N, dtype=dtype)[:, None]
    target = torch.randint(C, (R, N), generator=rng)
    return logits.log_softmax(-1), target, torch.randint(-1, G, (R, N), generator=rng)


def tensors(sums: GroupSums | ClasswiseSums) -> list[Tensor]:
    return [getattr(sums, field.name) for field in fields(sums)]


def assert_same(one: GroupSums | ClasswiseSums, other: GroupSums | ClasswiseSums, atol: float = 1e-12) -> None:
    for left, right in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=atol, equal_nan=True)


def grouped(log_probs: Tensor, target: Tensor, group: Tensor) -> GroupSums:
    return GroupSums.zeros(len(log_probs), G).add_(Scores.from_log_probs(log_probs, target), group)


def classwise(log_probs: Tensor, target: Tensor, group: Tensor) -> ClasswiseSums:
    return ClasswiseSums.zeros(len(log_probs), G, C).add_(Scores.from_log_probs(log_probs, target), group)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_against_loops(dtype: torch.dtype, atol: float) -> None:
    log_probs, target, group = sample(dtype=dtype)
    sums, by_class = grouped(log_probs, target, group), classwise(log_probs, target, group)
    expected, expected_class = GroupSums.zeros(R, G), ClasswiseSums.zeros(R, G, C)
    edges = torch.linspace(0, 1, 16).numpy()  # NumPy's differ in the last bit
    p = log_probs.exp().numpy()
    for r in range(R):
        for i in range(N):
            g, y = int(group[r, i]), int(target[r, i])
            if g < 0:
                continue
            best = int(p[r, i].argmax())
            hit, top = float(best == y), float(p[r, i, best])
            b = min(int((edges <= np.float32(top)).sum()) - 1, 14)
            expected.count[r, g] += 1
            expected.correct[r, g] += hit
            expected.nll[r, g] -= float(log_probs[r, i, y])
            expected.brier[r, g] += sum((float(p[r, i, c]) - (c == y)) ** 2 for c in range(C))
            expected.bins[r, g, b] += torch.tensor([1.0, top, hit], dtype=torch.float64)
            for c in range(C):
                b = min(int((edges <= np.float32(p[r, i, c])).sum()) - 1, 14)
                row = torch.tensor([1.0, float(p[r, i, c]), float(c == y)], dtype=torch.float64)
                expected_class.bins[r, g, c, b] += row
    assert_same(sums, expected, atol)
    assert_same(by_class, expected_class, atol=1e-10)  # sums of float32 values, exact in float64


@pytest.mark.parametrize("gather", [grouped, classwise])
def test_chunks_replicas_and_shared_inputs(gather) -> None:  # type: ignore[no-untyped-def]
    log_probs, target, group = sample()
    at_once = gather(log_probs, target, group)
    parts = [gather(log_probs[:, cut], target[:, cut], group[:, cut]) for cut in (slice(0, 7), slice(7, N))]
    assert_same(parts[0] + parts[1], at_once)
    singles = [gather(log_probs[r : r + 1], target[r : r + 1], group[r : r + 1]) for r in range(R)]
    for number, whole in enumerate(tensors(at_once)):
        assert whole.dtype == torch.float64
        stacked = torch.cat([tensors(single)[number] for single in singles])
        assert torch.equal(stacked, whole)
    repeated = gather(log_probs, target[:1].repeat(R, 1), group[:1].repeat(R, 1))
    assert_same(gather(log_probs, target[:1], group[:1]), repeated, atol=0)


@pytest.mark.parametrize("gather", [grouped, classwise])
def test_diverged_replica_stays_alone(gather) -> None:  # type: ignore[no-untyped-def]
    log_probs, target, group = sample()
    broken = log_probs.clone()
    broken[1] = torch.nan
    healthy, sums = gather(log_probs, target, group), gather(broken, target, group)
    for name, before, after in zip(fields(sums), tensors(healthy), tensors(sums), strict=True):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        if name.name != "count":
            assert after[1].isnan().any()
    if isinstance(sums, GroupSums):
        assert torch.equal(sums.count, healthy.count)
        assert (sums.correct / sums.count)[1].isnan().all()


def test_nll_and_brier_against_scikit_learn() -> None:
    log_probs, target, _ = sample()
    target = target.clamp(max=C - 2)  # one class absent
    sums = grouped(log_probs, target, torch.zeros(1, N, dtype=torch.long))
    for r in range(R):
        p, y = log_probs[r].double().exp().numpy(), target[r].numpy()
        p /= p.sum(-1, keepdims=True)
        assert sums.correct[r, 0] == (p.argmax(-1) == y).sum()
        brier = ((p - np.eye(C)[y]) ** 2).sum(-1).mean()
        assert sums.brier[r, 0] / N == pytest.approx(brier, abs=1e-6)
        calm = slice(0, N // 4)  # scikit-learn clips saturated probabilities
        part = grouped(log_probs[r : r + 1, calm], target[r : r + 1, calm], torch.zeros(1, N // 4).long())
        expected = sklearn.metrics.log_loss(y[calm], p[calm], labels=list(range(C)))
        assert part.nll[0, 0] / part.count[0, 0] == pytest.approx(expected, abs=1e-6)
        for c in range(2):
            pair = torch.stack([1 - log_probs[r].exp()[:, c], log_probs[r].exp()[:, c]], -1)[None].log()
            two = Scores.from_log_probs(pair, (target[r : r + 1] == c).long())
            expected = sklearn.metrics.brier_score_loss((y == c).astype(int), p[:, c])
            assert two.brier.double().mean() / 2 == pytest.approx(expected, abs=1e-6)


def test_bins_at_the_edges() -> None:
    edges = torch.linspace(0, 1, 16)
    assert bin_index(edges).tolist() == [*range(15), 14]  # a bin holds its lower edge, the last one its upper edge too
    below = torch.nextafter(edges[1:], torch.zeros(1))
    assert bin_index(below).tolist() == list(range(15))
    assert bin_index(torch.tensor([torch.nan])).tolist() == [14]
    with pytest.raises(InputError, match="at least 1"):
        bin_index(edges, bins=0)


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15, 20, 1000, 100_000])
def test_bins_equal_a_search_among_the_edges(bins: int) -> None:
    edges = torch.linspace(0, 1, bins + 1)
    values = torch.cat(
        [
            edges,
            *(torch.nextafter(edges, torch.tensor(end)) for end in (-1.0, 2.0)),
            torch.rand(10_000, generator=torch.Generator().manual_seed(0)),
            torch.tensor([1.1, torch.inf, torch.nan]),
        ]
    )
    expected = (torch.bucketize(values, edges, right=True) - 1).clamp(0, bins - 1)
    for probabilities in (values, values.double()):
        assert torch.equal(bin_index(probabilities, bins), expected)
    with pytest.raises(InputError, match="at most 100000"):
        bin_index(edges, bins=100_001)


@pytest.mark.parametrize("layout", ["samples", "classes"])
def test_unchecked_sums_and_any_layout_are_the_same(layout: str) -> None:
    log_probs, target, group = sample()
    group = group.clamp(min=0)
    other = log_probs if layout == "classes" else log_probs.transpose(1, 2).contiguous().transpose(1, 2)
    scores = Scores.from_log_probs(other, target, check=False)
    unchecked = GroupSums.zeros(R, G).add_(scores, group, check=False)
    assert_same(unchecked, grouped(log_probs, target, group), atol=0)
    by_class = ClasswiseSums.zeros(R, G, C).add_(scores, group, check=False)
    assert_same(by_class, classwise(log_probs, target, group), atol=0)


def test_bad_input() -> None:
    log_probs, target, group = sample()
    scores = Scores.from_log_probs(log_probs, target)
    with pytest.raises(InputError, match="log_probs"):
        Scores.from_log_probs(log_probs[0], target)
    with pytest.raises(InputError, match="`target` must have the shape"):
        Scores.from_log_probs(log_probs, target[:2])
    for wrong in (-1, C):
        with pytest.raises(InputError, match="labels must lie"):
            Scores.from_log_probs(log_probs, torch.full((1, N), wrong))
    for sums in (GroupSums.zeros(R, G), ClasswiseSums.zeros(R, G, C)):
        with pytest.raises(InputError, match="must be below 4"):
            sums.add_(scores, group + 1)
        with pytest.raises(InputError, match="must have the shape"):
            sums.add_(scores, group[:, 1:])
    with pytest.raises(InputError, match="bins must be the same"):
        GroupSums.zeros(R, G, bins=10).add_(scores, group)
    with pytest.raises(InputError, match="replicas must be the same"):
        GroupSums.zeros(1, G).add_(scores, group)
    with pytest.raises(InputError, match="replicas and classes"):
        ClasswiseSums.zeros(R, G, C + 1).add_(scores, group)
    with pytest.raises(InputError, match="shapes of sums"):
        GroupSums.zeros(R, G) + GroupSums.zeros(R, G + 1)


def test_no_samples() -> None:
    empty = Scores.from_log_probs(torch.zeros(R, 0, C), torch.zeros(1, 0, dtype=torch.long))
    group = torch.zeros(1, 0, dtype=torch.long)
    assert_same(GroupSums.zeros(R, G).add_(empty, group), GroupSums.zeros(R, G), atol=0)
    assert_same(ClasswiseSums.zeros(R, G, C).add_(empty, group), ClasswiseSums.zeros(R, G, C), atol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("gather", [grouped, classwise])
def test_the_same_on_cuda(gather) -> None:  # type: ignore[no-untyped-def]
    log_probs, target, group = (values[:, 1:] for values in sample(dtype=torch.float64))  # 0 lies on an edge
    scores = Scores.from_log_probs(log_probs.cuda(), target.cuda())
    zeros = GroupSums.zeros(R, G, device="cuda") if gather is grouped else ClasswiseSums.zeros(R, G, C, device="cuda")
    there = zeros.add_(scores, group.cuda())
    for left, right in zip(tensors(gather(log_probs, target, group)), tensors(there), strict=True):
        torch.testing.assert_close(left, right.cpu(), rtol=0, atol=1e-9)
