"""Memories of the hand-written loops: integers, as one would write them for a single run."""

from __future__ import annotations

import random

import numpy as np


class Reservoir:
    """Algorithm R (Vitter 1985): ``held`` are the indices of the samples kept."""

    def __init__(self, capacity: int, seed: int) -> None:
        self.held = np.zeros(capacity, np.int64)
        self.filled = self.seen = 0
        self.admission, self.recalls = random.Random(seed), np.random.default_rng(seed)

    def recall(self, count: int) -> np.ndarray:
        """Slots, without replacement."""
        return self.recalls.permutation(self.filled)[:count]

    def offer(self, batch: np.ndarray) -> dict[int, int]:
        """Place of each sample of the batch that was kept, by the slot it took."""
        capacity, taken = len(self.held), {}
        for place, index in enumerate(batch.tolist()):
            slot = self.seen if self.seen < capacity else self.admission.randrange(self.seen + 1)
            self.seen += 1
            if slot < capacity:
                self.held[slot] = index
                taken[slot] = place
        self.filled = min(self.seen, capacity)
        return taken


class Ring(Reservoir):
    """The last ``capacity // classes`` samples of each class."""

    def __init__(self, capacity: int, seed: int, labels: np.ndarray, classes: int) -> None:
        super().__init__(capacity, seed)
        self.labels, self.each, self.turn = labels, capacity // classes, [0] * classes
        self.slots: list[list[int]] = [[] for _ in range(classes)]

    def offer(self, batch: np.ndarray) -> dict[int, int]:
        taken = {}
        for place, (index, label) in enumerate(zip(batch.tolist(), self.labels[batch].tolist(), strict=True)):
            own = self.slots[label]
            if len(own) < self.each:
                own.append(self.filled)
                self.filled += 1
            slot = own[self.turn[label] % self.each]
            self.turn[label] += 1
            self.held[slot] = index
            taken[slot] = place
        return taken
