"""Admission to a memory: the slot of each offered sample, as a function of labels, counts and a generator alone.

Slots are assigned from 0 upwards, so the filled slots are always the first ``filled``.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

Ints = np.ndarray


class Admit(Protocol):
    """Interface of admission rules; the slot ``capacity`` means that a sample is rejected."""

    filled: int

    def offer(self, labels: Ints, rng: np.random.Generator) -> Ints:
        """Assign slots to samples with these labels, in order."""


class Reservoir:
    """Algorithm R (Vitter 1985): after n offers each offered sample is in memory with probability capacity / n.

    Examples
    --------
    >>> Reservoir(3, classes=2).offer(np.zeros(6, int), np.random.default_rng(0))
    array([0, 1, 2, 2, 1, 1])
    """

    def __init__(self, capacity: int, classes: int) -> None:
        self.capacity, self.offered, self.filled = capacity, 0, 0

    def offer(self, labels: Ints, rng: np.random.Generator) -> Ints:
        order = self.offered + np.arange(len(labels))
        slot = np.where(order < self.capacity, order, rng.integers(0, order + 1))
        self.offered += len(labels)
        self.filled = min(self.offered, self.capacity)
        return np.minimum(slot, self.capacity)


class ClassBalanced:
    """Class-balancing reservoir sampling (Chrysakis & Moens 2020).

    Every sample is admitted until the memory is full. Then a sample whose class has never been the largest replaces a
    random sample of the largest class; a sample whose class has been is admitted as in a reservoir of its class alone.

    Examples
    --------
    >>> ClassBalanced(2, classes=2).offer(np.array([0, 0, 1, 1]), np.random.default_rng(0))
    array([0, 1, 1, 1])
    """

    def __init__(self, capacity: int, classes: int) -> None:
        self.capacity, self.filled = capacity, 0
        self.slots: list[list[int]] = [[] for _ in range(classes)]
        self.seen = [0] * classes
        self.full = [False] * classes

    def offer(self, labels: Ints, rng: np.random.Generator) -> Ints:
        slots, taken = self.slots, np.full(len(labels), self.capacity)
        if not self.capacity:
            return taken
        for i, (label, chance, place) in enumerate(
            zip(labels.tolist(), rng.random(len(labels)).tolist(), rng.random(len(labels)).tolist(), strict=True)
        ):
            held = slots[label]
            self.seen[label] += 1
            if self.filled < self.capacity:
                held.append(self.filled)
                taken[i] = self.filled
                self.filled += 1
                if self.filled == self.capacity:
                    self._mark()
            elif self.full[label]:
                if chance * self.seen[label] < len(held):
                    taken[i] = held[int(place * len(held))]
            else:
                largest = max(slots, key=len)
                at = int(place * len(largest))
                largest[at], largest[-1] = largest[-1], largest[at]
                held.append(largest.pop())
                taken[i] = held[-1]
                self._mark()
        return taken

    def _mark(self) -> None:
        most = max(map(len, self.slots))
        for label, held in enumerate(self.slots):
            self.full[label] |= len(held) == most


class Ring:
    """Ring buffer of the last ``capacity // classes`` samples of each class (Chaudhry et al. 2019).

    Examples
    --------
    >>> Ring(4, classes=2).offer(np.array([0, 0, 0, 1]), np.random.default_rng(0))
    array([0, 1, 0, 2])
    """

    def __init__(self, capacity: int, classes: int) -> None:
        self.capacity, self.filled, self.per_class = capacity, 0, capacity // classes
        self.slots: list[list[int]] = [[] for _ in range(classes)]
        self.next = [0] * classes

    def offer(self, labels: Ints, rng: np.random.Generator) -> Ints:
        taken = np.full(len(labels), self.capacity)
        if not self.per_class:
            return taken
        for i, label in enumerate(labels.tolist()):
            held, turn = self.slots[label], self.next[label]
            if len(held) < self.per_class:
                held.append(self.filled)
                self.filled += 1
            taken[i] = held[turn]
            self.next[label] = (turn + 1) % self.per_class
        return taken


def admit(kind: str, capacity: int, classes: int) -> Admit:
    """Make the admission rule with the name ``kind``."""
    match kind:
        case "reservoir":
            return Reservoir(capacity, classes)
        case "class_balanced":
            return ClassBalanced(capacity, classes)
        case "ring":
            return Ring(capacity, classes)
    raise ValueError(f"unknown admission {kind!r}")
