"""What one replica's memory holds: between blocks, and at each step within one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Ints = np.ndarray


@dataclass
class Held:
    """The samples of a memory, by slot: their indices and tasks, each ``(capacity,)``."""

    index: Ints
    task: Ints


class History:
    """The contents of a memory throughout a block of steps, in which batches are written to it.

    Parameters
    ----------
    held : Held
        What the memory holds before the block.
    index, task, slot : ndarray
        ``(steps, batch)``: the samples of each step and the slots that they are written to; the capacity for none. In
        a step no slot is given twice (`last_writer`).

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
        """Index and task of what lies in ``slots`` before ``step``: the last earlier write, else ``held``."""
        old = self.held.index[slots], self.held.task[slots]
        if not len(self.keys):
            return old
        last = np.searchsorted(self.keys, slots * self.steps + step) - 1
        hit = (last >= 0) & (self.keys[last] // self.steps == slots)
        source = self.written[last]
        return np.where(hit, self.index[source], old[0]), np.where(hit, self.task[source], old[1])

    def close(self) -> None:
        """Write what the memory holds after the block to ``held``."""
        slots = np.unique(self.keys // self.steps)
        self.held.index[slots], self.held.task[slots] = self.at(slots, np.full(len(slots), self.steps))


def last_writer(slot: Ints, capacity: int) -> Ints:
    """Within a step (a row) only the last sample offered to a slot takes it; the others get the capacity.

    Examples
    --------
    >>> last_writer(np.array([[0, 1, 0]]), capacity=2)
    array([[2, 1, 0]])
    """
    key = (np.arange(len(slot))[:, None] * (capacity + 1) + slot).ravel()[::-1]
    last = np.zeros(key.size, bool)
    last[np.unique(key, return_index=True)[1]] = True
    return np.where(last[::-1].reshape(slot.shape), slot, capacity)
