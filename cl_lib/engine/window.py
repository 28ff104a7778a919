"""Streamed data: a window of the rows that a block of steps needs, read while the previous block trains."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cl_lib.datasets.mapped import copy_rows
from cl_lib.plan.plan import STEPS, Block, Plan

BYTES = {"cpu": 2**25, "cuda": 2**27}
"""Maximum bytes of a window, unless two steps need more; a second buffer of the same size is read ahead."""


class Window:
    """Rows of one block, in a buffer of fixed size and address on the device.

    The plan of a block includes the samples that it recalls, so its rows are known before it begins. They are read in
    the order of the file by a separate thread; a block whose rows do not fit is split into parts.

    Parameters
    ----------
    source : Tensor
        All inputs ``(N, *shape)``, in memory or mapped.
    plan : Plan
    held : bool
        Whether the strategy fills the memory, so that any sample in it may be recalled at any step.
    device : torch.device

    Attributes
    ----------
    x : Tensor
        ``(rows, *shape)``; the number of rows in use differs between blocks.
    steps : int
        Maximum number of steps in a part of a block.
    """

    def __init__(self, source: Tensor, plan: Plan, held: bool, device: torch.device) -> None:
        self.source, self.held = source, held
        batch = max((phase.batch_size or plan.batch_size for phases in plan.phases for phase in phases), default=1)

        def rows(steps: int) -> int:
            # what a strategy's memory holds, and what it may admit while the block before is trained
            recalled = plan.capacity + 1 + steps * batch if held else min(plan.capacity, steps * sum(plan.draws))
            return min(len(source), len(plan.seeds) * (steps * batch + recalled))

        most = BYTES[device.type] // source[0].nbytes
        self.steps = next((s for s in range(STEPS, 2, -1) if rows(s) <= most), 2)
        shape = (rows(self.steps), *source.shape[1:])
        self.x = torch.empty(shape, dtype=source.dtype, device=device)
        self._ahead = torch.empty(shape, dtype=source.dtype, pin_memory=device.type == "cuda")
        self._reader = ThreadPoolExecutor(1, "cl_lib-reader")
        self._reading: tuple[Block, Future[Tensor]] | None = None

    def cut(self, block: Block) -> list[Block]:
        """Split the block into parts whose rows fit.

        A short last batch, which is padded to the size of the others, never forms a part by itself.
        """
        steps, parts = len(block), -(-len(block) // self.steps)
        return [_part(block, steps * i // parts, steps * (i + 1) // parts) for i in range(parts)]

    def prefetch(self, block: Block, held: Tensor | None = None) -> None:
        """Start reading the rows of ``block`` and those ``held`` in memory in the background."""
        self._reading = block, self._reader.submit(self._read, block, held)

    def load(self, block: Block, held: Tensor | None = None) -> Tensor:
        """Copy the rows of ``block`` into ``x``, reading them unless prefetched, and return their sorted indices."""
        if self._reading is None or self._reading[0] is not block:
            self.prefetch(block, held)
        assert self._reading is not None
        needed = self._reading[1].result()
        self.x[: len(needed)].copy_(self._ahead[: len(needed)])
        self._reading = None
        return needed.to(self.x.device)

    def _read(self, block: Block, held: Tensor | None) -> Tensor:
        planned = [block.batch, *(draw for draw in block.draws if "index" in draw)]
        indices = [items["index"].numpy().ravel() for items in planned]
        if held is not None:
            indices.append(held.numpy().ravel())
        needed = np.unique(np.concatenate(indices))
        copy_rows(self.source, needed, self._ahead)
        return torch.from_numpy(needed)


def new_samples(block: Block) -> Tensor:
    """Indices of the samples of a block, without those that it recalls."""
    return block.batch["index"].flatten()


def _part(block: Block, start: int, stop: int) -> Block:
    """Steps ``start`` to ``stop - 1`` of a block."""

    def part_of(tree: Any) -> Any:
        return pytree.tree_map(lambda t: t[start:stop], tree)

    return dataclasses.replace(
        block,
        begins=block.begins and start == 0,
        first_step=block.first_step + start,
        within=(block.within[0] + start, block.within[1]),
        size=block.size[start:stop],
        batch=part_of(block.batch),
        draws=part_of(block.draws),
        noise=part_of(block.noise),
    )
