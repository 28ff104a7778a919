"""Which sample makes room for another: by its loss and its class, so by a strategy and not by the plan."""

from __future__ import annotations

import torch
from torch import Tensor


def eviction(loss: Tensor, held: Tensor, valid: Tensor, *, balanced: bool, loss_aware: bool) -> Tensor:
    r"""Weights in proportion to which the slots of a full memory are given up (Buzzega et al. 2020).

    With ``balanced`` the slots of the classes that have most samples; with ``loss_aware`` in proportion to
    :math:`\nu(-\ell_j)`, with :math:`\nu` the scaling to [0, 1]; with both to
    :math:`\nu(\tfrac12 \nu(-\ell_j) + \tfrac12 n_j / \max_i n_i)`; with neither all alike.

    Parameters
    ----------
    loss : Tensor
        ``(n,)``, of the sample in each slot.
    held : Tensor
        ``(n,)``, how many samples of its class the memory holds.
    valid : Tensor
        ``(n,)`` bool, False where a slot is empty.
    balanced, loss_aware : bool

    Returns
    -------
    Tensor
        ``(n,)``, above 0 where valid, so that some slot always can be given up; else 0.

    Examples
    --------
    >>> loss, held, valid = torch.tensor([0.1, 0.1, 2.1]), torch.tensor([1.0, 2.0, 2.0]), torch.ones(3).bool()
    >>> eviction(loss, held, valid, balanced=True, loss_aware=False).round(decimals=3)
    tensor([0., 1., 1.])
    >>> eviction(loss, held, valid, balanced=True, loss_aware=True).round(decimals=3)
    tensor([0.5000, 1.0000, 0.0000])
    """
    share = held / torch.where(valid, held, 0.0).max().clamp_min(1)
    if loss_aware:
        weight = _scaled(-loss, valid)
        weight = _scaled(0.5 * weight + 0.5 * share, valid) if balanced else weight
    else:
        weight = (share >= 1).to(loss.dtype) if balanced else torch.ones_like(loss)
    return torch.where(valid, weight + 1e-6, 0.0)


def _scaled(values: Tensor, valid: Tensor) -> Tensor:
    """From 0 for the smallest of the valid values to 1 for the largest."""
    low, high = torch.where(valid, values, torch.inf).min(), torch.where(valid, values, -torch.inf).max()
    return torch.where(high > low, (values - low) / (high - low).clamp_min(1e-30), 1.0)
