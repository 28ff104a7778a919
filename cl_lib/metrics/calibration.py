"""Calibration errors and reliability diagrams, from binned sums in NumPy.

The last axis of ``bins`` is [count, confidence sum, hit sum] of a confidence bin, as in `GroupSums.bins` and
`ClasswiseSums.bins` (convert them with ``.cpu().numpy()``). Only the adaptive errors, which need every sample, are
computed from torch tensors, on any device.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.metrics.matrix import Floats


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: three arrays of shape (..., B); empty bins are NaN with a count of 0."""

    confidence: Floats
    accuracy: Floats
    count: Floats


def ece(bins: ArrayLike) -> Floats:
    r"""Expected calibration error over equal-width bins, with the L1 norm.

    .. math:: ECE = \sum_b \frac{n_b}{n} |acc_b - conf_b|

    Parameters
    ----------
    bins : array-like, shape (..., B, 3)
        [count, confidence sum, hit sum] of each bin.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1]. NaN without samples or if a sum is NaN.

    Raises
    ------
    InputError
        If the last axis is not 3 long.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Examples
    --------
    Two bins of 4 samples: confidence 0.25, no hit; confidence 0.75, 2 hits.

    >>> float(ece([[4, 1.0, 0], [4, 3.0, 2]]))
    0.25
    """
    count, confidence, hits = _split(bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 without samples is the NaN of the docstring
        return np.abs(hits - confidence).sum(-1) / count.sum(-1)


def mce(bins: ArrayLike) -> Floats:
    r"""Maximum calibration error over the non-empty bins.

    .. math:: MCE = \max_{b : n_b > 0} |acc_b - conf_b|

    Parameters
    ----------
    bins : array-like, shape (..., B, 3)
        [count, confidence sum, hit sum] of each bin.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1]. NaN without samples or if a sum is NaN.

    Raises
    ------
    InputError
        If the last axis is not 3 long.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Examples
    --------
    >>> float(mce([[4, 1.0, 0], [4, 3.0, 1]]))
    0.5
    """
    count, confidence, hits = _split(bins)
    worst = (np.abs(hits - confidence) / np.maximum(count, 1)).max(-1)
    return np.where(count.sum(-1) > 0, worst, np.nan)


def classwise_ece(bins: ArrayLike) -> Floats:
    r"""Classwise (static) calibration error: the mean over classes of each class's ECE.

    .. math:: \frac{1}{C} \sum_c \sum_b \frac{n_{b,c}}{n} |\overline{[y = c]}_{b,c} - \bar p_{b,c}|

    Every sample is binned once for every class c, by its probability of c, and is a hit if its label is c. Classes
    without samples are included, since their probabilities should be zero.

    Parameters
    ----------
    bins : array-like, shape (..., C, B, 3)
        [count, probability sum, hit sum] of each class and bin.

    Returns
    -------
    ndarray of float64, shape (...)
        In [0, 1]. NaN without samples or if a sum is NaN.

    Raises
    ------
    InputError
        If the last axis is not 3 long.

    References
    ----------
    Kull et al., Beyond temperature scaling, NeurIPS 2019 (classwise-ECE); Nixon et al., Measuring Calibration in
    Deep Learning, CVPR workshops 2019 (static calibration error). Both average over all classes with equal weights.

    Examples
    --------
    >>> float(classwise_ece([[[4, 1.0, 0], [4, 3.0, 2]], [[4, 1.0, 1], [4, 3.0, 3]]]))
    0.125
    """
    return ece(bins).mean(-1)


def reliability(bins: ArrayLike) -> Reliability:
    """Mean confidence, accuracy and count of each bin, as drawn in a reliability diagram.

    Parameters
    ----------
    bins : array-like, shape (..., B, 3)
        [count, confidence sum, hit sum] of each bin.

    Returns
    -------
    Reliability
        Three float64 arrays of shape (..., B); confidence and accuracy are NaN in empty bins.

    Raises
    ------
    InputError
        If the last axis is not 3 long.

    References
    ----------
    DeGroot & Fienberg, The Comparison and Evaluation of Forecasters, The Statistician 1983.

    Examples
    --------
    >>> reliability([[4, 1.0, 0], [0, 0.0, 0]]).accuracy
    array([ 0., nan])
    """
    count, confidence, hits = _split(bins)
    with np.errstate(invalid="ignore"):
        return Reliability(confidence / count, hits / count, count)


def adaptive_ece(confidence: Tensor, correct: Tensor, bins: int = 15) -> Tensor:
    r"""Calibration error over bins of equal mass, computed exactly by sorting.

    .. math:: \sum_b \frac{n_b}{n} |acc_b - conf_b|, \qquad b(k) = \lfloor k B / n \rfloor
              \text{ for the k-th smallest confidence, } k = 0 \dots n - 1

    Bin sizes differ by at most one. Samples of equal confidence may be in two bins; the correctness of each is
    replaced by the mean over the tied samples, so that the result does not depend on the order of the samples.

    Parameters
    ----------
    confidence : Tensor, shape (..., N)
        Probability of the predicted class, in [0, 1]. NaN makes its row NaN.
    correct : Tensor, shape (..., N)
        1 if the prediction is correct, else 0.
    bins : int, default 15
        Number of bins, at least 1. With fewer samples than bins, each sample has a separate bin.

    Returns
    -------
    Tensor of float64, shape (...)
        In [0, 1], on the device of the input. NaN without samples.

    Raises
    ------
    InputError
        If the shapes differ or ``bins`` is not positive.

    References
    ----------
    Nguyen & O'Connor, Posterior calibration and exploratory analysis for NLP models, EMNLP 2015 (equal-mass bins);
    Nixon et al. 2019 apply it to every class, this function to the predicted class.

    Examples
    --------
    >>> confidence, correct = torch.tensor([0.9, 0.6, 0.8, 0.7]), torch.tensor([1, 0, 0, 1])
    >>> round(adaptive_ece(confidence, correct, bins=2).item(), 6)
    0.25
    """
    if confidence.shape != correct.shape or confidence.ndim < 1:
        raise InputError(
            f"confidence {tuple(confidence.shape)} and correct {tuple(correct.shape)} must have the same shape"
        )
    if bins < 1:
        raise InputError(f"`bins` must be at least 1; got {bins}")
    rows, size = confidence.shape[:-1].numel(), confidence.shape[-1]
    row = torch.arange(rows, dtype=torch.int32, device=confidence.device).repeat_interleave(size)
    return _equal_mass(confidence.reshape(-1), correct.reshape(-1), row, rows, bins).view(confidence.shape[:-1])


def grouped_adaptive_ece(confidence: Tensor, correct: Tensor, group: Tensor, groups: int, bins: int = 15) -> Tensor:
    """`adaptive_ece` of each group of each replica's samples, computed for all groups at once.

    Parameters
    ----------
    confidence, correct : Tensor, shape (R, N)
        As for `adaptive_ece`.
    group : Tensor of int64, shape (R, N)
        From 0 to ``groups - 1``.
    groups : int
        G.
    bins : int, default 15
        Number of bins, at least 1.

    Returns
    -------
    Tensor of float64, shape (R, G)
        NaN for a group without samples.

    Examples
    --------
    >>> confidence, correct = torch.tensor([[0.9, 0.6, 0.8, 0.7]]), torch.tensor([[1, 0, 0, 1]])
    >>> grouped_adaptive_ece(confidence, correct, torch.tensor([[0, 0, 1, 1]]), 3, bins=2)
    tensor([[0.3500, 0.5500,    nan]], dtype=torch.float64)
    """
    replicas = len(confidence)
    first = torch.arange(replicas, device=group.device).unsqueeze(-1) * groups
    segment = (group + first).int().reshape(-1)
    return _equal_mass(confidence.reshape(-1), correct.reshape(-1), segment, replicas * groups, bins).view(
        replicas, groups
    )


def _equal_mass(confidence: Tensor, correct: Tensor, segment: Tensor, segments: int, bins: int) -> Tensor:
    """Error of each segment, ``(segments,)``, of samples in any order."""
    # the bits of non-negative floats have the same order as the floats, and integers sort ten times as fast
    value = confidence if confidence.dtype == torch.float64 else confidence.float()
    bits = value.view(torch.int64 if value.dtype == torch.float64 else torch.int32)
    order = bits.sort(stable=True).indices
    segment, within = segment.index_select(0, order).sort(stable=True)
    order = order.index_select(0, within)
    value = value.index_select(0, order)

    starts = torch.ones_like(value, dtype=torch.bool)
    starts[1:] = (value[1:] != value[:-1]).logical_or_(segment[1:] != segment[:-1])
    tie = starts.cumsum(0, dtype=torch.int32).sub_(1)
    # counts, which are exact in float32 and need half the memory bandwidth
    zeros, ones = torch.zeros_like(value, dtype=torch.float32), value.new_ones(1, dtype=torch.float32)
    length = zeros.index_add(0, tie, ones.expand(len(value))).index_select(0, tie)
    hits = zeros.index_add_(0, tie, correct.index_select(0, order).float()).index_select(0, tie)
    gap = hits.double().div_(length).sub_(value)

    size = torch.bincount(segment, minlength=segments).unsqueeze(1)
    edge = (torch.arange(bins + 1, device=value.device) * size + bins - 1) // bins  # first rank of each bin
    bin = torch.arange(segments * bins, device=value.device).repeat_interleave(edge.diff().view(-1))
    gaps = gap.new_zeros(segments * bins).index_add_(0, bin, gap)
    return gaps.view(segments, bins).abs().sum(-1) / size.squeeze(1)  # 0 / 0 without samples: NaN


def _split(bins: ArrayLike) -> tuple[Floats, Floats, Floats]:
    values = np.asarray(bins, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != 3:
        raise InputError(f"`bins` must have the shape (..., B, 3); got {values.shape}")
    return values[..., 0], values[..., 1], values[..., 2]
