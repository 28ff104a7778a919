"""Data that are not what they seem: refused before work starts, or taken as they were meant."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cl_lib
from cl_lib import InputError, datasets, strategies, streams
from cl_lib.checks import toy_data
from cl_lib.datasets import Column, Dataset, from_arrays, from_frame
from cl_lib.report.html import write_report

RNG = np.random.default_rng(0)


def pair(labels: Any, each: int = 40, x: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    y = np.repeat(labels, each)
    return RNG.normal(size=(len(y), 6)).astype(np.float32) if x is None else x, y


def run(data: Dataset, stream: Any = None, **options: Any) -> cl_lib.Record:
    stream = streams.split(data, 2) if stream is None else stream
    return cl_lib.run(stream, strategies.ER(), **({"epochs": 1, "device": "cpu"} | options))


# ---------------------------------------------------------------------- labels
@pytest.mark.parametrize(("labels", "classes"), [([3, 7, 42, 50], 4), ([1, 2, 3], 3), ([0, 1, 2], 3), ([0, 2], 2)])
def test_the_labels_that_occur_are_the_classes(labels: list[int], classes: int) -> None:
    x, y = pair(labels)
    data = from_arrays((x, y), 0.25)
    assert data.classes == tuple(map(str, labels))
    names = [data.classes[c] for c in data.train.y.tolist() + data.test.y.tolist()]
    assert sorted(names) == sorted(map(str, y.tolist()))
    parts = from_arrays((x[::2], y[::2]), (x[1::2], y[1::2]))
    assert [parts.classes[c] for c in parts.test.y.tolist()] == list(map(str, y[1::2].tolist()))


def test_phantom_classes_do_not_dilute_the_class_wise_error() -> None:
    x, y = pair([0, 1, 2, 3])
    with_gaps = run(from_arrays((x, np.array([3, 7, 42, 50])[y]), 0.25))
    without = run(from_arrays((x, y), 0.25))
    assert with_gaps.metrics["classwise_ece"].per_seed == without.metrics["classwise_ece"].per_seed


def test_named_classes_keep_their_numbers() -> None:
    x, y = pair([0, 2])
    data = from_arrays((x, y), 0.25, classes=["a", "b", "c"])
    assert data.classes == ("a", "b", "c")
    assert set(data.train.y.tolist()) == {0, 2}
    with pytest.raises(InputError, match=r"y\[0\] is 3, outside \[0, 3\)"):
        from_arrays(pair([3, 4]), 0.25, classes=["a", "b", "c"])


def test_integer_class_names_are_printed() -> None:
    data = from_arrays(pair([0, 1, 2, 3]), 0.25, classes=[10, 20, 30, 40])  # type: ignore[list-item]
    assert "10, 20" in str(streams.split(data, 2))
    by_hand = Dataset("hand", data.train, data.test, (1, 2, 3, 4))  # type: ignore[arg-type]
    assert "1, 2" in str(streams.split(by_hand, 2))


def test_two_values_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"values 1 and '1' have the same name '1'"):
        Column.of([1, "1", 1])
    frame = pd.DataFrame({"x": range(8), "y": [1, "1"] * 4})
    with pytest.raises(InputError, match=r"column 'y': values .* have the same name '1'"):
        from_frame(frame, "y")


# ---------------------------------------------------------------------- values
def test_masked_arrays_are_refused() -> None:
    x, y = pair([0, 1])
    masked = np.ma.masked_array(x, mask=np.zeros_like(x, bool))
    assert len(from_arrays((masked, y), 0.25).train) == 60
    masked[3, 2] = np.ma.masked
    with pytest.raises(InputError, match=r"train: x has 1 masked values: fill them"):
        from_arrays((masked, y), 0.25)
    with pytest.raises(InputError, match=r"train: y has 2 masked values"):
        from_arrays((x, np.ma.masked_array(y, mask=np.arange(len(y)) < 2)), 0.25)


@pytest.mark.parametrize("part", ["train", "test"])
def test_values_beyond_float32_are_refused_before_training(part: str) -> None:
    x, y = pair([0, 1])
    parts = {"train": (x.astype(float), y), "test": (x.astype(float), y)}
    parts[part][0][5, 2] = 1e300
    data = from_arrays(parts["train"], parts["test"])
    with pytest.raises(InputError, match=rf"{part}: x contains 1e\+300 in sample 5, too large for float32"):
        run(data)
    small = from_arrays((x, y), (x * 1e10, y), std=1e-35)
    with pytest.raises(InputError, match=r"x contains .* too large for float32"):
        run(small)


def test_a_mean_that_rounding_would_lose_is_refused() -> None:
    x, y = pair([0, 1])
    data = from_arrays((x + 1.7e9, y), 0.25, mean=1.7e9)
    if data.train.x.dtype == torch.float32:  # NumPy rounded it itself
        data = from_arrays((x.astype(float) + 1.7e9, y), 0.25, mean=1.7e9)
    with pytest.raises(InputError, match=r"rounded to float32 before mean=1\.7e\+09 is subtracted.*dtype=float64"):
        run(data)
    assert run(data, dtype="float64").metrics["accuracy"].mean is not None
    run(from_arrays((x.astype(float) + 3, y), 0.25, mean=3.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: torch.tensor(x).to("meta"), r"x is a meta tensor: give a dense one"),
        (lambda x: torch.nested.as_nested_tensor(torch.tensor(x)), r"x is a nested tensor: give a dense one"),
        (lambda x: x[:, :0], r"x has shape \(\d+, .*0\): give samples of at least one value"),
        (lambda x: x[:, None, :0].astype(np.uint8), r"x has shape \(\d+, .*0\): give samples of at least one value"),
        (lambda x: torch.tensor(x).to_sparse(), r"x is sparse_coo: give a dense tensor"),
        (lambda x: torch.tensor(x).to(torch.float8_e4m3fn), r"x is torch\.float8_e4m3fn.*give x\.float\(\)"),
    ],
)
def test_tensors_of_other_kinds_are_refused(make: Any, message: str) -> None:
    x, y = pair([0, 1])
    with pytest.raises(InputError, match=message):
        from_arrays((make(x), y), (make(x), y))


# ---------------------------------------------------------------------- units and axes of images
def test_units_of_bytes_must_be_said_where_they_are_not_clear() -> None:
    y = np.repeat([0, 1], 20)
    pixels = RNG.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8)
    assert from_arrays((pixels, y), 0.25).std == (255.0,)
    with pytest.raises(InputError, match=r"std=\(0\.2, .* is for pixels in \[0, 1\], and x is uint8.*times 255"):
        from_arrays((pixels, y), 0.25, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    tokens = RNG.integers(0, 200, (40, 12)).astype(np.uint8)
    with pytest.raises(InputError, match=r"uint8 of shape \(\d+, 12\): give std=255 if these are pixels, std=1"):
        from_arrays((tokens, y), 0.25)
    assert from_arrays((tokens, y), 0.25, std=1.0).std == (1.0,)


@pytest.mark.parametrize(
    ("shape", "kind"), [((28, 28, 1), np.uint8), ((20, 24, 3), np.uint8), ((32, 32, 3), np.float32)]
)
def test_channels_last_is_refused(shape: tuple[int, ...], kind: Any) -> None:
    x, y = RNG.integers(0, 256, (40, *shape)).astype(kind), np.repeat([0, 1], 20)
    with pytest.raises(InputError, match=r"looks like images with channels last: give channels first"):
        from_arrays((x, y), 0.25)
    from_arrays((x.transpose(0, 3, 1, 2), y), 0.25)


# ---------------------------------------------------------------------- what identifies the data
def test_data_changed_in_place_are_other_data() -> None:
    x, y = pair([0, 1, 2, 3])
    data = from_arrays((x, y), (x.copy(), y))
    stream = streams.split(data, 2)
    first = run(data, stream)
    x[:] = -x
    assert run(data, stream).stream["data_hash"] != first.stream["data_hash"]


def test_data_changed_during_a_run_are_told() -> None:
    x, y = pair([0, 1, 2, 3])
    data = from_arrays((x, y), (x.copy(), y))

    class Changing:
        def log(self, row: cl_lib.Row) -> None:
            x[0] += 1

        def close(self) -> None:
            pass

    with pytest.warns(UserWarning, match=r"data arrays: changed during the run"):
        assert run(data, loggers=[Changing()]).metrics["accuracy"].mean is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(data)


def test_float_data_are_read_at_most_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their check, their hash, and their hash again at the end."""
    data = from_arrays(pair([0, 1, 2, 3]), 0.25)
    calls = {"check": 0, "hash": 0}
    fingerprint, check = Dataset.fingerprint, cl_lib.harness.job.check_range

    def counted(name: str, function: Any) -> Any:
        def call(*given: Any) -> Any:
            calls[name] += 1
            return function(*given)

        return call

    monkeypatch.setattr(Dataset, "fingerprint", counted("hash", fingerprint))
    monkeypatch.setattr("cl_lib.harness.job.check_range", counted("check", check))
    run(data)
    assert calls == {"check": 1, "hash": 2}


