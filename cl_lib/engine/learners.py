"""Protocols of the replicas that the harness trains and evaluates, implemented by `Population` and `Looped`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from cl_lib.plan.plan import Block
from cl_lib.types import Tensors


class Predictor(Protocol):
    """Replicas that can be evaluated."""

    def begin_evaluation(self) -> None:
        """Compute the quantities shared by all predictions of an evaluation."""

    def predict(self, x: Tensor | Sequence[Tensor], task: Tensor) -> Tensor:
        """Log-probabilities ``(R, N, C)``; ``x`` is ``(N, *shape)``, ``(R, N, *shape)`` or a sequence of R Tensor."""


class Learners(Predictor, Protocol):
    """``R`` replicas that are trained block by block."""

    @property
    def parameters(self) -> int | None:
        """Number of trainable parameters of one replica, or None if unknown."""

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of one replica's full memory and strategy state, or None if unknown."""

    @property
    def preparation(self) -> float:
        """Seconds spent on tracing and compiling."""

    @property
    def diverged(self) -> np.ndarray:
        """``(R,)`` step at which each replica was detected to be non-finite, -1 if it was not."""

    @property
    def loss(self) -> np.ndarray | None:
        """``(R,)`` loss of the last step, or None if unknown."""

    def contents(self) -> Tensors:
        """Contents of the memories: ``index`` and ``task`` ``(R, capacity)``, ``count`` ``(R,)``; or empty."""

    @property
    def tree(self) -> dict[str, Any]:
        """The state that must be saved to resume training; empty if the replicas cannot be saved."""

    def restore(self, tree: dict[str, Any]) -> None:
        """Restore a saved tree."""

    def begin_experience(self, number: int) -> None:
        """Prepare for the steps of an experience."""

    def cut(self, block: Block) -> list[Block]:
        """Split a block into the parts in which it is trained."""

    def observe(self, block: Block, s: int, ahead: Block | None = None) -> int:
        """Train from step ``s`` of a block and return the number of steps taken; ``ahead`` is the next block."""

    def end_experience(self, number: int) -> None:
        """Consolidate after the last step of an experience."""
