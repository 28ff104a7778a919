"""Choice of exemplars of a class by their features (herding); used by strategies, not by the plan."""

from __future__ import annotations

import torch
from torch import Tensor


def herd(features: Tensor, member: Tensor, count: int) -> tuple[Tensor, Tensor]:
    r"""Greedy herding (Welling 2009): add the sample that brings the mean of those chosen nearest to the mean of all.

    Parameters
    ----------
    features : Tensor
        ``(n, F)``.
    member : Tensor
        ``(n,)`` bool, True for the samples to choose from.
    count : int

    Returns
    -------
    chosen : Tensor
        ``(count,)`` rows in the order of choice.
    real : Tensor
        ``(count,)`` bool, False once no members were left.

    Examples
    --------
    >>> herd(torch.tensor([[0.0], [1.0], [5.0], [2.0]]), torch.tensor([True, True, True, True]), 3)
    (tensor([3, 1, 2]), tensor([True, True, True]))
    """
    weight = member.to(features.dtype)
    mean = weight @ features / weight.sum().clamp_min(1)
    length, total, free = features.square().sum(-1), torch.zeros_like(mean), member
    rows, chosen, real = torch.arange(features.shape[0], device=features.device), [], []
    for k in range(1, count + 1):
        # -|k mean - total - z|^2, without the terms that are equal for all rows
        gain = 2 * (features @ (k * mean - total)) - length
        best = torch.where(free, gain, -torch.inf).argmax()
        real.append(free.any())
        total = total + features[best]
        free = free & (rows != best)
        chosen.append(best)
    return torch.stack(chosen), torch.stack(real)


def by_class(label: Tensor, rank: Tensor, keep: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Order rows by class and within a class by rank; rows that are not kept come last.

    Parameters
    ----------
    label, rank : Tensor
        ``(n,)`` int64.
    keep : Tensor
        ``(n,)`` bool.
    classes : int

    Returns
    -------
    order : Tensor
        ``(n,)`` rows.
    place : Tensor
        ``(n,)``, new rank of each row of ``order`` within its class.

    Examples
    --------
    >>> by_class(torch.tensor([1, 0, 1, 0]), torch.tensor([1, 2, 0, 0]), torch.tensor([True, True, True, False]), 2)
    (tensor([1, 2, 0, 3]), tensor([0, 0, 1, 0]))
    """
    ranked = torch.sort(rank, stable=True).indices
    kind = torch.sort(torch.where(keep, label, classes)[ranked], stable=True)
    sizes = (kind.values[:, None] == torch.arange(classes + 1, device=label.device)).sum(0)
    first = (sizes.cumsum(0) - sizes)[kind.values]
    return ranked[kind.indices], torch.arange(len(label), device=label.device) - first