def test_mean_std_and_columns_identify_a_run(tmp_path: Any) -> None:
    x, y = pair([0, 1, 2, 3])
    site = np.arange(len(y)) % 2
    first = from_arrays((x, y), 0.25, std=16.0, columns={"site": site})
    run(first, out=tmp_path / "a")
    for changed in (
        from_arrays((x, y), 0.25, std=160.0, columns={"site": site}),
        from_arrays((x, y), 0.25, std=16.0, columns={"site": 1 - site}),
        from_arrays((x, y), 0.25, std=16.0, columns={"place": site}),
    ):
        with pytest.raises(InputError, match=r"with other options \(stream\.(std|column_hash)"):
            run(changed, out=tmp_path / "a", resume=True)
    said = cl_lib.report.table.notes([run(first), run(from_arrays((x, y), 0.25, std=160.0, columns={"site": site}))])
    assert any("std" in note for note in said)


# ---------------------------------------------------------------------- slice columns
@pytest.mark.parametrize("name", ["class", "experience", "age"])
def test_names_of_our_own_slicings_are_refused(name: str) -> None:
    x, y = pair([0, 1, 2, 3])
    with pytest.raises(InputError, match=rf"column '{name}' has the name of a slicing that every record has.*rename"):
        from_arrays((x, y), 0.25, columns={name: y})
    with pytest.raises(InputError, match=rf"column '{name}' has the name of a slicing"):
        from_frame(pd.DataFrame({"x": x[:, 0], "y": y, name: y}), "y", slices=name)
    made = from_arrays((x, y), 0.25, columns={"site": y})
    train, test = (type(p)(p.x, p.y, {name: p.columns["site"]}) for p in (made.train, made.test))
    with pytest.raises(InputError, match=rf"column '{name}' has the name of a slicing"):
        run(Dataset("hand", train, test, made.classes))


