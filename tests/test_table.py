"""Tables in files: windows in the order of time, text features, and every way a table can be wrong."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cl_lib.cli.main import _bench
from cl_lib.datasets import Dataset, from_frame, table
from cl_lib.datasets.periods import in_time, periods
from cl_lib.datasets.split import stratified_split
from cl_lib.datasets.table_files import features_of
from cl_lib.errors import InputError
from cl_lib.streams import by_column, check_stream

N = 12 * 80
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@pytest.fixture
def frame() -> pd.DataFrame:
    """A year of 80 rows in each month, in random order."""
    rng = np.random.default_rng(0)
    month = np.repeat(np.arange(12), N // 12)
    rows = pd.DataFrame(
        {
            "day": [f"2013-{m + 1:02}-{d:02}" for m, d in zip(month, rng.integers(1, 29, N), strict=True)],
            "month": np.array(MONTHS)[month],
            "number": month + 1,
            "stage": np.where(month < 4, "pilot", np.where(month < 8, "launch", "growth")),
            "wind": rng.normal(10.0, 2.0, N) + month,
            "wet": rng.random(N) < 0.5,
            "carrier": rng.choice(["UA", "AA", "WN"], N, p=[0.6, 0.3, 0.1]),
            "late": np.where(rng.random(N) < 0.3, "late", "on time"),
        }
    )
    return rows.sample(frac=1, random_state=0, ignore_index=True)


def saved(frame: pd.DataFrame, folder: Path, name: str = "trips.csv") -> Path:
    frame.to_csv(folder / name, index=False)
    return folder / name


def made(frame: pd.DataFrame, folder: Path, **options: Any) -> Dataset:
    return table(saved(frame, folder), **{"target": "late", "features": ["wind"], **options})


def windows(data: Dataset, column: str) -> dict[str, int]:
    both = torch.cat([part.columns[column].codes for part in (data.train, data.test)]).bincount().tolist()
    return dict(zip(data.train.columns[column].labels, both, strict=True))


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"window": "month"}, MONTHS),
        ({"window": "number"}, [str(m) for m in range(1, 13)]),
        ({"window": "stage", "order": ["pilot", "launch", "growth"]}, ["pilot", "launch", "growth"]),
        ({"window": "day", "every": "month"}, [f"2013-{m:02}" for m in range(1, 13)]),
        ({"window": "day", "every": "quarter"}, [f"2013-Q{q}" for q in range(1, 5)]),
    ],
)
def test_experiences_are_in_the_order_of_time(
    frame: pd.DataFrame, tmp_path: Path, options: dict[str, Any], labels: list[str]
) -> None:
    data = made(frame, tmp_path, **options)
    assert windows(data, options["window"]) == dict.fromkeys(labels, N // len(labels))
    stream = by_column(data, options["window"], valid=0.1)
    assert stream.columns == tuple(labels)
    check_stream(stream)
    means = [data.train.x[e.train].mean() for e in stream.realise(0).experiences]
    assert means == sorted(means)  # the wind rises with the months


def test_every_window_has_its_share_of_each_class(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = made(frame, tmp_path, window="number", test=0.2)
    for w in range(12):
        for y in (0, 1):
            train, test = (
                int(((part.columns["number"].codes == w) & (part.y == y)).sum()) for part in (data.train, data.test)
            )
            assert test == round(0.2 * (train + test))


def test_a_given_test_column_is_the_test_part(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = made(frame.assign(held=np.arange(N) % 3 == 0), tmp_path, test="held", window="number")
    assert torch.equal(data.test.x[:, 0], torch.tensor(frame["wind"][::3].to_numpy(dtype=np.float32)))
    frame["held"] = frame["number"] == 5
    with pytest.raises(InputError, match="window column 'number': window 5 has no train rows; each needs train and"):
        made(frame, tmp_path, test="held", window="number")


def test_weeks_are_iso_weeks_and_gaps_are_no_windows() -> None:
    dates = pd.Series(["2021-01-03", "2021-01-04", "2020-12-27", "2020-12-28", "2021-03-01T12:00"])
    column = periods(dates, "week")
    assert column.labels == ("2020-W52", "2020-W53", "2021-W01", "2021-W09")
    assert column.codes.tolist() == [1, 2, 0, 1, 3]
    assert periods(dates, "year").labels == ("2020", "2021")
    assert periods(dates, "day").labels[-1] == "2021-03-01"
    assert periods(pd.to_datetime(dates.str[:10]), "week").codes.tolist() == column.codes.tolist()
    assert periods(pd.Series([20130105, 20130206]), "month").labels == ("2013-01", "2013-02")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["10", "9", "1"], ("1", "9", "10")),
        ([2.0, 10.0, 1.0], ("1", "2", "10")),
        ([0.5, 10.0, 1.0], ("0.5", "1.0", "10.0")),
        (["2013-W10", "2013-W09", "2012-W52"], ("2012-W52", "2013-W09", "2013-W10")),
        (["2013-Q2", "2012-Q4"], ("2012-Q4", "2013-Q2")),
        (["sunday", "Monday", "friday"], ("Monday", "friday", "sunday")),
        (["May", "april"], ("april", "May")),
        (pd.Categorical(["b", "a"], ["b", "a"], ordered=True), ("b", "a")),
        (pd.to_datetime(["2013-02-01", "2012-12-01"]), ("2012-12-01", "2013-02-01")),
    ],
)
def test_values_in_time(values: Any, labels: tuple[str, ...]) -> None:
    series = pd.Series(values, name="when")
    column = in_time(series)
    assert column.labels == labels
    assert [column.labels[c] for c in column.codes] == [in_time(series, labels).labels[c] for c in column.codes]


def test_text_features_become_indicators_of_the_most_frequent_values(frame: pd.DataFrame, tmp_path: Path) -> None:
    options = {"features": ["carrier", "wind", "wet"], "window": "number", "slices": ["carrier", "stage"]}
    data = made(frame, tmp_path, **options)
    assert data.shape == (5,)  # AA, UA, WN, wind, wet
    labels = data.train.columns["carrier"].labels
    assert labels == ("AA", "UA", "WN")
    assert torch.equal(data.train.x[:, :3].argmax(1), data.train.columns["carrier"].codes)
    assert (data.mean[:3], data.std[:3], data.mean[4], data.std[4]) == ((0.0,) * 3, (1.0,) * 3, 0.0, 1.0)
    assert list(data.test.columns) == ["number", "carrier", "stage"]
    fewer = made(frame, tmp_path, max_categories=2, **options)
    assert fewer.shape == (5,)  # AA, UA, other
    assert torch.equal(fewer.train.x[:, 2] == 1, data.train.columns["carrier"].codes == 2)
    with pytest.raises(
        InputError, match=r"'day' is text with \d+ values, of which the 50 most frequent cover \d+ of 960"
    ):
        made(frame, tmp_path, features=["day"])


def test_mean_and_std_use_the_first_four_windows(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["steady"] = np.where(frame["number"] > 6, frame["wind"], 1.0)
    data = made(frame, tmp_path, window="number", features=["wind", "steady"])
    codes = data.train.columns["number"].codes
    x = data.train.x.double()
    assert data.mean == pytest.approx((float(x[codes < 4, 0].mean()), float(x[:, 1].mean())))
    assert data.std == pytest.approx((float(x[codes < 4, 0].std(correction=0)), float(x[:, 1].std(correction=0))))


def test_without_a_window_it_is_from_frame(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = made(frame, tmp_path, slices="stage", seed=3)
    other = from_frame(pd.read_csv(tmp_path / "trips.csv"), "late", features="wind", slices="stage", seed=3)
    assert data.fingerprint() == other.fingerprint()
    assert data.column_fingerprint() == other.column_fingerprint()
    assert data.mean == pytest.approx(other.mean)
    assert data.name == "trips"


def test_default_features_are_the_columns_without_a_role(frame: pd.DataFrame, tmp_path: Path) -> None:
    rest = frame.drop(columns=["day", "month"])
    data = made(rest, tmp_path, features=None, window="number", slices="stage")
    assert data.shape == (1 + 1 + 3,)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zip", "a.parquet"])
def test_other_files(frame: pd.DataFrame, tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
        frame.to_parquet(tmp_path / name)
    else:
        saved(frame, tmp_path, name)
    data = table(tmp_path / name, "late", features="wind", window="month", name="trips")
    assert data.fingerprint() == made(frame, tmp_path, window="month").fingerprint()


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: Any, **options: Any) -> None:
        raise ImportError

    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(pd, "read_parquet", absent)
    with pytest.raises(InputError, match=r"a\.parquet: Parquet needs pyarrow; pip install pyarrow, or give a CSV file"):
        table(tmp_path / "a.parquet", "late")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "lat"}, r"target='lat': there is no such column; did you mean late\?"),
        ({"window": "mnth"}, r"window='mnth': there is no such column; did you mean month\?"),
        ({"slices": ["carrer"]}, r"slices='carrer': there is no such column; did you mean carrier\?"),
        ({"features": ["winds"]}, r"features='winds': there is no such column; did you mean wind\?"),
        ({"test": "wett"}, r"test='wett': there is no such column; did you mean wet\?"),
        (
            {"test": "wind", "features": "number"},
            r"test='wind': the column is float64; name a boolean one, true in test rows",
        ),
        ({"test": 2.0}, r"test is 2.0: give the fraction"),
        ({"test": "late"}, r"test='late': is the target or the window"),
        ({"features": ["wind", "late"]}, r"features: name 'late', which is the target; leave it out"),
        ({"window": "number", "features": ["number"]}, r"features: name 'number', which is the window; leave it out"),
        ({"window": "late"}, r"target='late': is also the window or a slice"),
        ({"target": "wind", "features": ["number"]}, r"target 'wind' has 960 values that are not classes"),
        ({"every": "week"}, r"every: cuts a window column; name it in window="),
        ({"window": "day", "every": "fortnight"}, r"every='fortnight': must be one of day, week, month, quarter, year"),
        ({"window": "day", "every": "week", "order": ["a"]}, r"order: every= puts dates in their order; leave one"),
        ({"window": "carrier", "every": "week"}, r"'carrier': row 1 holds '..', which is no ISO date \(960 such rows"),
        ({"window": "wet"}, r"'wet': has 2 windows \(False, True\); a stream in time needs 3 or more"),
        ({"window": "day", "every": "day"}, r"'day': window 2013-01-01 has \d samples \(and \d+ more\); each needs 50"),
        ({"window": "stage"}, r"cannot tell the order in time of 'growth', 'launch', 'pilot'; give order= with all"),
        ({"window": "stage", "order": ["pilot", "lunch", "growth"]}, r"has no value 'lunch'; did you mean launch\?"),
        (
            {"window": "stage", "order": ["pilot"]},
            r"order: lacks 'growth', 'launch' of window column 'stage'; name all",
        ),
        ({"window": "stage", "order": ["pilot", "pilot"]}, r"order=.*: holds a value twice"),
        ({"max_categories": 0}, r"max_categories=0: must be a whole number, 1 or more"),
        ({"features": []}, r"there are no feature columns"),
    ],
)
def test_wrong_options(frame: pd.DataFrame, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        made(frame, tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_wrong_values(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[[4, 7], "wind"] = np.nan
    with pytest.raises(InputError, match="features: column 'wind' has 2 missing values; fill them in or drop those"):
        made(frame, tmp_path)
    two = "features: column 'wind' has 2 missing values, column 'number' has 1 missing values; fill"
    with pytest.raises(InputError, match=two):
        made(
            frame.assign(number=frame["number"].astype(float).where(frame.index != 3)),
            tmp_path,
            features=["wind", "number"],
        )
    frame["wind"] = 1.0 + frame["number"]
    frame.loc[6, "day"] = "2013-02-30"
    with pytest.raises(InputError, match=r"row 7 holds '2013-02-30', which is no ISO date .1 such rows.; write dates"):
        made(frame, tmp_path, window="day", every="month")
    frame.loc[3, "month"] = "February"
    with pytest.raises(InputError, match=r"'month': spells one name in two ways .*February"):
        made(frame, tmp_path, window="month")
    with pytest.raises(InputError, match="feature 'day' holds dates; name it in window=, or leave it out"):
        features_of(pd.DataFrame({"day": pd.to_datetime(["2013-01-01"])}), 50)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, r"there is no such file; name one that ends in \.csv, \.csv\.gz, \.csv\.zip, \.parquet"),
        ("a.xlsx", b"x", r"must end in \.csv, "),
        ("a.csv", b"", r"a\.csv: not a readable table \(No columns"),
        ("a.csv", b"late,wind\n", r"a\.csv: holds no rows; give at least one"),
        ("a.csv", b"late,wind\n1,2\n1,2,3,4\n", r"a\.csv: not a readable table \(.*line 3"),
        ("a.csv", b"late,wind,wind\n1,2,3\n", r"a\.csv: 2 columns are named 'wind'; rename all but one"),
        ("a.csv", b"\xff\xfe\x00", r"a\.csv: not a readable table"),
        ("a.csv.gz", b"no archive", r"a\.csv\.gz: not a readable table"),
        ("a.csv.zip", b"no archive", r"a\.csv\.zip: not a readable table"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        table(tmp_path / name, "late", features=["wind"])
    with pytest.raises(InputError, match=r"path=None: name a file that ends in \.csv"):
        table(None, "late")  # type: ignore[arg-type]


def test_the_split_is_that_of_before() -> None:
    y = torch.randint(0, 7, (500,), generator=torch.Generator().manual_seed(0))
    generator, held = torch.Generator().manual_seed(5), torch.zeros(500, dtype=torch.bool)
    for label in range(7):
        members = (y == label).nonzero().flatten()
        held[members[torch.randperm(len(members), generator=generator)[: round(0.3 * len(members))]]] = True
    assert torch.equal(stratified_split(y, 0.3, 5)[1], held.nonzero().flatten())


def test_command_line(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(frame, tmp_path), tmp_path / "run"
    argv = ["stream=table_by_window", f"data.path={path}", "data.target=late", "data.features=[wind]", "seeds=1"]
    argv += ["strategy=finetune", "epochs=1", "progress=false", "data.slices=[carrier]", f"out={out}"]
    assert _bench([*argv, "data.window=day", "data.every=quarter", "stream.valid=0.1"]) == 0
    assert "finetune on trips_by_day: domain-incremental, 4 experiences, 2 classes" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"stream\.column \(data\.window\): must be given"):
        _bench(argv)
    for name, message in (
        ("path", "path=None: name a file that ends in"),
        ("target", "stream.data.target: must be given"),
    ):
        left = [option for option in argv if not option.startswith(f"data.{name}=")]
        with pytest.raises(InputError, match=re.escape(message)):
            _bench([*left, "data.window=day"])
    with pytest.raises(InputError, match=r"data\.windo: unknown option; did you mean .*data\.window"):
        _bench([*argv, "data.windo=day"])
