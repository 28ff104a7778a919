"""Whether a run that was made again agrees with the table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from table import Run

BOUND = 0.03
"""Largest difference of a metric of one seed: another processor rounds differently, and training amplifies that."""
BOUNDED = ("accuracy", "forgetting", "ece", "worst_class_accuracy")


def compare(table: Run, again: Run) -> tuple[bool, str]:
    """Whether two runs agree within `BOUND`, and a sentence that says by how much they differ."""
    for key in ("data_hash", "eval_on"):
        if table.info.get(key) != again.info.get(key):
            return False, f"DIFFERS: {key} is {table.info.get(key)} in the table and {again.info.get(key)} now"
    keys = [[(r["seed"], str(r["hyper"]), r["status"]) for r in run.replicas] for run in (table, again)]
    if keys[0] != keys[1]:
        odd = next((a, b) for a, b in zip(*keys, strict=False) if a != b) if len(keys[0]) == len(keys[1]) else keys
        return False, f"DIFFERS: other replicas, {odd[0]} in the table and {odd[1]} now"
    largest, bounded, where = 0.0, 0.0, ""
    for name, seed, a, b in _pairs(table, again):
        if a == b:
            continue
        if not (_defined(a) and _defined(b)):
            return False, f"DIFFERS: {name} of seed {seed} is {a} in the table and {b} now"
        if abs(a - b) > largest:
            largest, where = abs(a - b), f"{name} of seed {seed}"
        if name in BOUNDED:
            bounded = max(bounded, abs(a - b))
    other = _other_arrays(table, again)
    if not where and not other:
        return True, "equal bit for bit"
    parts = [f"largest difference {largest:.1e} ({where})"] if where else []
    parts += [f"other arrays: {', '.join(other)}"] if other else []
    sentence = f"{'; '.join(parts)}; at most {bounded:.1e} in {', '.join(BOUNDED)}"
    return (True, sentence) if bounded <= BOUND else (False, f"DIFFERS by more than {BOUND}: {sentence}")


def _pairs(table: Run, again: Run) -> Iterator[tuple[str, int, Any, Any]]:
    """Each number of a replica with that of its rerun: all metrics of either, and what searches and divergence say."""
    none = [None] * len(table.replicas)
    for i, (old, new) in enumerate(zip(table.replicas, again.replicas, strict=True)):
        for name in dict.fromkeys([*table.metrics, *again.metrics]):
            yield name, old["seed"], table.metrics.get(name, none)[i], again.metrics.get(name, none)[i]
        for name in ("selection", "diverged_at"):
            yield name, old["seed"], old[name], new[name]


def _defined(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _other_arrays(table: Run, again: Run) -> list[str]:
    """Names of the arrays that are not equal."""
    names = dict.fromkeys([*table.arrays, *again.arrays])
    return [name for name in names if not _equal(table.arrays.get(name), again.arrays.get(name))]


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b, equal_nan=True)
