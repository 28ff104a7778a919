"""What every side tells of an experience that it trained on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Lap:
    """Seconds of one experience.

    Attributes
    ----------
    steps : int
        Steps taken by each replica.
    training : float
    planning : float
        Apart from training where a side plans ahead; 0 where it plans in the loop.
    consolidation : float
        What a strategy does when an experience ends.
    evaluation : float
    """

    steps: int
    training: float
    planning: float = 0.0
    consolidation: float = 0.0
    evaluation: float = 0.0


class Side(Protocol):
    """One way of doing a work, trained one experience after the other."""

    def train(self) -> Lap:
        """Train on the next experience."""

    def accuracy(self) -> list[float]:
        """For each replica, over all test samples and classes."""


def now(device: torch.device) -> float:
    """Seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
