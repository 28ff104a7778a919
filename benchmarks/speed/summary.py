"""From seconds to a table: medians, ratios to the hand-written loop, and whether all sides learnt alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from laps import Lap

HAND = "hand loop"
ALLOWED, LEAST = 3.0, 0.005
"""A side's accuracy may lie so many seed standard deviations from the reference's; one is at least half a point."""


@dataclass
class Measured:
    """All that was seen of one side of one work.

    Attributes
    ----------
    replicas : int
        Trained as one.
    compiled : bool or None
        None for the sides that are not cl_lib.
    rounds : list of lists of Lap
        One list for each round, one lap for each experience.
    accuracy : list of lists of float
        One list for each round, one number for each replica.
    notes : list of str
    """

    replicas: int
    compiled: bool | None = None
    rounds: list[list[Lap]] = field(default_factory=list)
    accuracy: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def laps(self) -> list[Lap]:
        """What the medians are over: the first experience warms up."""
        return [lap for laps in self.rounds for lap in laps[1:]]

    def milliseconds(self, planning: bool) -> float:
        """Median per step and replica."""
        seconds = [(lap.training + planning * lap.planning) / lap.steps for lap in self.laps]
        return 1e3 * float(np.median(seconds)) / self.replicas

    @property
    def start_up(self) -> float:
        """Seconds that a first experience took longer than the others, in the round where this was most."""
        extra = [laps[0].training + laps[0].planning for laps in self.rounds]
        usual = [float(np.median([lap.training + lap.planning for lap in laps[1:]])) for laps in self.rounds]
        return max(0.0, *(e - u for e, u in zip(extra, usual, strict=True)))

    @property
    def mean(self) -> float:
        """Of the accuracy, over rounds and replicas; NaN where one diverged."""
        return float(np.mean([a for own in self.accuracy for a in own]))

    @property
    def std(self) -> float | None:
        """Of the accuracy over seeds; None where there are not two in a round."""
        return float(np.std([a for own in self.accuracy for a in own], ddof=1)) if self.replicas > 1 else None


def reference(sides: dict[str, Measured]) -> str:
    """Whose accuracy all are compared with: the traced population of ten, or what is nearest to it."""
    ours = {name: side for name, side in sides.items() if side.compiled is not None}
    return min(ours, key=lambda n: (ours[n].replicas == 1, abs(ours[n].replicas - 10), bool(ours[n].compiled)))


def flag(mean: float, centre: float, std: float | None) -> str | None:
    """What is odd about an accuracy: nobody is fast by doing less (or by learning something else)."""
    limit = ALLOWED * max(std or 0.0, LEAST)
    if abs(mean - centre) <= limit:
        return None
    if not math.isfinite(mean):
        return "diverged"
    return f"accuracy {100 * mean:.1f} % is {100 * abs(mean - centre):.1f} points from {100 * centre:.1f} %" + (
        f", more than {100 * limit:.1f}"
    )


def summarise(sides: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """For each side the medians, ratios, accuracy and flag, with every raw sample."""
    chosen = sides[reference(sides)]
    out = {}
    for name, side in sides.items():
        own: dict[str, Any] = {"replicas": side.replicas, "compiled": side.compiled}
        for key, planning in (("training", False), ("training_and_planning", True)):
            ms = side.milliseconds(planning)
            own[f"ms_{key}"] = ms
            own[f"ratio_{key}"] = ms / sides[HAND].milliseconds(planning)
        own["start_up_seconds"] = side.start_up
        own["consolidation_seconds"] = float(np.median([lap.consolidation for lap in side.laps])) / side.replicas
        own["accuracy"], own["accuracy_seed_std"] = side.mean, side.std
        own["flag"] = flag(side.mean, chosen.mean, chosen.std)
        own["notes"] = sorted(set(side.notes))
        own["samples"] = [[asdict(lap) for lap in laps] for laps in side.rounds]
        own["accuracies"] = side.accuracy
        out[name] = own
    return out


def table(sides: dict[str, dict[str, Any]]) -> str:
    """One work's sides, milliseconds per step and replica."""
    rows = {}
    for name, side in sides.items():
        std = side["accuracy_seed_std"]
        rows[name] = {
            "training ms": f"{side['ms_training']:.3f}",
            "ratio": f"{side['ratio_training']:.2f}",
            "with planning ms": f"{side['ms_training_and_planning']:.3f}",
            "ratio ": f"{side['ratio_training_and_planning']:.2f}",
            "start-up s": f"{side['start_up_seconds']:.1f}",
            "after an experience s": f"{side['consolidation_seconds']:.2f}",
            "accuracy %": f"{100 * side['accuracy']:.1f}" + (f" ± {100 * std:.1f}" if std is not None else ""),
            "": "flagged" if side["flag"] else "",
        }
    return pd.DataFrame.from_dict(rows, orient="index").to_string()


def remarks(sides: dict[str, dict[str, Any]]) -> Sequence[str]:
    """Flags and notes, one a line."""
    return [f"{name}: {text}" for name, side in sides.items() for text in (side["flag"], *side["notes"]) if text]
