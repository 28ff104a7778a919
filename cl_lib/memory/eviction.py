"""Choice of the sample that a full memory evicts, by loss and class; used by strategies, not by the plan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def eviction(loss: Tensor, held: Tensor, valid: Tensor, *, balanced: bool, loss_aware: bool) -> Tensor:
    r"""Weights in proportion to which the samples of a full memory are evicted (Buzzega et al. 2020).

    With ``balanced`` only slots of the classes with the most samples have weight; with ``loss_aware`` the weight is
    :math:`\nu(-\ell_j)`, with :math:`\nu` the scaling to [0, 1]; with both
    :math:`\nu(\tfrac12 \nu(-\ell_j) + \tfrac12 n_j / \max_i n_i)`; with neither all weights are equal.

    Parameters
    ----------
    loss : Tensor
        ``(n,)``, loss of the sample in each slot.
    held : Tensor
        ``(n,)``, number of samples of its class in the memory.
    valid : Tensor
        ``(n,)`` bool, False where a slot is empty.
    balanced, loss_aware : bool

    Returns
    -------
    Tensor
        ``(n,)``, above 0 where valid, so that a slot can always be chosen; else 0.

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
    """Scale values linearly so that the smallest valid value is 0 and the largest 1."""
    low, high = torch.where(valid, values, torch.inf).min(), torch.where(valid, values, -torch.inf).max()
    return torch.where(high > low, (values - low) / (high - low).clamp_min(1e-30), 1.0)


def reservoir_slot(count: Tensor, capacity: int, enters: Tensor, victim: Tensor) -> Tensor:
    """Slot of an offered sample (0-d): the next empty slot, in a full memory ``victim``, or ``capacity`` for none.

    Examples
    --------
    >>> yes, slot = torch.tensor(True), torch.tensor(1)
    >>> [int(reservoir_slot(torch.tensor(n), 3, enters, slot)) for n, enters in ((2, ~yes), (3, yes), (3, ~yes))]
    [2, 1, 3]
    """
    return torch.where(count < capacity, count, torch.where(enters, victim, capacity))


@dataclass(frozen=True)
class Held:
    """Contents of a memory while the samples of a batch are admitted one after the other.

    Attributes
    ----------
    loss, label : Tensor
        ``(capacity + 1,)``, by slot; the last slot receives rejected samples.
    per_class : Tensor
        ``(C,)`` number of samples of each class.
    filled : Tensor
        0-d, number of filled slots.
    """

    loss: Tensor
    label: Tensor
    per_class: Tensor
    filled: Tensor

    def eviction(self, *, balanced: bool, loss_aware: bool) -> Tensor:
        """Weights ``(capacity,)`` in proportion to which slots are evicted, see `eviction`."""
        valid = torch.arange(len(self.loss), device=self.loss.device) < self.filled
        held = self.per_class[self.label.long()]
        return eviction(self.loss, held, valid, balanced=balanced, loss_aware=loss_aware)[:-1]

    def replaced(self, slot: Tensor, loss: Tensor, label: Tensor) -> Held:
        """Contents after a sample was written to ``slot``; unchanged where ``slot`` is the capacity."""
        capacity = len(self.loss) - 1
        slots, classes = (torch.arange(n, device=slot.device) for n in (capacity + 1, len(self.per_class)))
        taken = slot < capacity
        evicted = (classes == self.label[slot[None]].long()) & taken & (self.filled >= capacity)
        entered = (classes == label) & taken
        here = (slots == slot) & taken
        return Held(
            loss=torch.where(here, loss, self.loss),
            label=torch.where(here, label.to(self.label.dtype), self.label),
            per_class=self.per_class - evicted.to(self.per_class.dtype) + entered,
            filled=torch.maximum(self.filled, torch.where(taken, slot + 1, 0)),
        )