@pytest.mark.parametrize("name", ["home.site", "a.b.c", 7, "_hidden", "site/2", "bins", "x.count"])
def test_other_names_work_to_the_report(name: Any, tmp_path: Any) -> None:
    x, y = pair([0, 1, 2, 3])
    data = from_arrays((x, y), 0.25, columns={name: np.where(np.arange(len(y)) % 2, "u", "v")})
    record = run(data, grid={"optim.lr": [0.05, 0.1]}, seeds=2, out=tmp_path / "a")
    assert record.slices[str(name)]["labels"] == ["u", "v"]
    write_report([cl_lib.Record.load(tmp_path / "a")], tmp_path / "report.html")
    stream = streams.by_column(data, name)
    assert stream.columns == ("u", "v")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"": "ab"}, "blank name"),
        ({"  ": "ab"}, "blank name"),
        ({1: "ab", "1": "ab"}, "two columns have the name '1'"),
        ({("a",): "ab"}, "has a tuple as name"),
        ({"s": [[1], [2]]}, "column value 0 is a list"),
        ({"s": ["a", pd.NA]}, "column value 1 is missing"),
        ({"s": ["a", pd.NaT]}, "column value 1 is missing"),
        ({"s": ["a", None]}, "column value 1 is missing"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns: dict[Any, Any], message: str) -> None:
    values = {name: list(own) * 40 for name, own in columns.items()}
    with pytest.raises(InputError, match=message):
        from_arrays(pair([0, 1]), 0.25, columns=values)


