"""One replica's maths, run for all of them: as one lifted program, or for each replica on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Part = slice | int
"""Replicas that run as one program."""


class Lift:
    """How the replicas of a population run.

    Parameters
    ----------
    replicas : int
    device : torch.device
    lifted : bool
        Whether programs carry a replica axis.
    together : bool
        For all replicas at once, or for each on its own, so that no sum can depend on how many there are.

    Attributes
    ----------
    parts : list of Part
        What runs as one program in a step: all replicas; or each on its own, lifted (a slice keeps the axis) or not
        (an index).
    alone : list of Part
        The same outside the step, where calls are few and large: on a CPU one after the other is faster.
    """

    def __init__(self, replicas: int, device: torch.device, lifted: bool, together: bool) -> None:
        each = range(replicas)
        one_by_one: list[Part] = [slice(r, r + 1) for r in each] if lifted else list(each)
        self.lifted, self.together = lifted, lifted and together
        self.parts: list[Part] = [slice(0, replicas)] if self.together else one_by_one
        self.alone = one_by_one if device.type == "cpu" else self.parts

    def placed(self, tree: Any) -> Any:
        """Where each replica is lifted on its own: its tensors at addresses as even as a single run's.

        The last bits of a matrix product may depend on the address of what is multiplied.
        """
        return pytree.tree_map(aligned, tree) if self.lifted and not self.together else tree

    def over_replicas(self, function: Callable[..., Any], *trees: Any) -> Any:
        """``one(*tree of a replica)`` for every replica, results stacked."""
        run = torch.func.vmap(function) if self.lifted else function
        trees = self.placed(trees)
        results = [run(*pytree.tree_map(lambda t, p=p: t[p], trees)) for p in self.alone]
        join = torch.cat if self.lifted else torch.stack
        return (
            results[0] if len(results) == 1 and self.lifted else pytree.tree_map(lambda *parts: join(parts), *results)
        )


def aligned(stacked: Tensor) -> Tensor:
    """The same values, each replica's at a multiple of 64 bytes.

    Examples
    --------
    >>> aligned(torch.ones(3, 10)).stride()
    (16, 1)
    """
    each, row = stacked[0].numel(), 64 // stacked.element_size()
    if stacked.ndim < 2 or each * stacked.element_size() % 64 == 0:
        return stacked
    room = stacked.new_zeros(stacked.shape[0], -(-each // row) * row)
    return room[:, :each].unflatten(1, stacked.shape[1:]).copy_(stacked)
