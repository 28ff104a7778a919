"""Contents of one replica's memory between blocks, and before each step within a block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Ints = np.ndarray


@dataclass
class Held:
    """Indices and tasks of the samples of a memory, by slot, each ``(capacity,)``."""

    index: Ints
    task: Ints


class History:
    """Contents of a memory before each step of a block whose batches are written to it.

    Parameters
    ----------
    held : Held
        Contents before the block.
    index, task, slot : ndarray
        ``(steps, batch)``: the samples of each step and the slots that they are written to; the capacity for none.
        Within a step no slot occurs twice (`last_writer`).

    Examples
    --------
    >>> held = Held(np.array([7, 8]), np.array([0, 0]))
    >>> history = History(held, np.array([[1, 2], [3, 4]]), np.zeros((2, 2), int), np.array([[0, 2], [0, 1]]))
    >>> [history.at(np.array([0, 1]), np.full(2, step))[0].tolist() for step in (0, 1)]  # before each step
    [[7, 8], [1, 8]]
    >>> history.close()
    >>> held.index
    array([3, 4])
    """

    def __init__(self, held: Held, index: Ints, task: Ints, slot: Ints) -> None:
        self.held, self.index, self.task, self.steps = held, index.ravel(), task.ravel(), len(slot)
        step = np.broadcast_to(np.arange(self.steps)[:, None], slot.shape)
        written = np.flatnonzero(slot.ravel() < len(held.index))
        keys = slot.ravel()[written] * self.steps + step.ravel()[written]
        order = np.argsort(keys)
        self.keys, self.written = keys[order], written[order]

    def at(self, slots: Ints, step: Ints) -> tuple[Ints, Ints]:
        """Index and task of the samples in ``slots`` before ``step``: the last earlier write, else ``held``."""
        old = self.held.index[slots], self.held.task[slots]
        if not len(self.keys):
            return old
        last = np.searchsorted(self.keys, slots * self.steps + step) - 1
        hit = (last >= 0) & (self.keys[last] // self.steps == slots)
        source = self.written[last]
        return np.where(hit, self.index[source], old[0]), np.where(hit, self.task[source], old[1])

    def close(self) -> None:
        """Write the contents after the block to ``held``."""
        slots = np.unique(self.keys // self.steps)
        self.held.index[slots], self.held.task[slots] = self.at(slots, np.full(len(slots), self.steps))


def last_writer(slot: Ints, capacity: int) -> Ints:
    """Keep for each slot only the last sample of a step (a row); the slots of the others become the capacity.

    Examples
    --------
    >>> last_writer(np.array([[0, 1, 0]]), capacity=2)
    array([[2, 1, 0]])
    """
    key = (np.arange(len(slot))[:, None] * (capacity + 1) + slot).ravel()[::-1]
    last = np.zeros(key.size, bool)
    last[np.unique(key, return_index=True)[1]] = True
    return np.where(last[::-1].reshape(slot.shape), slot, capacity)
