"""Summary of a metric over seeds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric over seeds; ``per_seed`` is in the order of ``record.replicas``, with None for diverged replicas."""

    mean: float | None
    std: float | None
    ci95: list[float] | None
    n: int
    per_seed: list[float | None]
    reason: str | None = None

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        return f"{self.mean:.4f}" + (f" ± {self.std:.4f}" if self.std is not None else "")