# ---------------------------------------------------------------------- by_column
@pytest.mark.parametrize("months", [9, 12, 53])
@pytest.mark.parametrize("kind", ["frame", "arrays", "texts", "floats"])
def test_an_experience_for_each_whole_number(months: int, kind: str) -> None:
    month = np.tile(np.arange(1, months + 1), 12)
    x, y = RNG.normal(size=(len(month), 3)), np.arange(len(month)) // months % 2
    if kind in ("frame", "floats"):
        values = month if kind == "frame" else month.astype(float)
        frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y, "month": values})
        data = from_frame(frame, "y", slices="month", test=0.4)
    else:
        values = month.astype(str) if kind == "texts" else month
        data = from_arrays((x, y), 0.4, columns={"month": values})
    stream = streams.by_column(data, "month")
    assert stream.columns == tuple(map(str, range(1, months + 1)))
    assert "problems" not in str(streams.check_stream(stream))


def test_ages_are_still_sliced_by_quartiles() -> None:
    frame = pd.DataFrame({"a": RNG.normal(size=90), "y": np.arange(90) % 2, "years": np.arange(90)})
    assert len(from_frame(frame, "y", slices="years").test.columns["years"].labels) == 4


def test_points_in_time_are_dates() -> None:
    days = np.array(["2024-03-01", "2024-02-29"], dtype="datetime64[ns]").repeat(20)
    data = from_arrays(pair([0, 1], 20), 0.25, columns={"day": days})
    assert data.test.columns["day"].labels == ("2024-02-29", "2024-03-01")
    frame = pd.DataFrame({"a": np.arange(40.0), "y": np.arange(40) % 2, "day": days})
    assert from_frame(frame, "y", slices="day").test.columns["day"].labels == ("2024-02-29", "2024-03-01")


# ---------------------------------------------------------------------- streams
@pytest.mark.parametrize(
    "make",
    [
        lambda d: streams.split(d, 2),
        lambda d: streams.permuted(d, 2),
        lambda d: streams.online(streams.split(d, 2), 20),
        lambda d: streams.blurry(streams.split(d, 2), 0.3),
        lambda d: streams.online(streams.blurry(streams.split(d, 2), 0.3), 20),
    ],
)
def test_streams_can_be_pickled(make: Any) -> None:
    stream = make(toy_data())
    again = pickle.loads(pickle.dumps(stream))
    for a, b in zip(stream.realise(3).experiences, again.realise(3).experiences, strict=True):
        assert torch.equal(a.train, b.train)
        assert torch.equal(a.task, b.task)


def test_check_stream_reads_bfloat16() -> None:
    x, y = pair([0, 1, 2, 3])
    half = torch.tensor(x).bfloat16()
    report = streams.check_stream(streams.split(from_arrays((half, y), (half, y)), 2))
    assert report.train_test_duplicates == len(y)


def test_cope_needs_a_memory() -> None:
    with pytest.raises(InputError, match=r"strategy\.memory\.capacity=0"):
        cl_lib.run(streams.split(datasets.digits()), strategies.CoPE(cl_lib.Memory(0, 8)), device="cpu")


# ---------------------------------------------------------------------- more of the same kinds
def test_masked_items_and_normalisation_are_refused() -> None:
    x, y = pair([0, 1])
    rows = np.ma.masked_array(x, mask=np.zeros_like(x, bool))
    assert len(datasets.from_torch(list(zip(rows, y, strict=True)), [(rows[0], 1)]).train) == 80
    rows[3, 2] = np.ma.masked
    with pytest.raises(InputError, match=r"torch, train: x of item 3 has masked values: fill them"):
        datasets.from_torch(list(zip(rows, y, strict=True)), [(x[0], 1)])
    labels = [np.ma.masked_array(label, mask=i == 5) for i, label in enumerate(y)]
    with pytest.raises(InputError, match=r"torch, train: y of item 5 is masked: fill it"):
        datasets.from_torch(list(zip(x, labels, strict=True)), [(x[0], 1)])
    with pytest.raises(InputError, match=r"arrays: mean has masked values"):
        from_arrays((x, y), 0.25, mean=np.ma.masked_array(np.ones(6), mask=np.arange(6) == 1))  # type: ignore[arg-type]


