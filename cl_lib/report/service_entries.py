"""Rows of a service report: one for each policy, grid point and delay, with means over replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cl_lib.service import Backtest
from cl_lib.service.resampling import block_samples
from cl_lib.service.result_file import FEWEST, interval

METRICS = {
    "nll": ("NLL", "the negative log-likelihood (NLL), which is high where a model is confident and wrong"),
    "error": ("error", "the share of wrong predictions"),
    "brier": ("Brier score", "the Brier score, the squared distance of the predicted probabilities from the truth"),
}


@dataclass(frozen=True, eq=False)
class Served:
    """One policy at one grid point and delay; ``number`` gives its colour, the same at every delay.

    ``interval`` is that of the skill, ``p_value`` that of `Backtest.p_value`.
    """

    number: int
    name: str
    result: Backtest
    at: tuple[int, ...]
    interval: tuple[float, float]
    p_value: float

    def of(self, part: str) -> np.ndarray:
        """An attribute of the backtest at this grid point, replicas first."""
        return np.asarray(getattr(self.result, part)[self.at])

    def mean(self, part: str) -> float:
        """Mean of an attribute over the replicas for which it is defined."""
        return float(mean(self.of(part).astype(float)))

    @cached_property
    def gain(self) -> tuple[float, float]:
        """95 % interval of the loss minus that of random schedules with as many updates, as `Backtest.interval`."""
        if len(self.result.windows) < FEWEST:
            return np.nan, np.nan
        table = self.result.random_loss
        random = table[np.arange(len(table)), np.minimum(self.of("updates"), table.shape[1] - 1)]
        difference = mean(self.of("loss") - random, 0)
        draws = block_samples(len(self.result.windows), block=4, resamples=2000, seed=0)
        low, high = np.quantile(difference[draws].mean(-1), [0.025, 0.975])
        return float(low), float(high)

    @property
    def constant(self) -> str:
        """Whether the policy is "never updated" or "always updated" in all replicas; else empty."""
        path, newest = self.of("path"), self.result.first - self.result.delay
        if (path == path[:, :1]).all():
            return "never updated"
        return "always updated" if (path == newest + np.arange(path.shape[1])).all() else ""

    @property
    def title(self) -> str:
        """Name with the delay."""
        delay = self.result.delay
        return f"{self.name}, labels {delay} window{'s' if delay > 1 else ''} late" if delay else self.name


def mean(values: np.ndarray, axis: int | None = None) -> Any:
    """Mean over finite values, NaN where there are none."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis), known.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def served(results: Sequence[Backtest], names: Sequence[str]) -> list[Served]:
    """Rows of the report in the order of the results."""
    numbers: dict[str, int] = {}
    out = []
    for name, result in zip(names, results, strict=True):
        intervals, p_values = interval(result, "skill"), result.p_value()  # of all grid points at once
        for g, point in enumerate(result.points or [{}]):
            label = " ".join([name, *(f"{k}={v:g}" for k, v in point.items())])
            number = numbers.setdefault(label, len(numbers))
            at = (g,) if result.points else ()
            low, high = intervals[at].tolist()
            out.append(Served(number, label, result, at, (low, high), float(p_values[at])))
    return out
