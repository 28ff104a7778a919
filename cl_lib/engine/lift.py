"""Vectorisation over replicas: the computation of one replica, run for all replicas at once or one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Part = slice | int
"""Index or slice of the replicas that run as one program."""


class Lift:
    """How the replicas of a population are run.

    Parameters
    ----------
    replicas : int
    device : torch.device
    lifted : bool
        Whether programs are vectorised, so that their tensors have a replica axis.
    together : bool
        Whether all replicas run as one program; if False, each runs separately, so that no floating-point sum depends
        on the number of replicas.

    Attributes
    ----------
    parts : list of Part
        The replicas that run as one program in a step: all of them; or each separately, lifted (a slice keeps the
        replica axis) or not (an index).
    alone : list of Part
        The same outside the step, where calls are few and large: on a CPU it is faster to run replicas in sequence.
    """

    def __init__(self, replicas: int, device: torch.device, lifted: bool, together: bool) -> None:
        numbers = range(replicas)
        one_by_one: list[Part] = [slice(r, r + 1) for r in numbers] if lifted else list(numbers)
        self.lifted, self.together = lifted, lifted and together
        self.parts: list[Part] = [slice(0, replicas)] if self.together else one_by_one
        self.alone = one_by_one if device.type == "cpu" else self.parts

    def placed(self, tree: Any) -> Any:
        """Align each replica's tensors as in a run of a single replica, if each replica is lifted separately.

        The last bits of a matrix product may depend on the memory alignment of its operands.
        """
        return pytree.tree_map(aligned, tree) if self.lifted and not self.together else tree

    def over_replicas(self, function: Callable[..., Any], *trees: Any) -> Any:
        """Call ``function(*trees of a replica)`` for every replica and stack the results."""
        run = torch.func.vmap(function) if self.lifted else function
        trees = self.placed(trees)
        results = [run(*pytree.tree_map(lambda t, p=p: t[p], trees)) for p in self.alone]
        join = torch.cat if self.lifted else torch.stack

        def joined(*parts: Tensor) -> Tensor:
            whole = parts[0] if len(parts) == 1 and self.lifted else join(parts)
            return whole.contiguous()  # the last bits of a product depend on strides, and a solver's are transposed

        return pytree.tree_map(joined, *results)


def aligned(stacked: Tensor) -> Tensor:
    """Copy stacked tensors so that each replica's values start at a multiple of 64 bytes.

    Examples
    --------
    >>> aligned(torch.ones(3, 10)).stride()
    (16, 1)
    """
    numel, line = stacked[0].numel(), 64 // stacked.element_size()
    if stacked.ndim < 2 or numel * stacked.element_size() % 64 == 0:
        return stacked
    padded = stacked.new_zeros(stacked.shape[0], -(-numel // line) * line)
    return padded[:, :numel].unflatten(1, stacked.shape[1:]).copy_(stacked)