def test_masked_tensors_are_refused() -> None:
    x, y = pair([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are a prototype
        masked = torch.masked.masked_tensor(torch.tensor(x), torch.tensor(x) > 0)
    with pytest.raises(InputError, match=r"x is a MaskedTensor: fill the masked values"):
        from_arrays((masked, y), 0.25)


def test_gaps_in_labels_of_torch_data_sets_and_files(tmp_path: Any) -> None:
    x, y = pair([3, 7, 42, 50])
    for y_test in (y, y[:1]):  # train and test together decide
        data = datasets.from_torch(list(zip(x, y.tolist(), strict=True)), [(x[0], int(v)) for v in y_test])
        assert data.classes == ("3", "7", "42", "50")
    for name, array in {"x_train": x[:120], "y_train": y[:120], "x_test": x[120:], "y_test": y[120:]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    stored = datasets.npy(tmp_path)
    assert stored.classes == ("3", "7", "42", "50")
    assert set(stored.test.y.tolist()) == {3}


@pytest.mark.parametrize("values", [[True, 1], [1.0, "1"], [np.int64(2), "2"], ["0", False], [np.True_, "1"]])
def test_one_class_in_two_types_is_refused(values: list[object]) -> None:
    frame = pd.DataFrame({"x": np.arange(8.0), "y": pd.Series(values * 4, dtype=object)})
    with pytest.raises(InputError, match=r"column 'y': values .* and .* (have the same name|name the same class)"):
        from_frame(frame, "y")


def test_one_class_in_two_types_of_number_is_one() -> None:
    frame = pd.DataFrame({"x": np.arange(8.0), "y": pd.Series([1, 1.0, 10**400, "a"] * 2, dtype=object)})
    assert len(from_frame(frame, "y").classes) == 3


@pytest.mark.parametrize("scale", [1, 10**6])
def test_a_column_that_rounding_would_lose_is_refused(scale: int) -> None:
    seconds = 1_700_000_000 + np.arange(80) % 7
    frame = pd.DataFrame({"a": seconds * scale, "y": np.arange(80) % 2})
    with pytest.raises(InputError, match=r"column 'a': rounding to float32 changes it by .* subtract an offset"):
        from_frame(frame, "y")
    frame["a"] -= 1_700_000_000 * scale
    assert from_frame(frame, "y").train.x.max() == 6 * scale


def test_columns_that_rounding_leaves_alone_are_taken() -> None:
    years = pd.DataFrame({"year": 2000 + np.arange(80) % 20, "id": 2**24 - np.arange(80), "y": np.arange(80) % 2})
    ids = from_frame(years, "y", features="id").train
    assert torch.equal(ids.x[:, 0].long() % 2, ids.y)
    assert from_frame(years, "y", features="year").train.x.max() == 2019
    constant = pd.DataFrame({"a": [0.1, 0.1 + 2e-17, 0.1 + 1.5e-17] * 20, "y": np.arange(60) % 2})
    assert from_frame(constant, "y").std == (1.0,)
    x, y = pair([0, 1])
    run(from_arrays((np.round(x.astype(float)) + 2e6, y), 0.25, mean=2e6))  # needs no rounding


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (1, {"mean": 1e300}, r"mean\[0\] is 1e\+300, too large for float32"),
        (1, {"std": 1e-60}, r"std\[0\] is 1e-60, out of the range of float32"),
        (1, {"std": 1e300}, r"std\[0\] is 1e\+300, out of the range of float32"),
        (1, {"std": 1e-39}, r"train: x contains 1 in sample 0, too large for float32"),
    ],
)
def test_normalisation_beyond_float32_is_refused(value: int, options: dict[str, float], message: str) -> None:
    y = np.repeat([0, 1], 20)
    with pytest.raises(InputError, match=message):
        run(
            from_arrays(
                (np.full((40, 1, 2, 2), value, np.uint8), y), 0.25, mean=options.get("mean"), std=options.get("std")
            )
        )


def test_a_difference_beyond_float32_is_refused() -> None:
    x = np.where(np.arange(80) % 3, 3e38, -3e38).astype(np.float32)
    with pytest.raises(InputError, match=r"x contains -3e\+38 in sample 0, too large for float32"):
        run(from_arrays((x[:, None], np.repeat([0, 1], 40)), (x[:, None], np.repeat([0, 1], 40)), mean=1e38, std=3e38))


FRACTIONS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("shape", "kind", "options"),
    [
        ((3, 8, 8), np.uint8, FRACTIONS),
        ((3, 8, 8), np.uint8, {"mean": FRACTIONS["mean"]}),
        ((3, 8, 8), np.uint8, {"mean": 0.5, "std": 1.0}),
        ((1, 8, 8), np.uint8, {"mean": 0.5, "std": 0.5}),
        ((8, 8), np.uint8, {"mean": 0.1307, "std": 0.3081}),
        ((64,), np.uint8, {"mean": 0.1307, "std": 0.3081}),
        ((3, 8, 8), np.float32, FRACTIONS),
        ((64,), np.float64, {"mean": 0.1307, "std": 0.3081}),
    ],
)
def test_pixels_with_fractions_as_normalisation_are_refused(shape: Any, kind: Any, options: Any) -> None:
    x = np.zeros((1200, *shape), kind)
    x[1100:] = RNG.integers(0, 256, (100, *shape))
    x[0] = x[1199]
    y = np.arange(1200) % 2
    with pytest.raises(InputError, match=r"is for pixels in \[0, 1\], and x is .* in \[0, 255\].*times 255"):
        from_arrays((x, y), (x, y), **options)
    times = {key: tuple(255 * v for v in np.atleast_1d(values)) for key, values in options.items()}
    assert len(from_arrays((x, y), (x, y), **times).train) == 1200


