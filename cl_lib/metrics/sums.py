"""Additive sufficient statistics: sums over samples, by group or by class, in float64 on the device.

The sums of two chunks of samples add up to the sums over both chunks, so an evaluation needs the memory of one batch.
The first axis is the replicas. NaN of a diverged replica affects only the sums of that replica. On a CPU, samples are
added one by one in order, so that a sum depends neither on the chunks nor on the number of replicas.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.metrics.scores import BINS, Scores, shared, small_bin_index


@dataclass(frozen=True, eq=False)
class GroupSums:
    r"""Sums over the samples of each group: experiences, slices, or any other labelling of the samples.

    Divide by the count for means: accuracy is ``correct / count``; NLL and Brier score likewise. The expected
    calibration error is computed from ``bins``.

    Attributes
    ----------
    count, correct, nll, brier : Tensor of float64, shape (R, G)
        Samples, hits, negative log-likelihood (nats) and Brier score, each summed over the group.
    bins : Tensor of float64, shape (R, G, B, 3)
        [count, confidence sum, hit sum] of B equal-width bins of confidence (see `bin_index`).

    Examples
    --------
    Two samples in group 0, one in group 1, one ignored:

    >>> log_probs = torch.tensor([[[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]]).log()
    >>> scores = Scores.from_log_probs(log_probs, torch.tensor([[0, 1, 1, 0]]))
    >>> sums = GroupSums.zeros(1, 2).add_(scores, torch.tensor([[0, 0, 1, -1]]))
    >>> sums.correct / sums.count
    tensor([[0.5000, 1.0000]], dtype=torch.float64)
    """

    count: Tensor
    correct: Tensor
    nll: Tensor
    brier: Tensor
    bins: Tensor

    @classmethod
    def zeros(
        cls, replicas: int, groups: int, bins: int = BINS, device: torch.device | str | None = None
    ) -> "GroupSums":
        """Sums of no samples.

        Parameters
        ----------
        replicas, groups : int
            R and G.
        bins : int, default 15
            Number of equal-width confidence bins, B.
        device : torch.device or str, optional

        Returns
        -------
        GroupSums

        Examples
        --------
        >>> GroupSums.zeros(2, 3).bins.shape
        torch.Size([2, 3, 15, 3])
        """
        flat = torch.zeros(4, replicas, groups, dtype=torch.float64, device=device)
        binned = torch.zeros(replicas, groups, bins, 3, dtype=torch.float64, device=device)
        return cls(flat[0], flat[1], flat[2], flat[3], binned)

    def add_(self, scores: Scores, group: Tensor, *, check: bool = True) -> "GroupSums":
        """Add samples, in place.

        Parameters
        ----------
        scores : Scores
            Scores of R replicas and N samples.
        group : Tensor of int64, shape (R, N) or (1, N)
            Group of each sample, below G; samples with a negative group are ignored.
        check : bool, default True
            Whether to validate the groups, which synchronises with a CUDA device. False if all are known to be between
            0 and G - 1.

        Returns
        -------
        GroupSums
            This object.

        Raises
        ------
        InputError
            If shapes or numbers of bins differ, or a group is G or more.
        """
        replicas, groups = self.count.shape
        bins = self.bins.shape[2]
        _check_same("bins", scores.bins, bins)
        _check_same("replicas", scores.confidence.shape[0], replicas)
        group = shared(group, replicas, scores.nll.shape[1], "group")
        keep = _kept(group, groups, "group") if check else None
        slot = _slots(group, groups)
        place = slot * bins + scores.bin
        ones = torch.ones_like(scores.nll, dtype=torch.float64)
        correct = scores.correct.double()
        _add_(self.count, slot, ones, keep)
        _add_(self.correct, slot, correct, keep)
        _add_(self.nll, slot, scores.nll, keep)
        _add_(self.brier, slot, scores.brier, keep)
        for number, values in enumerate((ones, scores.confidence, correct)):
            _add_(self.bins[..., number], place, values, keep)
        return self

    def __add__(self, other: "GroupSums") -> "GroupSums":
        """Sums over the samples of both objects; raises `InputError` if the shapes differ."""
        _check_same("shapes of sums", tuple(self.bins.shape), tuple(other.bins.shape))
        return GroupSums(
            self.count + other.count,
            self.correct + other.correct,
            self.nll + other.nll,
            self.brier + other.brier,
            self.bins + other.bins,
        )


@dataclass(frozen=True, eq=False)
class ClasswiseSums:
    r"""Calibration sums of every class: each sample is binned C times, by its probability of each class.

    Attributes
    ----------
    bins : Tensor of float64, shape (R, E, C, B, 3)
        [count, probability sum, hit sum] by experience, class c and bin of p_c; a sample is a hit if y = c.

    Examples
    --------
    >>> scores = Scores.from_log_probs(torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]).log(), torch.tensor([[0, 1]]))
    >>> sums = ClasswiseSums.zeros(1, 1, 2).add_(scores, torch.tensor([[0, 0]]))
    >>> sums.bins.sum(-2)[0, 0]  # class by [count, probability sum, hit sum]
    tensor([[2.0000, 1.2500, 1.0000],
            [2.0000, 0.7500, 1.0000]], dtype=torch.float64)
    """

    bins: Tensor

    @classmethod
    def zeros(
        cls,
        replicas: int,
        experiences: int,
        classes: int,
        bins: int = BINS,
        device: torch.device | str | None = None,
    ) -> "ClasswiseSums":
        """Sums of no samples.

        Parameters
        ----------
        replicas, experiences, classes : int
            R, E and C.
        bins : int, default 15
            Number of equal-width bins, B.
        device : torch.device or str, optional

        Returns
        -------
        ClasswiseSums

        Examples
        --------
        >>> ClasswiseSums.zeros(2, 5, 10).bins.shape
        torch.Size([2, 5, 10, 15, 3])
        """
        shape = (replicas, experiences, classes, bins, 3)
        return cls(torch.zeros(shape, dtype=torch.float64, device=device))

    def add_(self, scores: Scores, experience: Tensor, *, check: bool = True) -> "ClasswiseSums":
        """Add samples, in place.

        Parameters
        ----------
        scores : Scores
            Scores of R replicas, N samples and C classes.
        experience : Tensor of int64, shape (R, N) or (1, N)
            Experience of each sample, below E; samples with a negative experience are ignored.
        check : bool, default True
            Whether to validate the experiences, which synchronises with a CUDA device. False if all are known to be
            between 0 and E - 1.

        Returns
        -------
        ClasswiseSums
            This object.

        Raises
        ------
        InputError
            If shapes or numbers of bins differ, or an experience is E or more.
        """
        replicas, experiences, classes, bins, _ = self.bins.shape
        _check_same("bins", scores.bins, bins)
        _check_same("replicas and classes", tuple(scores.probabilities.shape[::2]), (replicas, classes))
        experience = shared(experience, replicas, scores.nll.shape[1], "experience")
        keep = _kept(experience, experiences, "experience") if check else None
        probabilities = scores.probabilities.transpose(1, 2)  # (R, C, N), contiguous in memory
        kind = torch.int32 if self.bins.numel() < 2**31 else torch.int64  # int32 needs half the memory bandwidth
        first = (_slots(experience, experiences) * (classes * bins)).to(kind).unsqueeze(1)
        column = torch.arange(0, classes * bins, bins, dtype=kind, device=experience.device).unsqueeze(-1)
        place = small_bin_index(probabilities, scores.bins).to(kind).add_(first).add_(column)
        # only the class of the label is a hit: (R, N) values, not (R, C, N)
        target_bin = place.gather(1, scores.target.unsqueeze(1)).squeeze(1)
        hit = torch.where(scores.correct.isnan(), scores.correct, 1.0)
        everywhere = None if keep is None else keep.unsqueeze(1).expand_as(place)
        ones = probabilities.new_ones(1, dtype=torch.float64)
        _add_(self.bins[..., 0], place, ones.expand_as(place), everywhere)
        _add_(self.bins[..., 1], place, probabilities, everywhere)
        _add_(self.bins[..., 2], target_bin, hit, keep)
        return self

    def __add__(self, other: "ClasswiseSums") -> "ClasswiseSums":
        """Sums over the samples of both objects; raises `InputError` if the shapes differ."""
        _check_same("shapes of sums", tuple(self.bins.shape), tuple(other.bins.shape))
        return ClasswiseSums(self.bins + other.bins)


def _slots(group: Tensor, groups: int) -> Tensor:
    """Flat index of (replica, group)."""
    first = torch.arange(len(group), device=group.device).unsqueeze(-1) * groups
    return group + first


def _kept(group: Tensor, groups: int, name: str) -> Tensor | None:
    """Mask of the samples that have a group; None if all have one."""
    if not group.numel():
        return None
    lowest, highest = torch.stack(group.aminmax()).tolist()
    if highest >= groups:
        raise InputError(f"`{name}` must be below {groups}; the largest is {highest}")
    return group >= 0 if lowest < 0 else None


def _add_(total: Tensor, place: Tensor, values: Tensor, keep: Tensor | None) -> None:
    """Add each value, or those in ``keep``, at its index in the flattened total (R, G, ...)."""
    if keep is not None:
        place, values = place[keep], values[keep]
    total.view(-1).index_add_(0, place.reshape(-1), values.double().reshape(-1))


def _check_same(name: str, left: object, right: object) -> None:
    if left != right:
        raise InputError(f"{name} must be the same: {left} and {right}")
