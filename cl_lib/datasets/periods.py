"""How the values of a column become windows in the order of time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cl_lib.datasets.categories import categories
from cl_lib.datasets.columns import Column, in_order
from cl_lib.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

Period = Literal["day", "week", "month", "quarter", "year"]

MONTHS = "january february march april may june july august september october november december".split()
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
ISO = re.compile(r"\d{4}(-\d\d(-\d\d([T ][\d:.+Z-]*)?)?|-W\d\d|-Q[1-4])?")
"""Dates and periods whose texts are in the order of time."""


def periods(values: pd.Series[Any], every: Period) -> Column:
    """Cut dates into periods, labelled in time order; those without a date in them are no windows.

    Parameters
    ----------
    values : Series
        Dates, or texts with ISO dates; times with an offset are taken in UTC.
    every : {"day", "week", "month", "quarter", "year"}
        A week is an ISO week, from Monday.

    Raises
    ------
    InputError
        If a value is no date; the message has its row.

    Examples
    --------
    >>> import pandas as pd
    >>> dates = pd.Series(["2013-02-03", "2012-12-31", "2013-02-04"], name="day")
    >>> periods(dates, "week").labels
    ('2013-W01', '2013-W05', '2013-W06')
    >>> periods(dates, "quarter").labels
    ('2012-Q4', '2013-Q1')
    """
    import pandas as pd

    texts = values if values.dtype.kind == "M" else values.astype(str)
    dates = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    bad = np.flatnonzero(dates.isna())
    if len(bad):
        raise InputError(
            f"window column {values.name!r}: row {bad[0] + 1} holds {str(values.iloc[bad[0]])!r}, which is no ISO "
            f"date ({len(bad)} such rows); write dates as 2013-02-01, or leave every= out"
        )
    year = dates.dt.year.map("{:04}".format)
    if every == "week":
        parts = dates.dt.isocalendar()
        texts = parts["year"].map("{:04}".format) + parts["week"].map("-W{:02}".format)
    elif every == "quarter":
        texts = year + dates.dt.quarter.map("-Q{}".format)
    else:
        texts = year if every == "year" else dates.dt.strftime("%Y-%m-%d" if every == "day" else "%Y-%m")
    return Column.of(texts)


def in_time(values: pd.Series[Any], order: Sequence[Any] | None = None) -> Column:
    """Make each value a window: numbers, dates, ISO periods, and names of months and weekdays in the order of time.

    Parameters
    ----------
    values : Series
    order : sequence, default None
        All values in the order of time; needed for other texts.

    Raises
    ------
    InputError
        If the order is not known, or `order` is not one of all values.

    Examples
    --------
    >>> import pandas as pd
    >>> in_time(pd.Series(["Mar", "Jan", "Feb", "Mar"])).labels
    ('Jan', 'Feb', 'Mar')
    >>> in_time(pd.Series(["pilot", "launch"], name="stage"))
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: window column 'stage': cannot tell the order in time of 'launch', 'pilot'; give order=
    with all values from the first to the last
    """
    import pandas as pd

    where = f"window column {values.name!r}"
    if order is None and isinstance(values.dtype, pd.CategoricalDtype) and values.dtype.ordered:
        return categories(values)
    if values.dtype.kind == "f" and (values % 1 == 0).all():
        values = values.astype("int64")
    column = Column.of(values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values)
    if order is None:
        numeric = values.dtype.kind in "biuf"
        return column if numeric else _arranged(column, _sorted(column.labels, where))
    given = [str(value) for value in order]
    if len(set(given)) < len(given):
        raise InputError(f"order={given}: holds a value twice")
    for value in given:
        if value not in column.labels:
            raise InputError(f"order: {where} has no value {value!r}{nearest(value, column.labels)}")
    absent = [label for label in column.labels if label not in given]
    if absent:
        raise InputError(f"order: lacks {', '.join(map(repr, absent[:5]))} of {where}; name all of its values")
    return _arranged(column, given)


def calendar_places(labels: Sequence[str]) -> list[int]:
    """Places of month or weekday names, whole or of three letters, in the calendar; empty for other names.

    Examples
    --------
    >>> calendar_places(["Mar", "January"]), calendar_places(["a"])
    ([2, 0], [])
    """
    words = [label.strip().lower() for label in labels]
    for names in (MONTHS, WEEKDAYS):
        known = {form: i for i, name in enumerate(names) for form in (name, name[:3])}
        if all(word in known for word in words):
            return [known[word] for word in words]
    return []


def _sorted(labels: Sequence[str], where: str) -> list[str]:
    if places := calendar_places(labels):
        if len(set(places)) < len(places):
            raise InputError(f"{where}: spells one name in two ways ({', '.join(labels)}); give each one spelling")
        return [label for _, label in sorted(zip(places, labels, strict=True))]
    shapes = {re.sub(r"\d", "0", label) for label in labels}
    if all(ISO.fullmatch(label) for label in labels) and len(shapes) == 1:
        return sorted(labels)
    ranked = in_order(list(labels))
    if ranked != sorted(labels) or all(re.fullmatch(r"\s*[+-]?\d+(\.\d*)?\s*", label) for label in labels):
        return ranked  # texts that are all numbers
    some = ", ".join(map(repr, labels[:3])) + (", …" if len(labels) > 3 else "")
    raise InputError(
        f"{where}: cannot tell the order in time of {some}; give order= with all values from the first to the last"
    )


def _arranged(column: Column, labels: Sequence[str]) -> Column:
    place = np.array([labels.index(label) for label in column.labels])
    return Column(column.codes.new_tensor(place[column.codes.numpy()]), tuple(labels))
