"""Data sets from pandas DataFrames, with columns as features and slices."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cl_lib.datasets.categories import categories, cut, whole_numbers
from cl_lib.datasets.check import LOST, check_column_name, check_dataset
from cl_lib.datasets.samples import Dataset, Samples
from cl_lib.datasets.split import stratified_split
from cl_lib.errors import InputError
from cl_lib.validation import is_number

if TYPE_CHECKING:
    import pandas as pd

JITTER = 1e-13
"""Relative standard deviation, in float64, up to which a feature counts as constant."""


def from_frame(
    frame: pd.DataFrame,
    target: str,
    *,
    slices: str | Sequence[str] = (),
    features: str | Sequence[str] | None = None,
    test: float | str = 0.25,
    seed: int = 0,
    name: str = "frame",
) -> Dataset:
    """Make a data set from a table, with one sample per row.

    Parameters
    ----------
    frame : DataFrame
        The table; no value may be missing in a column that is used.
    target : str
        Column with the class of each row; its distinct values, sorted, are the classes.
    slices : str or sequence of str, default ()
        Columns to slice results by. A numeric column with more than 10 distinct values is binned at the quartiles of
        the train part.
    features : str or sequence of str, default None
        Numeric or boolean columns that the model sees, in this order; None takes every column that is neither the
        target, a slice nor `test`. A slice column is a feature only if it is named here.
    test : float in (0, 1) or str, default 0.25
        Fraction of every class in the test part, or the boolean column that is true in the rows of the test part.
    seed : int, default 0
        Seed of the stratified split.
    name : str, default "frame"
        Name of the data set.

    Returns
    -------
    Dataset
        `x` float32 of shape (N, features) in the table's units; `mean` and `std` of each feature over the train
        part (a constant feature gets std 1).

    Raises
    ------
    InputError
        If a column is unknown, occurs twice, has missing or infinite values or does not have the type its role needs,
        or rounding a feature (such as a time in seconds since 1970) to float32 would cause an error of more than a
        thousandth of its standard deviation.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"age": range(20, 60), "site": ["north", "south"] * 20, "ill": [0, 0, 1, 1] * 10})
    >>> data = from_frame(table, "ill", slices="site")
    >>> data
    Dataset(frame: 30 train + 10 test, 2 classes, float32 (1,), columns site)
    >>> data.test.columns["site"]
    Column(10 samples: north 3, south 7)
    """
    import pandas as pd  # imported here since it is slow and only this loader needs it

    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"frame is a {type(frame).__name__}: give a pandas DataFrame, such as pd.DataFrame(frame)")
    chosen = [slices] if isinstance(slices, str) else list(slices)
    marker = [test] if isinstance(test, str) else []
    if features is None:
        taken = {target, *chosen, *marker}
        features = [column for column in frame.columns if column not in taken]
    seen = [features] if isinstance(features, str) else list(features)
    for column in (target, *chosen, *marker, *seen):
        _check_column(frame, column)
    if not len(frame):
        raise InputError(f"{name}: there are no samples: give at least one row")
    _check_features(frame, seen, leaks={target, *marker})

    _check_names(frame[target])
    classes = categories(frame[target])
    if frame[target].dtype.kind == "f":
        classes = whole_numbers(frame[target])
    if isinstance(test, str):
        if not pd.api.types.is_bool_dtype(frame[test]):
            raise InputError(f"test column {test!r} is {frame[test].dtype}: give a boolean one, true in test rows")
        held_out = torch.tensor(frame[test].to_numpy(dtype=bool))
        train, tested = (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
    else:
        train, tested = stratified_split(classes.codes, test, seed)
    if not len(train):
        raise InputError(f"{name}, train: there are no samples: give at least one row outside test")

    x = torch.from_numpy(frame[seen].to_numpy(dtype=np.float32, copy=True))
    for column in chosen:
        check_column_name(name, str(column))
    columns = {str(column): cut(frame[column], train.numpy()) for column in chosen}
    if len(columns) < len(set(chosen)):
        raise InputError(f"{name}: two slice columns have the same name as strings: rename one")
    whole = Samples(x, classes.codes, columns)
    known = x[train].double()
    constant = known.amax(0) == known.amin(0)  # exact, unlike the standard deviation, which rounding makes positive
    std = torch.where(constant, 1.0, known.std(0, correction=0))
    return check_dataset(
        Dataset(
            name,
            whole.take(train),
            whole.take(tested),
            classes.labels,
            mean=tuple(known.mean(0).tolist()),
            std=tuple(std.tolist()),
        )
    )


def _check_column(frame: pd.DataFrame, column: str) -> None:
    count = list(frame.columns).count(column)
    if count == 0:
        names = [str(known) for known in frame.columns]
        near = get_close_matches(str(column), names, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the columns are {', '.join(names)}"
        raise InputError(f"frame has no column {column!r}: {hint}")
    if count > 1:
        raise InputError(f"frame has {count} columns {column!r}: give every column a different name")
    missing = int(frame[column].isna().sum())
    if missing:
        raise InputError(f"column {column!r} has {missing} missing values: fill them in or drop those rows")


def _check_names(values: pd.Series[Any]) -> None:
    """Raise `InputError` if the same number occurs as a class in two types, for example 1 and "1" or True."""
    if values.dtype.kind not in "OTU":
        return
    known: dict[str, object] = {}
    for value in values:
        number = isinstance(value, Real | np.bool_)
        name = str(int(value)) if number and value % 1 == 0 else str(value)
        first = known.setdefault(name, value)
        # two values with the same string are rejected by `categories`
        if type(first) is not type(value) and str(first) != str(value) and not (is_number(first) and is_number(value)):
            raise InputError(
                f"column {values.name!r}: values {first!r} and {value!r} name the same class: give all values the same "
                "type"
            )


def _check_features(frame: pd.DataFrame, features: list[str], leaks: set[str]) -> None:
    for column in features:
        if column in leaks:
            raise InputError(f"features name {column!r}, which is the target or the test column: leave it out")
    if not features:
        raise InputError("there are no feature columns: name at least one numeric column in features=")
    text = [column for column in features if frame[column].dtype.kind not in "biuf"]
    if text:
        raise InputError(
            f"feature columns {', '.join(map(repr, text))} are not numeric: encode them (pd.get_dummies for one-hot), "
            "make them slices, or name the numeric columns in features="
        )
    for column in features:
        with np.errstate(over="ignore"):
            beyond = int(np.isinf(frame[column].to_numpy(dtype=np.float64).astype(np.float32)).sum())
        if beyond:
            raise InputError(f"column {column!r} has {beyond} values that are infinite in float32: scale or drop them")
        values = frame[column].to_numpy(dtype=np.float64)
        lost, spread = np.abs(values - values.astype(np.float32)).max(), values.std()
        if lost > LOST * spread and spread > JITTER * np.abs(values).max():
            raise InputError(
                f"column {column!r}: rounding to float32 changes it by {lost:.2g}, its standard deviation is "
                f"{spread:.2g}: subtract an offset beforehand, such as {values.mean():.6g}"
            )
