"""What the harness asks of the replicas that it trains: `Population` and `Looped` give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from cl_lib.plan.plan import Block


class Predictor(Protocol):
    """What an evaluation asks of the replicas."""

    def begin_evaluation(self) -> None:
        """Compute what all predictions of an evaluation share."""

    def predict(self, x: Tensor | Sequence[Tensor], task: Tensor) -> Tensor:
        """Log-probabilities ``(R, N, C)``; ``x`` is ``(N, *shape)``, ``(R, N, *shape)`` or a sequence of R Tensor."""


class Learners(Predictor, Protocol):
    """``R`` replicas that are trained block by block."""

    @property
    def parameters(self) -> int | None:
        """Trainable parameters of one replica, where they are known."""

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of one replica's full memory and strategy state, where they are known."""

    @property
    def preparation(self) -> float:
        """Seconds spent on tracing and compiling."""

    @property
    def diverged(self) -> np.ndarray:
        """``(R,)`` step at which a replica was found non-finite, -1 for healthy ones."""

    @property
    def loss(self) -> np.ndarray | None:
        """``(R,)`` loss of the last step, where it is known."""

    @property
    def tree(self) -> dict[str, Any]:
        """All that must be saved to go on from here; empty where that cannot be said."""

    def restore(self, tree: dict[str, Any]) -> None:
        """Go on from a saved tree."""

    def begin_experience(self, number: int) -> None:
        """Prepare for the steps of an experience."""

    def cut(self, block: Block) -> list[Block]:
        """The parts in which a block is trained."""

    def observe(self, block: Block, s: int, ahead: Block | None = None) -> int:
        """Train from step ``s`` of a block; how many steps were taken. ``ahead`` is the block that follows."""

    def end_experience(self, number: int) -> None:
        """Consolidate after the last step of an experience."""
