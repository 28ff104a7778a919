"""Streams with one experience for each value of a metadata column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from cl_lib.datasets import Dataset, Samples
from cl_lib.datasets.columns import Column
from cl_lib.errors import InputError, nearest
from cl_lib.streams.stream import Classes, SeededStream, Stream, check_split, hold_out, restricted
from cl_lib.types import Experience


def by_column(
    data: Dataset,
    column: str,
    *,
    order: Sequence[str] | None = None,
    valid: float = 0.0,
    train_classes: Classes | None = None,
    eval_classes: Classes | None = None,
    name: str | None = None,
) -> Stream:
    """Domain-incremental stream with one experience for each value of a column, such as a site, month or instrument.

    Parameters
    ----------
    data : Dataset
        Data set with a metadata column in train and test part, made by `from_frame` or `from_arrays`.
    column : str
        Name of the column.
    order : sequence of str, optional
        Values of the column in the order of training; default: the order of its labels. Values that are left out are
        not trained on. A column of integers has an experience for each integer, even if results are sliced by ranges.
    valid : float, default 0
        Fraction of each class of each experience that is held out for validation, see `hold_out`.

    Raises
    ------
    InputError
        For a column or value that does not exist, or a value without training or test samples.

    Examples
    --------
    >>> import numpy as np
    >>> from cl_lib import datasets
    >>> x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    >>> site = np.array(["Oslo", "Rome"]).repeat(30)
    >>> data = datasets.from_arrays((x, y), 0.5, columns={"site": site})
    >>> by_column(data, "site").columns
    ('Oslo', 'Rome')
    """
    check_split(1, valid)
    column = str(column)
    if column not in data.train.columns:
        raise InputError(
            f"stream.column={column!r}: {data.name} has no such column{nearest(column, data.train.columns)}"
        )
    labels = _column(data.train, column).labels
    values = tuple(labels) if order is None else tuple(map(str, order))
    for value in values:
        if value not in labels:
            raise InputError(f"stream.order: {column} has no value {value!r}{nearest(value, labels)}")
    if len(set(values)) != len(values):
        raise InputError(f"stream.order={list(values)}: must contain each value at most once")
    stream = Stream(
        name=name or f"{data.name}_by_{column}",
        data=data,
        scenario="domain",
        classes=data.classes,
        columns=values,
        length=len(values),
        make=partial(_realise, data, column, values, valid),
        options={"kind": "by_column", "column": column, "order": list(values), "valid": valid},
    )
    return restricted(stream, train_classes, eval_classes)


def _column(samples: Samples, name: str) -> Column:
    column = samples.columns[name]
    return column if column.values is None else column.values


def _realise(data: Dataset, column: str, values: tuple[str, ...], valid: float, seed: int) -> SeededStream:
    parts, tests, valids = [], [], []
    for e, value in enumerate(values):
        samples, test = (
            torch.nonzero(_column(part, column).codes == _column(part, column).labels.index(value))[:, 0]
            for part in (data.train, data.test)
        )
        train, held_out = hold_out(samples, data.train.y[samples], valid)
        parts.append(Experience(train, torch.full_like(train, e), e))
        tests.append(test)
        valids.append(held_out)
    all_classes = torch.ones(len(values), len(data.classes), dtype=torch.bool)
    return SeededStream(tuple(parts), tuple(tests), tuple(valids), all_classes)
