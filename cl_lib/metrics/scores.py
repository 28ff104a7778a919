"""Per-sample scores of a forward pass, computed once for all groupings of the samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cl_lib.errors import InputError

BINS = 15


def bin_index(probabilities: Tensor, bins: int = BINS) -> Tensor:
    """Equal-width bin of each probability.

    Bin b is the interval [b / bins, (b + 1) / bins), with edges in float32; the last bin includes its upper edge, 1.
    torchmetrics up to 1.9 puts a probability of exactly 1 into an extra bin, which its issue 3510 calls a bug.

    Parameters
    ----------
    probabilities : Tensor, any shape
        In [0, 1]; compared in float32. NaN is in the last bin.
    bins : int, default 15
        Number of equal-width bins, at least 1.

    Returns
    -------
    Tensor of int64, the same shape
        From 0 to ``bins - 1``.

    Raises
    ------
    InputError
        If ``bins`` is not positive, or above 100,000.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, with 15 bins.

    Examples
    --------
    >>> bin_index(torch.tensor([0.0, 0.49, 0.5, 0.99, 1.0]), bins=2)
    tensor([0, 0, 1, 1, 1])
    """
    if not 1 <= bins <= 100_000:
        raise InputError(f"`bins` must be at least 1 and at most 100000; got {bins}")
    return small_bin_index(probabilities, bins).long()


def small_bin_index(probabilities: Tensor, bins: int) -> Tensor:
    """`bin_index` in int32 and with few temporary tensors, since it is limited by memory bandwidth."""
    above = torch.linspace(0, 1, bins + 1, dtype=torch.float32, device=probabilities.device)[1:]
    above[-1] = torch.nan  # the last bin includes its upper edge
    value = probabilities.float()
    # the slightly too small product gives the bin or the bin below it, and a comparison with the edge decides: this is
    # exact, and five times as fast as a binary search
    bin = (value * (bins * (1 - 1e-6))).nan_to_num_(nan=bins).clamp_(0, bins - 1).int()
    edge = above.index_select(0, bin.reshape(-1)).view(bin.shape)
    return bin.add_(value >= edge)


@dataclass(frozen=True, eq=False)
class Scores:
    r"""Per-sample scores of R replicas on N samples of C classes.

    .. math:: \text{nll} = -\log p_y, \qquad \text{brier} = \sum_{c} (p_c - [c = y])^2

    Attributes
    ----------
    correct : Tensor, shape (R, N)
        1 if the most probable class is the target, else 0; NaN if the replica diverged.
    nll : Tensor, shape (R, N)
        Negative log-likelihood in nats, in [0, inf].
    brier : Tensor, shape (R, N)
        Multi-class Brier score, in [0, 2] (half of it is the two-class score).
    confidence : Tensor, shape (R, N)
        Probability of the predicted class, in [1 / C, 1].
    bin : Tensor of int64, shape (R, N)
        Bin of the confidence, see `bin_index`.
    probabilities : Tensor, shape (R, N, C)
    target : Tensor of int64, shape (R, N)
    bins : int
        Number of equal-width bins.
    predicted : Tensor of int64, shape (R, N), optional
        The most probable class, the first of equal ones.

    References
    ----------
    Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 1950.

    Examples
    --------
    >>> scores = Scores.from_log_probs(torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]).log(), torch.tensor([[0, 1]]))
    >>> scores.brier
    tensor([[0.1250, 0.5000]])
    """

    correct: Tensor
    nll: Tensor
    brier: Tensor
    confidence: Tensor
    bin: Tensor
    probabilities: Tensor
    target: Tensor
    bins: int = BINS
    predicted: Tensor | None = None

    @classmethod
    def from_log_probs(cls, log_probs: Tensor, target: Tensor, bins: int = BINS, *, check: bool = True) -> "Scores":
        """Score the log-probabilities of one forward pass.

        Parameters
        ----------
        log_probs : Tensor, shape (R, N, C)
            Normalised log-probabilities. NaN (a diverged replica) makes the scores of its samples NaN.
        target : Tensor of int64, shape (R, N) or (1, N)
            Labels from 0 to C - 1; one row is shared by all replicas.
        bins : int, default 15
            Number of equal-width confidence bins.
        check : bool, default True
            Whether to validate the labels, which synchronises with a CUDA device. False if they are known to be valid.

        Returns
        -------
        Scores
            With the dtype and on the device of ``log_probs``.

        Raises
        ------
        InputError
            If a shape or a label is wrong.

        Examples
        --------
        >>> log_probs = torch.tensor([[[0.75, 0.25]], [[0.5, 0.5]]]).log()
        >>> Scores.from_log_probs(log_probs, torch.tensor([[0]])).nll
        tensor([[0.2877],
                [0.6931]])
        """
        if log_probs.ndim != 3 or target.ndim != 2:
            raise InputError(
                f"expected log_probs (R, N, C) and target (R or 1, N); "
                f"got {tuple(log_probs.shape)} and {tuple(target.shape)}"
            )
        replicas, samples, classes = log_probs.shape
        label = shared(target, replicas, samples, "target")
        if check and label.numel() and (label.min() < 0 or label.max() >= classes):
            raise InputError(f"labels must lie between 0 and {classes - 1}")
        chosen = label.unsqueeze(1)
        # samples contiguous in memory, which makes reductions over the few classes several times as fast
        log_probs = log_probs.transpose(1, 2).contiguous()
        probabilities = log_probs.exp()
        confidence, predicted = probabilities.max(1)
        correct = (predicted == label).to(confidence.dtype)
        error = probabilities.scatter_add(1, chosen, -torch.ones_like(probabilities[:, :1]))
        return cls(
            correct=torch.where(confidence.isnan(), confidence, correct),
            nll=-log_probs.gather(1, chosen).squeeze(1),
            brier=error.square_().transpose(1, 2).contiguous().sum(-1),  # the summation order is the same for any N
            confidence=confidence,
            bin=bin_index(confidence, bins),
            probabilities=probabilities.transpose(1, 2),
            target=label,
            bins=bins,
            predicted=predicted,
        )


def shared(values: Tensor, replicas: int, samples: int, name: str) -> Tensor:
    """Broadcast an integer tensor of shape (R or 1, N) to (R, N), without a copy.

    Raises
    ------
    InputError
        If it has a different shape.

    Examples
    --------
    >>> shared(torch.tensor([[3, 4]]), 2, 2, "target")
    tensor([[3, 4],
            [3, 4]])
    """
    if values.ndim != 2 or values.shape[0] not in (1, replicas) or values.shape[1] != samples:
        raise InputError(f"`{name}` must have the shape ({replicas} or 1, {samples}); got {tuple(values.shape)}")
    return values.long().expand(replicas, samples)
