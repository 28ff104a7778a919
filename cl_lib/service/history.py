"""The history of a record: losses of all rows on all windows, checked for what a model in service needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.datasets.periods import calendar_places
from cl_lib.errors import InputError
from cl_lib.metrics.scores import BINS
from cl_lib.policies.history import WindowHistory, WindowSamples

if TYPE_CHECKING:
    from cl_lib.record import Record
    from cl_lib.record.predictions import Predictions

ISO = r"\d{4}[-/ ]?[WQ]?\d{1,2}([-/]\d{1,2})?([T ][\d:.]+(Z|[+-]\d\d:?\d\d)?)?"
"""Dates, times and periods whose numbers are in the order of time."""
SMALLEST = 50
"""Fewest test samples of a window."""


def history_of(record: Record) -> WindowHistory:
    """Read a record as a history of models in service.

    Raises
    ------
    InputError
        Where the columns of the record are not windows in time with enough samples, or not every window has a row.
    """
    _check(record)
    arrays = record.arrays
    losses = {
        "error": 1 - arrays["matrix.accuracy"],
        "nll": arrays["matrix.nll"],
        "brier": arrays["matrix.brier"],
    }
    support = arrays["support"][0, -1].astype(int)
    seeds = np.array([replica["seed"] for replica in record.replicas])
    predictions = record.predictions
    if predictions is None:
        return WindowHistory(losses, support, seeds)
    return WindowHistory(losses, support, seeds, *sources(predictions, record.stream["classes"]))


def sources(
    predictions: Predictions, classes: int
) -> tuple[dict[str, Callable[..., np.ndarray]], Callable[[int, int], WindowSamples]]:
    """What a history reads from predictions, computed when it is first used."""
    positions = predictions.positions
    windows = np.empty(sum(map(len, positions)), int)
    for window, place in enumerate(positions):
        windows[place] = window

    def by(codes: np.ndarray, kinds: int, weights: np.ndarray | None = None) -> np.ndarray:
        size = len(positions) * kinds
        return np.bincount(windows * kinds + codes, weights, minlength=size).reshape(len(positions), kinds)

    def confidence(row: int) -> np.ndarray:
        values = np.nan_to_num(predictions.row("confidence", row).astype(np.float32))
        return np.array([by(np.minimum((v * BINS).astype(int), BINS - 1), BINS) for v in values])

    def samples(row: int, window: int) -> WindowSamples:
        place = positions[window]
        return WindowSamples(predictions.correct(row)[:, place], predictions.row("nll", row)[:, place])

    parts: dict[str, Callable[..., np.ndarray]] = {
        "labels": lambda: by(predictions.slices("class"), classes),
        "inputs": lambda: predictions.arrays["inputs"],
        "predicted": lambda row: np.array([by(codes, classes) for codes in predictions.row("predicted", row)]),
        "confidence": confidence,
    }
    for name in predictions.names:
        codes = predictions.slices(name)
        kinds = int(codes.max(initial=0)) + 1
        parts[f"slice.{name}"] = partial(by, codes, kinds)
        parts[f"correct.{name}"] = partial(
            lambda codes, kinds, row: np.array([by(codes, kinds, bits) for bits in predictions.correct(row)]),
            codes,
            kinds,
        )
    return parts, samples


def _check(record: Record) -> None:
    stream, where = record.stream, f"record {record.strategy}"
    columns, rows = stream["columns"], record.rows
    if not record.arrays:
        raise InputError(f"{where}: has no arrays.npz; copy it together with its record")
    support = record.arrays["support"][:, -1]
    check_windows(where, stream, support.min(0).astype(int).tolist())
    if [row["experience"] for row in rows] != list(range(len(columns) + 1)):
        raise InputError(f"{where}: eval_every must be 1, so that every window has a row")
    if (support != support[:1]).any():
        raise InputError(f"{where}: the test sets of the replicas differ; use class_order=natural")
    if (record.arrays["before"] != np.arange(len(columns))).any():
        raise InputError(
            f"{where}: the strategy or stream does not train one window after the other (such as joint); use "
            "cumulative to train on all windows so far"
        )


def check_windows(where: str, stream: Mapping[str, Any], samples: Sequence[int]) -> None:
    """Raise `InputError` unless the test sets of a described stream, of given sizes, are windows in time."""
    columns, name = stream["columns"], stream["name"]
    if stream["eval_classes"] == "seen" or stream["scenario"] == "class":
        raise InputError(
            f"{where}: {name} is class-incremental with predictions among seen classes, which say nothing of windows "
            "to come; use a stream by time, such as streams.by_column"
        )
    if stream["scenario"] == "task":
        raise InputError(
            f"{where}: {name} is task-incremental, and the tasks to come have classes that no model was trained on; "
            "use a stream by time, such as streams.by_column"
        )
    if stream["experiences"] != len(columns):
        raise InputError(
            f"{where}: {name} has {stream['experiences']} experiences and {len(columns)} test sets; a window must be "
            "one experience with its own test set (not an online or blurry stream)"
        )
    options = stream.get("options") or {}
    while options:
        if options.get("kind") == "blurry":
            raise InputError(
                f"{where}: {name} is blurry: its windows exchange training samples, so that models have seen windows "
                "to come"
            )
        options = options.get("parent") or {}
    if len(columns) < 3:
        raise InputError(f"{where}: {name} has {len(columns)} windows; at least 3 are needed")
    if min(samples) < SMALLEST:
        window = int(np.argmin(samples))
        raise InputError(
            f"{where}: window {columns[window]} has {samples[window]} test samples; at least {SMALLEST} are needed: "
            "join windows or test on a larger share"
        )
    place = in_time(columns)
    if place is not None:
        raise InputError(
            f"{where}: window {columns[place]} comes after window {columns[place - 1]}; give stream.order in time"
        )


def in_time(names: Sequence[str]) -> int | None:
    """Position of the first window that is not later than the one before it; None if all are, or cannot be compared.

    Examples
    --------
    >>> in_time(["1", "2", "10"]), in_time(["2024-02", "2024-01"]), in_time(["Jan", "Mar", "Feb"]), in_time(["a", "c"])
    (None, 1, 2, None)
    """
    keys = _keys(names)
    return next((i for i in range(1, len(keys)) if keys[i] <= keys[i - 1]), None)


def _keys(names: Sequence[str]) -> list[tuple[float, ...]]:
    """Sortable keys of numbers, of ISO dates and periods, and of months and weekdays; empty for other names."""
    text = [str(name).strip() for name in names]
    try:
        return [(float(name),) for name in text]
    except ValueError:
        pass
    if all(re.fullmatch(ISO, name) for name in text):
        return [tuple(float(part) for part in re.findall(r"\d+(?:\.\d+)?", name)) for name in text]
    return [(float(place),) for place in calendar_places(text)]
