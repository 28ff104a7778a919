"""Checks of every slice of a column: lowest accuracy, and drops against another model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cl_lib.errors import InputError, nearest
from cl_lib.service.evidence import Evidence
from cl_lib.service.flips import compare
from cl_lib.service.requirements import SliceBound

ROUNDING = 1e-12
NAMED = 5
"""Slices that a reason names."""


class Outcome(NamedTuple):
    """Key of a bound, value of the worst slice, the bound, the rule, samples, whether it is met, and why."""

    key: str
    value: float | None
    bound: float
    rule: str
    n: int
    passed: bool
    reason: str


def check_slices(expected: SliceBound, new: Evidence, old: Evidence | None, kept: np.ndarray) -> list[Outcome]:
    """Check all slices of a column that have enough samples.

    A slice drops too far if the mean over seeds of its drop exceeds ``max_drop`` and, where there are predictions, the
    drop is significant in at least half of the seeds: exact McNemar tests, adjusted over the slices by Benjamini and
    Hochberg.

    Parameters
    ----------
    expected : SliceBound
    new, old : Evidence
        Of the candidate and of the model it is compared with.
    kept : ndarray of bool
        ``(R,)`` replicas of both that have results.
    """
    kept = kept if kept.any() else ~kept  # all diverged: the caller refuses
    labels, count, correct = _accuracies(expected, new)
    tested = count >= expected.min_support
    few = int((~tested & (count > 0)).sum())
    n = int(count[tested].sum())
    note = f"; {few} with fewer than {expected.min_support} samples not checked" if few else ""
    out = []
    if expected.min_accuracy is not None:
        mean = correct.mean(0) / np.maximum(count, 1)
        bad = tested & (mean < expected.min_accuracy - ROUNDING)
        texts = [
            f"{expected.column} {labels[s]}: {mean[s]:.4f} (n {count[s]:,.0f})" for s in np.argsort(mean) if tested[s]
        ]
        out.append(
            _outcome(
                "min_accuracy", mean, False, tested, bad, expected.min_accuracy, "mean", n, texts, note, "accuracy"
            )
        )
    if expected.max_drop is not None:
        if old is None:
            raise InputError(
                f"{expected.where}.max_drop: needs another model to compare with; give against or against_row"
            )
        _, _, before = _accuracies(expected, old)
        drop = (before[kept] - correct[kept]).mean(0) / np.maximum(count, 1)
        shares, rule = _significant(expected, new, old, kept, tested)
        bad = tested & (drop > expected.max_drop + ROUNDING) & (shares >= 0.5)
        texts = [
            f"{expected.column} {labels[s]}: {drop[s]:+.4f} (n {count[s]:,.0f}"
            + (f", significant in {shares[s] * kept.sum():.0f} of {kept.sum()} seeds)" if rule != "mean" else ")")
            for s in np.lexsort((-drop, -bad.astype(int)))
            if tested[s]
        ]
        worst = bad if bad.any() else tested
        out.append(_outcome("max_drop", drop, True, worst, bad, expected.max_drop, rule, n, texts, note, "drop"))
    return out


def _outcome(
    key: str,
    values: np.ndarray,
    at_most: bool,
    counted: np.ndarray,
    bad: np.ndarray,
    bound: float,
    rule: str,
    n: int,
    texts: list[str],
    note: str,
    what: str,
) -> Outcome:
    if not counted.any():
        return Outcome(key, None, bound, rule, n, False, f"no slice has enough samples{note}")
    value = float(values[counted].max() if at_most else values[counted].min())
    if not bad.any():
        return Outcome(key, value, bound, rule, n, True, f"{len(texts)} slices meet it, worst {what} {texts[0]}{note}")
    named = ", ".join(texts[: min(int(bad.sum()), NAMED)])
    more = f" and {int(bad.sum()) - NAMED} more" if bad.sum() > NAMED else ""
    return Outcome(
        key, value, bound, rule, n, False, f"{int(bad.sum())} of {len(texts)} slices fail: {named}{more}{note}"
    )


def _accuracies(expected: SliceBound, evidence: Evidence) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels, ``(S,)`` samples and ``(R, S)`` correct predictions of the slices of a column."""
    record, name = evidence.record, expected.column
    arrays = record.arrays
    known = ["class", *(key.split(".")[1] for key in arrays if key.startswith("column.") and key.endswith(".count"))]
    if name not in known:
        raise InputError(f"{expected.where}: the record has no slices by {name}{nearest(name, known)}")
    labels = [str(label) for label in record.slices[name]["labels"]]
    if evidence.windows is None and record.predictions is None:
        part = name if name == "class" else f"column.{name}"
        count = arrays[f"{part}.count"][:, -1]
        if (count != count[:1]).any():
            raise InputError(f"{expected.where}: the test samples of the replicas differ; use class_order=natural")
        return labels, count[0], arrays[f"{part}.correct"][:, -1]
    bits = evidence.correct(expected.where)
    codes = _codes(expected, evidence)
    size = len(labels)
    return labels, np.bincount(codes, minlength=size), np.array([np.bincount(codes, b, size) for b in bits])


def _codes(expected: SliceBound, evidence: Evidence) -> np.ndarray:
    predictions = evidence.record.predictions
    assert predictions is not None
    return np.asarray(predictions.slices(expected.column)[evidence.place])


def _significant(
    expected: SliceBound, new: Evidence, old: Evidence, kept: np.ndarray, tested: np.ndarray
) -> tuple[np.ndarray, str]:
    """Share of the seeds in which each slice lost accuracy significantly, and the rule; 1 without a test."""
    untested = np.ones(len(tested)), "mean"
    if expected.alpha == 1:
        return untested
    if new.record.predictions is None or old.record.predictions is None:
        if expected.alpha is not None:
            raise InputError(f"{expected.where}.alpha: a test needs predictions of both models (save_predictions=true)")
        return untested
    alpha = 0.05 if expected.alpha is None else expected.alpha
    codes = _codes(expected, new)
    chosen = tested[codes]
    before, after = (part.correct(expected.where)[kept][:, chosen] for part in (old, new))
    found = np.zeros((len(before), len(tested)))
    for replica, (was, now) in enumerate(zip(before, after, strict=True)):
        flips = compare(was, now, {expected.column: codes[chosen]}, alpha)[1][expected.column]
        lost = (flips.adjusted < alpha) & (flips.negative > flips.positive)
        found[replica, : len(lost)] = lost
    return found.mean(0), f"McNemar, α {alpha:g}"
