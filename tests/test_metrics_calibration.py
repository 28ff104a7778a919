"""Calibration errors, against torchmetrics and float64 loops."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from cl_lib.errors import InputError
from cl_lib.metrics import (
    ClasswiseSums,
    GroupSums,
    Scores,
    adaptive_ece,
    classwise_ece,
    ece,
    mce,
    reliability,
)
from cl_lib.metrics.calibration import grouped_adaptive_ece


def probabilities(kind: str, samples: int, classes: int) -> Tensor:
    rng = torch.Generator().manual_seed(samples + classes)
    logits = torch.randn(samples, classes, generator=rng)
    if kind == "calm":
        return logits.softmax(-1)
    if kind == "saturated":  # many confidences of exactly 1
        return (60 * logits).softmax(-1)
    top = torch.linspace(0, 1, 16)[torch.randint(8, 16, (samples,), generator=rng)]  # on the edges, all above 1/2
    rest = (1 - top)[:, None].expand(-1, classes - 1) / (classes - 1)
    return torch.cat([top[:, None], rest], -1)


def sums(p: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    samples, classes = p.shape
    # The logarithm would move a probability off its edge, so the scores are built from the probabilities.
    scores = Scores.from_log_probs(p.log()[None], target[None])
    top, predicted = p.max(-1)
    scores = Scores(
        correct=(predicted == target).float()[None],
        nll=scores.nll,
        brier=scores.brier,
        confidence=top[None],
        bin=(torch.bucketize(top, torch.linspace(0, 1, 16), right=True)[None] - 1).clamp_max(14),
        probabilities=p[None],
        target=target[None],
    )
    group = torch.zeros(1, samples, dtype=torch.long)
    whole = GroupSums.zeros(1, 1).add_(scores, group)
    by_class = ClasswiseSums.zeros(1, 1, classes).add_(scores, group)
    return whole.bins.numpy(), by_class.bins.numpy()


def below_one(p: Tensor) -> Tensor:
    """For torchmetrics, which gives a probability of exactly 1 a bin of its own (its issue 3510)."""
    return p.clamp_max(1 - 2**-24)


@pytest.mark.parametrize("kind", ["calm", "saturated", "edges"])
@pytest.mark.parametrize(("samples", "classes"), [(1, 2), (57, 3), (500, 10)])
def test_against_torchmetrics(kind: str, samples: int, classes: int) -> None:
    p = probabilities(kind, samples, classes)
    target = torch.randint(max(1, classes - 1), (samples,), generator=torch.Generator().manual_seed(1))  # one absent
    bins, by_class = sums(p, target)
    p = below_one(p)
    for ours, norm in ((ece, "l1"), (mce, "max")):
        expected = multiclass_calibration_error(p, target, classes, n_bins=15, norm=norm)  # type: ignore[arg-type]
        assert ours(bins)[0, 0] == pytest.approx(float(expected), abs=1e-6)
    one_by_one = [
        float(binary_calibration_error(p[:, c].contiguous(), (target == c).long(), n_bins=15)) for c in range(classes)
    ]
    np.testing.assert_allclose(ece(by_class)[0, 0], one_by_one, rtol=0, atol=1e-6)
    assert classwise_ece(by_class)[0, 0] == pytest.approx(float(np.mean(one_by_one)), abs=1e-6)


@pytest.mark.parametrize("kind", ["calm", "saturated"])
def test_from_log_probs_against_torchmetrics(kind: str) -> None:
    p = probabilities(kind, 400, 4)
    target = torch.randint(4, (400,), generator=torch.Generator().manual_seed(1))
    scores = Scores.from_log_probs(p.log()[None], target[None])
    bins = GroupSums.zeros(1, 1).add_(scores, torch.zeros(1, 400, dtype=torch.long)).bins.numpy()
    expected = multiclass_calibration_error(below_one(p.log().exp()), target, 4, n_bins=15)
    assert ece(bins)[0, 0] == pytest.approx(float(expected), abs=1e-6)


def test_empty_and_diverged() -> None:
    bins = np.zeros((3, 2, 4, 3))
    bins[:2, :, 0] = [4, 1.0, 2]
    bins[1, :, 0, 1] = np.nan
    for measure in (ece, mce, classwise_ece):
        result = measure(bins)
        assert not np.isnan(result[0]).any()
        assert np.isnan(result[1:]).all()
    curve = reliability(bins)
    assert curve.count.shape == curve.accuracy.shape == curve.confidence.shape == (3, 2, 4)
    np.testing.assert_array_equal(curve.confidence[0, 0], [0.25, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(curve.accuracy[0, 0], [0.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(curve.count[0, 0], [4, 0, 0, 0])
    with pytest.raises(InputError, match="`bins` must have the shape"):
        ece([[1.0, 2.0]])


def naive_adaptive(confidence: list[float], correct: list[float], bins: int) -> float:
    size = len(confidence)
    shared = [
        float(np.mean([hit for other, hit in zip(confidence, correct, strict=True) if other == mine]))
        for mine in confidence
    ]
    pairs = sorted(zip(confidence, shared, strict=True))
    total = 0.0
    for b in range(bins):
        members = [pair for k, pair in enumerate(pairs) if k * bins // size == b]
        total += abs(sum(hit - top for top, hit in members)) / size
    return total


@pytest.mark.parametrize("size", [1, 4, 15, 100, 301])
@pytest.mark.parametrize("tied", [False, True])
def test_adaptive_against_loops(size: int, tied: bool) -> None:
    rng = torch.Generator().manual_seed(size)
    confidence = torch.rand(2, 3, size, generator=rng)
    if tied:
        confidence = (confidence * 4).round() / 4
    correct = (torch.rand(2, 3, size, generator=rng) < confidence).float()
    result = adaptive_ece(confidence, correct)
    order = torch.randperm(size, generator=rng)
    shuffled = adaptive_ece(confidence[..., order], correct[..., order])
    torch.testing.assert_close(result, shuffled, rtol=0, atol=1e-14)
    for at in np.ndindex(2, 3):
        expected = naive_adaptive(confidence[at].tolist(), correct[at].tolist(), 15)
        assert result[at].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_adaptive_by_group_equals_each_group_alone(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    confidence = (torch.rand(3, 200, generator=rng) * 50).round().to(dtype) / 50
    confidence[2, 7] = torch.nan
    correct = (torch.rand(3, 200, generator=rng) < confidence).float()
    group = torch.randint(4, (3, 200), generator=rng) * 2  # odd ones stay empty
    result = grouped_adaptive_ece(confidence, correct, group, 8)
    for r in range(3):
        for g in range(8):
            own = group[r] == g
            expected = adaptive_ece(confidence[r, own], correct[r, own])
            torch.testing.assert_close(result[r, g], expected, rtol=0, atol=0, equal_nan=True)
    assert result.isnan().sum() == 3 * 4 + 1


def test_adaptive_edges() -> None:
    assert adaptive_ece(torch.zeros(2, 0), torch.zeros(2, 0)).isnan().tolist() == [True, True]
    confidence = torch.tensor([[0.5, 0.7, torch.nan], [0.5, 0.7, 0.9]])
    assert adaptive_ece(confidence, torch.ones(2, 3), bins=2).isnan().tolist() == [True, False]
    with pytest.raises(InputError, match="the same shape"):
        adaptive_ece(torch.zeros(3), torch.zeros(2))
    with pytest.raises(InputError, match="at least 1"):
        adaptive_ece(torch.zeros(3), torch.zeros(3), bins=0)


def test_a_confidence_of_exactly_one_shares_the_last_bin() -> None:
    """A miss at 1 and a hit at 0.95: |1 - 1.95| / 2 in one bin, where two bins would give (1 + 0.05) / 2."""
    log_probs = torch.tensor([[[1.0, 0.0], [0.05, 0.95]]]).log()
    scores = Scores.from_log_probs(log_probs, torch.tensor([[1, 1]]))
    bins = GroupSums.zeros(1, 1).add_(scores, torch.zeros(1, 2, dtype=torch.long)).bins.numpy()
    assert reliability(bins).count[0, 0].tolist() == [0.0] * 14 + [2.0]
    assert ece(bins)[0, 0] == pytest.approx((1.95 - 1) / 2)
