"""Windows in time: their split, and scales that use no later window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cl_lib.datasets.check import check_dataset
from cl_lib.datasets.samples import Dataset
from cl_lib.datasets.split import stratified_split
from cl_lib.errors import InputError

EARLY = 4
"""Number of windows whose train rows give the mean and std."""
FEWEST = 3
"""Fewest windows of a stream in time."""
SMALLEST = 50
"""Fewest samples of a window."""


def train_rows(window: np.ndarray, classes: np.ndarray, test: float, seed: int) -> np.ndarray:
    """Mark the train rows; the test part has its share of each class of each window.

    Parameters
    ----------
    window, classes : ndarray of shape (N,), int
        From 0.
    test : float in (0, 1)
    seed : int

    Returns
    -------
    ndarray of shape (N,), bool

    Examples
    --------
    >>> window, classes = np.arange(16) // 8, np.arange(16) % 2
    >>> [int((~train_rows(window, classes, 0.25, 0))[part].sum()) for part in (slice(8), slice(8, None))]
    [2, 2]
    """
    joint = window.astype(np.int64) * (int(classes.max(initial=0)) + 1) + classes
    train, _ = stratified_split(torch.from_numpy(joint), test, seed)
    known = np.zeros(len(window), dtype=bool)
    known[train.numpy()] = True
    return known


def check_windows(where: str, window: np.ndarray, labels: Sequence[str], known: np.ndarray | None = None) -> None:
    """Raise InputError for fewer than 3 windows, one under 50 samples, or one without train or test rows.

    Examples
    --------
    >>> check_windows("column 'month'", np.repeat([0, 1, 2], 60), ["1", "2", "3"])
    >>> check_windows("column 'month'", np.repeat([0, 1, 2], [60, 9, 60]), ["1", "2", "3"])
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: column 'month': window 2 has 9 samples; each needs 50 or more: take longer periods, or
    leave its rows out
    """
    if len(labels) < FEWEST:
        few = f"{len(labels)} window{'s' * (len(labels) != 1)} ({', '.join(labels)})"
        raise InputError(f"{where}: has {few}; a stream in time needs {FEWEST} or more: take shorter periods")
    sizes = np.bincount(window, minlength=len(labels))
    small = np.flatnonzero(sizes < SMALLEST)
    if len(small):
        w = small[0]
        more = f" (and {len(small) - 1} more)" if len(small) > 1 else ""
        raise InputError(
            f"{where}: window {labels[w]} has {sizes[w]} samples{more}; each needs {SMALLEST} or more: take longer "
            "periods, or leave its rows out"
        )
    if known is None:
        return
    for part, rows in (("train", known), ("test", ~known)):
        empty = np.flatnonzero(np.bincount(window[rows], minlength=len(labels)) == 0)
        if len(empty):
            raise InputError(f"{where}: window {labels[empty[0]]} has no {part} rows; each needs train and test rows")


def named(codes: np.ndarray, labels: Sequence[str]) -> Any:
    """Categories with the order of `labels`, for a DataFrame."""
    import pandas as pd  # slow to import, and only loaders of tables need it

    values: Any = np.array(labels, dtype=object)[codes]
    return pd.Categorical(values, categories=list(labels))


def scaled(data: Dataset, measured: Sequence[int], window: str | None) -> Dataset:
    """Give features `measured` mean and std of the train rows of the first 4 windows, the others 0 and 1.

    A feature that is constant there keeps its mean and std of the whole train part.

    Examples
    --------
    >>> from cl_lib.datasets.arrays import from_arrays
    >>> x, y = np.arange(24.0).reshape(12, 2), np.arange(12) % 2
    >>> data = from_arrays((x, y), (x, y), columns={"week": [np.repeat(range(6), 2)] * 2})
    >>> scaled(data, [1], "week").mean
    (0.0, 8.0)
    """
    rows = slice(None) if window is None else data.train.columns[window].codes < EARLY
    mean, std = ([neutral] * data.shape[0] for neutral in (0.0, 1.0))
    for i in measured:
        values = data.train.x[rows, i].double()
        if values.amax() == values.amin():
            values = data.train.x[:, i].double()
        mean[i] = float(values.mean())
        std[i] = float(values.std(correction=0)) if values.amax() > values.amin() else 1.0
    return check_dataset(replace(data, mean=tuple(mean), std=tuple(std)))
