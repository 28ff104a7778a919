"""Means over replicas, accuracy by slice and reliability diagrams, for records and reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cl_lib.metrics import reliability


def mean(values: np.ndarray) -> np.ndarray:
    """Mean of the finite values over replicas (the first axis); NaN if there are none.

    Examples
    --------
    >>> mean(np.array([[1.0, np.nan], [3.0, np.nan]]))
    array([ 2., nan])
    """
    finite = np.isfinite(values)
    total = np.where(finite, values, 0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite.any(0), total / finite.sum(0), np.nan)


def slice_accuracy(count: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Accuracy of each slice; NaN for slices without samples."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, correct / count, np.nan)


def slice_means(labels: Sequence[str], count: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """``labels``, ``support`` and ``accuracy`` of each slice, as means over the replicas that have the slice.

    Parameters
    ----------
    labels : sequence of str
    count, correct : ndarray
        ``(R, len(labels))``.
    """
    support = mean(np.where(count > 0, count, np.nan))
    return {"labels": list(labels), "support": support, "accuracy": mean(slice_accuracy(count, correct))}


def reliability_diagrams(bins: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Reliability diagrams ``before`` and ``after`` training on the stream, pooled over all replicas.

    Parameters
    ----------
    bins : ndarray
        ``(R, 2, bins, 3)``, for the first and the last evaluation: the array ``pooled.bins`` of a record.
    """
    total = np.nansum(bins, 0)
    diagrams = {"before": reliability(total[0]), "after": reliability(total[-1])}
    parts = ("confidence", "accuracy", "count")
    return {name: {part: np.asarray(getattr(d, part)) for part in parts} for name, d in diagrams.items()}