@pytest.mark.parametrize(
    ("most", "shape", "kind", "options"),
    [
        (2, (1, 8, 8), np.uint8, {"mean": 0.5, "std": 0.5}),  # bits
        (40, (1, 8, 8), np.uint8, {"mean": 0.0, "std": 1.0}),  # codes
        (40, (1, 8, 8), np.uint8, {"mean": 0.3, "std": 4.0}),  # mostly black
        (9, (12,), np.uint8, {"mean": 0.5, "std": 0.9}),  # counts
        (9, (1, 8, 8), np.float32, {"mean": 0.5, "std": 0.9}),
        (256, (2,), np.uint8, {"mean": (0.5, 99.0), "std": (0.2, 0.7)}),  # features of their own
    ],
)
def test_small_deviations_of_other_data_are_taken(most: int, shape: Any, kind: Any, options: Any) -> None:
    x, y = RNG.integers(0, most, (40, *shape)).astype(kind), np.repeat([0, 1], 20)
    assert len(from_arrays((x, y), (x, y), **options).train) == 40


def test_data_sets_made_by_hand_pass_the_same_gate() -> None:
    y = torch.arange(40) % 4
    pixels = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8)
    last, first = (datasets.Samples(x, y) for x in (pixels, pixels.permute(0, 3, 1, 2)))
    with pytest.raises(InputError, match=r"hand: x of shape \(40, 8, 8, 3\) looks like images with channels last"):
        run(Dataset("hand", last, last, tuple("abcd"), std=(255.0,)))
    with pytest.raises(InputError, match=r"hand: std=\(0\.229, .* is for pixels in \[0, 1\]"):
        run(Dataset("hand", first, first, tuple("abcd"), **FRACTIONS))  # type: ignore[arg-type]


