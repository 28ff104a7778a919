"""A table in a CSV or Parquet file, with windows in time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cl_lib.datasets.categories import whole_numbers
from cl_lib.datasets.check import check_column_name
from cl_lib.datasets.frame import from_frame
from cl_lib.datasets.periods import Period, in_time, periods
from cl_lib.datasets.samples import Dataset
from cl_lib.datasets.table_files import check_used, features_of, read_table, true_rows
from cl_lib.datasets.windows import check_windows, named, scaled, train_rows
from cl_lib.errors import InputError
from cl_lib.validation import check_choice, check_whole


def table(
    path: str | os.PathLike[str],
    target: str,
    *,
    window: str | None = None,
    every: Period | None = None,
    order: Sequence[str] | None = None,
    slices: str | Sequence[str] = (),
    features: str | Sequence[str] | None = None,
    test: float | str = 0.25,
    seed: int = 0,
    name: str | None = None,
    max_categories: int = 50,
) -> Dataset:
    """Read a data set from a table: one row, one sample, with the windows in time as a metadata column.

    Parameters
    ----------
    path : path
        File that ends in ``.csv``, ``.csv.gz``, ``.csv.zip`` or ``.parquet`` (needs pyarrow).
    target : str
        Column with the class of each row.
    window : str, default None
        Column with the window of each row, which becomes a metadata column: numbers, ISO dates or periods, or names
        of months or weekdays, in the order of time.
    every : {"day", "week", "month", "quarter", "year"}, default None
        Cut the dates of `window` into such periods, labelled 2013-02-01, 2013-W05, 2013-02, 2013-Q1 or 2013.
    order : sequence of str, default None
        All values of `window` from the first to the last, for other texts.
    slices : str or sequence of str, default ()
        Columns to slice results by, as in `from_frame`.
    features : str or sequence of str, default None
        Columns that the model sees; None takes every column with no other role. A text column becomes an indicator
        of each of its values.
    test : float in (0, 1) or str, default 0.25
        Share of each class of each window in the test part, or the boolean column that is true in its rows.
    seed : int, default 0
        Seed of the stratified split.
    name : str, default None
        Name of the data set; None takes the file's.
    max_categories : int, 1 or more, default 50
        Indicators of a text column at most, of its most frequent values; one more is for all others.

    Returns
    -------
    Dataset
        `x` float32; `mean` and `std` of each numeric feature over the train rows of the first four windows, or over
        all of them where there is no `window` or the feature is constant there; indicators stay 0 and 1.

    Raises
    ------
    InputError
        If the file or a column is absent, used values are missing, a date is none, or there are fewer than 3 windows,
        one with fewer than 50 samples or without train or test rows, or windows whose order is unknown.

    Examples
    --------
    >>> import pandas as pd
    >>> from tempfile import TemporaryDirectory
    >>> day = pd.date_range("2013-01-01", periods=360).astype(str)
    >>> rows = {"day": day, "wind": range(360), "site": ["a", "b"] * 180, "late": [0, 0, 1, 1] * 90}
    >>> with TemporaryDirectory() as folder:
    ...     pd.DataFrame(rows).to_csv(f"{folder}/trips.csv", index=False)
    ...     data = table(f"{folder}/trips.csv", "late", window="day", every="quarter")
    >>> data
    Dataset(trips: 268 train + 92 test, 2 classes, float32 (3,), columns day)
    >>> data.train.columns["day"]
    Column(268 samples: 2013-Q1 67, 2013-Q2 68, 2013-Q3 68, 2013-Q4 65)
    """
    check_whole("max_categories", max_categories, 1)
    if every is not None:
        check_choice("every", every, ("day", "week", "month", "quarter", "year"))
    if window is None and (every is not None or order is not None):
        raise InputError(f"{'every' if every is not None else 'order'}: cuts a window column; name it in window=")
    if every is not None and order is not None:
        raise InputError("order: every= puts dates in their order; leave one of the two out")
    if isinstance(test, str) and test in (target, window):
        raise InputError(f"test={test!r}: is the target or the window; name a boolean column of its own")
    frame = read_table(path)
    title = Path(path).name.partition(".")[0] if name is None else name
    chosen = [slices] if isinstance(slices, str) else list(dict.fromkeys(slices))
    roles = {target, window, test, *chosen}
    if features is None:
        features = [column for column in frame.columns if column not in roles]
    seen = [features] if isinstance(features, str) else list(dict.fromkeys(features))
    used = {"target": [target], "window": [window] if window is not None else [], "slices": chosen, "features": seen}
    check_used(frame, used | ({"test": [test]} if isinstance(test, str) else {}))
    for role, taken in (("target", target), ("window", window), ("test", test)):
        if taken in seen:
            raise InputError(f"features: name {taken!r}, which is the {role}; leave it out")
    if target in (window, *chosen):
        raise InputError(f"target={target!r}: is also the window or a slice; class is a slicing of every record")
    if not len(frame):
        raise InputError(f"{path}: holds no rows; give at least one")

    made: dict[str, Any] = {target: frame[target]}
    if frame[target].dtype.kind == "f":
        whole_numbers(frame[target])
    classes = np.unique(frame[target].astype(str), return_inverse=True)[1]
    time = np.zeros(len(frame), dtype=np.int64)
    if window is not None:
        check_column_name(title, window)
        column = in_time(frame[window], order) if every is None else periods(frame[window], every)
        time = column.codes.numpy()
        check_windows(f"window column {window!r}", time, column.labels)
        made[window] = named(time, column.labels)
    made |= {column: frame[column] for column in chosen if column != window}
    known = ~true_rows(frame[test]) if isinstance(test, str) else train_rows(time, classes, test, seed)
    if window is not None:
        check_windows(f"window column {window!r}", time, column.labels, known)
    inputs, measured = features_of(frame[seen], max_categories)
    names = [str(column) for column in inputs]
    marker = "test" + "_" * max(map(len, [*names, *made]))  # no column's name
    whole = inputs.assign(**{key: value for key, value in made.items() if key not in inputs}, **{marker: ~known})
    data = from_frame(whole, target, slices=list(made)[1:], features=names, test=marker, name=title)
    return scaled(data, measured, window)
