"""How the columns of a table become categories."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cl_lib.datasets.columns import Column, names_of
from cl_lib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_CATEGORIES = 10  # a numeric slice column with more distinct values is cut at its quartiles


def categories(values: pd.Series[Any]) -> Column:
    """Return the distinct values as categories: sorted, or in the order a categorical series declares."""
    import pandas as pd

    try:
        found = pd.Categorical(values).remove_unused_categories()
    except TypeError as error:
        raise InputError(f"column {values.name!r} holds values that are neither numbers nor texts ({error})") from error
    try:
        names = names_of(list(found.categories))
    except InputError as error:
        raise InputError(f"column {values.name!r}: {error}") from error
    return Column(torch.from_numpy(found.codes.astype(np.int64)), names)


def whole_numbers(values: pd.Series[Any]) -> Column:
    """Return the categories of a floating target; InputError if it is a measurement."""
    fractional = values[values % 1 != 0]
    if len(fractional):
        raise InputError(
            f"target {values.name!r} holds {len(fractional)} values that are no class, such as {fractional.iloc[0]}: "
            "give classes, pd.qcut for some of a measurement"
        )
    return categories(values.astype("int64"))


def cut(values: pd.Series[Any], train: np.ndarray) -> Column:
    """Return the categories of a slice column, cut at the quartiles of rows `train` where it has many numbers."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return categories(values)
    if values.dtype.kind in "MOTU":  # points in time, and texts, which may be numbers
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
    if not len(edges):  # most rows share the largest value: set it apart from the rest
        edges = np.unique(known)[-2:-1]
    names = [f"{edge:.6g}" for edge in edges]
    if not names:
        return Column(torch.zeros(len(numbers), dtype=torch.int64), (f"any {values.name}",), whole)
    between = [f"{low} < {values.name} <= {high}" for low, high in pairwise(names)]
    labels = (f"{values.name} <= {names[0]}", *between, f"{values.name} > {names[-1]}")
    return Column(torch.from_numpy(np.searchsorted(edges, numbers, side="left")), labels, whole)
