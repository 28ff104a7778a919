"""Conversion of the columns of a table to categories."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cl_lib.datasets.columns import Column, names_of
from cl_lib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 10  # a numeric slice column with more distinct values is binned at its quartiles


def categories(values: pd.Series[Any]) -> Column:
    """Return the distinct values as categories: sorted, or in the order a categorical series declares."""
    import pandas as pd

    try:
        categorical = pd.Categorical(values).remove_unused_categories()
    except TypeError as error:
        raise InputError(f"column {values.name!r}: must contain numbers or strings ({error})") from error
    try:
        names = names_of(list(categorical.categories))
    except InputError as error:
        raise InputError(f"column {values.name!r}: {error}") from error
    return Column(torch.from_numpy(categorical.codes.astype(np.int64)), names)


def whole_numbers(values: pd.Series[Any]) -> Column:
    """Return the categories of a floating-point target; raise `InputError` if it has fractional values."""
    fractional = values[values % 1 != 0]
    if len(fractional):
        raise InputError(
            f"target {values.name!r} has {len(fractional)} values that are not classes, such as {fractional.iloc[0]}: "
            "give classes, for example the bins of pd.qcut for a continuous quantity"
        )
    return categories(values.astype("int64"))


def cut(values: pd.Series[Any], train: np.ndarray) -> Column:
    """Return the categories of a slice column; many distinct numbers are binned at the quartiles of rows `train`."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return categories(values)
    if values.dtype.kind in "MOTU":  # dates, and strings, which may be numbers
        try:
            return Column.of(values)
        except InputError as error:
            raise InputError(f"column {values.name!r}: {error}") from error
    if values.dtype.kind not in "iuf":
        return categories(values)
    whole = categories(values.astype("int64")) if (values % 1 == 0).all() else None
    if values.nunique() <= MAX_CATEGORIES:
        return whole or categories(values)
    numbers = values.to_numpy(dtype=np.float64)
    known = numbers[train]
    edges = np.unique(np.quantile(known, (0.25, 0.5, 0.75)))
    edges = edges[edges < known.max()]
    if not len(edges):  # most rows have the largest value: separate it from all smaller values
        edges = np.unique(known)[-2:-1]
    names = [f"{edge:.6g}" for edge in edges]
    if not names:
        return Column(torch.zeros(len(numbers), dtype=torch.int64), (f"any {values.name}",), whole)
    between = [f"{low} < {values.name} <= {high}" for low, high in pairwise(names)]
    labels = (f"{values.name} <= {names[0]}", *between, f"{values.name} > {names[-1]}")
    return Column(torch.from_numpy(np.searchsorted(edges, numbers, side="left")), labels, whole)