def test_images_are_not_rotated_about_a_channel() -> None:
    y = np.repeat([0, 1], 20)
    data = from_arrays((RNG.normal(size=(40, 16, 20, 3)).astype(np.float32), y), 0.25)  # may be a sequence
    with pytest.raises(InputError, match=r"stream rotated: arrays has \(16, 20, 3\), which looks like channels last"):
        streams.rotated(data, 2)


def test_numpy_numbers_are_numbers() -> None:
    x, y = pair([0, 1, 2, 3])
    given = from_arrays((x, y), np.float32(0.25), seed=np.int64(3), std=np.float32(2))  # type: ignore[arg-type]
    assert given.fingerprint() == from_arrays((x, y), 0.25, seed=3).fingerprint()
    assert datasets.digits(np.float32(0.25)).fingerprint() == datasets.digits().fingerprint()  # type: ignore[arg-type]
    frame = pd.DataFrame({"a": x[:, 0], "y": y})
    assert len(from_frame(frame, "y", test=np.float16(0.25)).test) == 40  # type: ignore[arg-type]
    split = streams.split(given, 2)
    assert streams.online(split, np.int64(20)).length == streams.online(split, 20).length  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1.5}, r"seed is 1\.5: must be a whole number"),
        ({"seed": 2**70}, r"seed is 1180591620717411303424: must be a whole number of at most 64 bits"),
        ({"std": []}, r"std has 0 values: give 1, or 6"),
        ({"classes": 2}, r"classes=2: give a name for each class"),
        ({"classes": ["a", "a"]}, r"arrays: classes contains 'a' more than once: give every class a different name"),
        ({"classes": [1, "1"]}, r"arrays: classes contains '1' more than once"),
        ({"mean": "a"}, r"mean='a': must be a number, or one for each channel"),
        ({"std": [[1], [2, 3]]}, r"std=.*: must be a number, or one for each channel"),
    ],
)
def test_options_that_are_no_numbers_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(pair([0, 1]), 0.25, **options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, None, 1], r"train: y is missing in sample 2 \(None\): leave out that sample"),
        ([0, 1, pd.NA, 1], r"train: y is missing in sample 2 \(<NA>\)"),
        ([0, float("nan"), "a", 1], r"train: y is missing in sample 1 \(nan\)"),
        ([1, "1", 1, 1], r"train: y contains 1 and '1', of two types: give numbers"),
        ([1, True, 1, 1], r"train: y contains 1 and True, of two types"),
        ([0, 1, 0, 1], r"train: y is an array of object: give numbers"),
    ],
)
def test_what_is_wrong_with_labels_is_said(labels: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays((np.zeros((4, 2), np.float32), np.array(labels, object)), 0.25)


def test_missing_values_are_placed() -> None:
    x, y = np.zeros((4, 2, 3), object), np.array([0, 1, np.nan, 1])
    x[2, 1, 0] = None
    with pytest.raises(InputError, match=r"train: x is missing in sample 2 \(None\)"):
        from_arrays((x, y), 0.25)
    with pytest.raises(InputError, match=r"train: y\[2\] is nan: leave out the samples without a label"):
        from_arrays((x.astype(bool).astype(np.float32), y), 0.25)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_found(dtype: torch.dtype, value: float) -> None:
    x, y = torch.zeros(6, 2, 3, dtype=dtype), torch.arange(6) % 2
    x[4, 1, 2] = x[5, 0, 0] = value
    with pytest.raises(InputError, match=r"test: x contains 2 non-finite values .* first in sample 4"):
        from_arrays((torch.zeros_like(x), y), (x, y))


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (4, 1, 0, 2)])
def test_nothing_has_no_units(shape: tuple[int, ...]) -> None:
    part = np.zeros(shape, np.uint8), np.zeros(shape[0], int)
    with pytest.raises(InputError, match=r"train: (there are no samples|x has shape)"):
        from_arrays(part, part, mean=0.5)


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match=r"frame: there are no samples: give at least one row"):
        from_frame(pd.DataFrame({"a": np.zeros(0), "y": np.zeros(0, int)}), "y")
