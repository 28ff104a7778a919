"""Saved predictions: they change nothing else, everything else follows from them, and damaged files are refused."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_lib
from cl_lib import metrics, strategies, streams
from cl_lib.checks import toy_data
from cl_lib.datasets import Dataset, from_arrays
from cl_lib.errors import InputError
from cl_lib.harness import evaluate
from cl_lib.harness.session import Interrupted, Session
from cl_lib.metrics import flip_rate, next_experience
from cl_lib.record import Record
from cl_lib.record.predictions import Predictions
from cl_lib.service import history_of

MODEL = cl_lib.models.MLP.factory(hidden=(8,))
UNEQUAL = toy_data(each=[36, 44, 60, 80])


def by_month(classes: int = 3) -> Dataset:
    """Four months with drifting centres, a site as a slice, 7 samples above a multiple of 8."""
    rng = np.random.default_rng(0)
    month = np.repeat(np.arange(4), 120)
    y = rng.integers(0, classes, len(month))
    x = rng.normal(size=(len(y), 5)) + y[:, None] * (1 - 0.4 * month[:, None])
    test = np.arange(len(y)) % 2 == 0
    test[0] = False
    columns = {
        "month": (month[~test].astype(str), month[test].astype(str)),
        "site": (rng.choice(["a", "b", "c.d"], (~test).sum()), rng.choice(["a", "b", "c.d"], test.sum())),
    }
    parts = ((x[part].astype(np.float32), y[part]) for part in (~test, test))
    return from_arrays(*parts, columns=columns, name="months")


DATA = by_month()
IMAGES = cl_lib.datasets.digits()
CASES: dict[str, Callable[[], tuple[Any, Any, dict[str, Any]]]] = {
    "by_column": lambda: (streams.by_column(DATA, "month"), strategies.Finetune(), {"seeds": 3}),
    "several_groups": lambda: (
        streams.split(UNEQUAL, 2, class_order="seed"),
        strategies.ER(cl_lib.Memory(20, 8)),
        {"seeds": 4},
    ),
    "grid": lambda: (
        streams.by_column(DATA, "month"),
        strategies.EWC(),
        {"seeds": 2, "grid": {"strategy.lam": [1.0, 3.0]}},
    ),
    "valid": lambda: (
        streams.by_column(DATA, "month", valid=0.3),
        strategies.Finetune(),
        {"seeds": 2, "eval_on": "valid"},
    ),
    "valid_groups": lambda: (
        streams.split(UNEQUAL, 2, class_order="seed", valid=0.25),
        strategies.Finetune(),
        {"seeds": 3, "eval_on": "valid"},
    ),
    "task": lambda: (streams.split(UNEQUAL, 2, scenario="task"), strategies.Finetune(), {"seeds": 2}),
    "rotated": lambda: (streams.rotated(IMAGES, 3), strategies.Finetune(), {"seeds": 2}),
    "permuted_tasks": lambda: (streams.permuted(IMAGES, 2, scenario="task"), strategies.Finetune(), {"seeds": 2}),
    "online": lambda: (
        streams.online(streams.split(toy_data(), 2), 20),
        strategies.ER(cl_lib.Memory(20, 8)),
        {"eval_every": 2},
    ),
    "blurry": lambda: (streams.blurry(streams.by_column(DATA, "month"), 0.3), strategies.Finetune(), {"seeds": 2}),
    "diverged": lambda: (
        streams.by_column(DATA, "month"),
        strategies.Finetune(),
        {"seeds": 2, "grid": {"optim.lr": [0.1, 1e30]}},
    ),
    "one_seed": lambda: (streams.by_column(DATA, "month"), strategies.Cumulative(), {}),
}


@cache
def run(name: str, save: bool = True) -> Record:
    stream, strategy, options = CASES[name]()
    return cl_lib.run(stream, strategy, model=MODEL, epochs=2, save_predictions=save, **options)


def saved(name: str) -> Predictions:
    predictions = run(name).predictions
    assert predictions is not None
    return predictions


@pytest.mark.parametrize("name", CASES)
def test_saving_predictions_changes_nothing_else(name: str) -> None:
    with_them, without = run(name), run(name, save=False)
    assert without.predictions is None
    assert with_them.arrays.keys() - without.arrays.keys() <= {"memory.column"}
    for key, values in without.arrays.items():
        assert (values.dtype, values.shape) == (with_them.arrays[key].dtype, with_them.arrays[key].shape), key
        assert values.tobytes() == with_them.arrays[key].tobytes(), key
    contents = [copy.deepcopy(record.to_json()) for record in (with_them, without)]
    assert contents[0]["job"].pop("save_predictions") is True
    assert contents[0]["config"].pop("save_predictions") is True
    for content in contents:
        for key in ("training_seconds", "preparation_seconds", "evaluation_seconds", "planning_seconds"):
            del content["cost"][key]
        del content["cost"]["samples_per_second"]
    assert json.dumps(contents[0]) == json.dumps(contents[1])


def by_group(values: np.ndarray, codes: np.ndarray, groups: int) -> np.ndarray:
    return np.bincount(codes, values, groups)


@pytest.mark.parametrize("name", CASES)
def test_everything_follows_from_the_predictions(name: str) -> None:
    record, predictions = run(name), saved(name)
    arrays, parts = record.arrays, predictions.arrays
    replicas, rows, samples = predictions.shape
    width, classes = len(record.stream["columns"]), record.stream["classes"]
    assert (replicas, rows) == (len(record.replicas), len(record.rows))
    column, label = (np.broadcast_to(parts[k], (replicas, samples)) for k in ("column", "label"))
    diverged = [replica["status"] == "diverged" for replica in record.replicas]
    for r in range(replicas):
        for i in range(rows):
            correct = predictions.correct(i)[r]
            lost = bool(np.isnan(arrays["matrix.accuracy"][r, i]).any())
            assert not lost or diverged[r]
            support = by_group(np.ones(samples), column[r], width)
            assert np.array_equal(support, arrays["support"][r, i])
            if lost:
                continue
            assert np.array_equal(correct, predictions.row("predicted", i)[r] == label[r])
            found = by_group(correct, column[r], width) / support
            assert np.abs(found - arrays["matrix.accuracy"][r, i]).max() < 1e-12
            assert correct.mean() == pytest.approx(arrays["pooled.accuracy"][r, i], abs=1e-12)
            assert np.array_equal(by_group(correct, label[r], classes), arrays["class.correct"][r, i])
            counted = np.bincount(predictions.row("predicted", i)[r], minlength=classes)
            assert np.array_equal(counted, arrays["predicted"][r, i])
            nll = by_group(predictions.row("nll", i)[r].astype(float), column[r], width) / support
            defined = np.isfinite(arrays["matrix.nll"][r, i])  # not where some classes cannot be predicted yet
            assert np.allclose(nll[defined], arrays["matrix.nll"][r, i][defined], rtol=1e-3, atol=1e-6)
            confidence = predictions.row("confidence", i)[r].astype(np.float32)
            bins = np.bincount(np.minimum((confidence * 15).astype(int), 14), minlength=15)
            assert np.abs(bins - arrays["confidence.count"][r, i]).sum() <= 0.02 * samples + 2  # half precision
            for part in predictions.names[1:]:
                codes = np.broadcast_to(parts[f"slice.{part}"], (replicas, samples))[r]
                groups = arrays[f"column.{part}.count"].shape[-1]
                assert np.array_equal(by_group(correct, codes, groups), arrays[f"column.{part}.correct"][r, i])
                count = by_group(np.ones(samples), codes, groups)
                assert np.array_equal(count, arrays[f"column.{part}.count"][r, i])


@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_the_data(name: str) -> None:
    stream, _, options = CASES[name]()
    predictions = saved(name)
    part = stream.data.train if options.get("eval_on") == "valid" else stream.data.test
    replicas, _, samples = predictions.shape
    index, column, label = (
        np.broadcast_to(predictions.arrays[k], (replicas, samples)) for k in ("index", "column", "label")
    )
    seeds = [replica["seed"] for replica in run(name).replicas]
    for r in range(replicas):
        real = stream.realise(seeds[r])
        tests = real.valids if options.get("eval_on") == "valid" else real.tests
        for e, test in enumerate(tests):
            inside = column[r] == e
            assert sorted(index[r][inside].tolist()) == sorted(test.tolist())
        if real.targets is None:
            assert np.array_equal(label[r], part.y.numpy()[index[r]])
        for slices in predictions.names[1:]:
            codes = np.broadcast_to(predictions.arrays[f"slice.{slices}"], (replicas, samples))[r]
            assert np.array_equal(codes, part.columns[slices].codes.numpy()[index[r]])


def test_inputs_are_counted_between_deciles_of_the_first_window() -> None:
    record = run("by_column")
    predictions = saved("by_column")
    x, index = DATA.test.x.numpy().astype(np.float32), predictions.arrays["index"][0]
    inputs = predictions.arrays["inputs"]
    assert inputs.shape == (4, 5, 10)
    mean, std = (np.asarray(DATA.mean), np.asarray(DATA.std)) if DATA.mean is not None else (0, 1)
    scaled = (x - mean) / std
    first = scaled[index[predictions.positions[0]]]
    for f in range(5):
        edges = np.quantile(first[:, f].astype(np.float64), np.linspace(0.1, 0.9, 9))
        for window, place in enumerate(predictions.positions):
            bins = np.searchsorted(edges, scaled[index[place], f], side="right")
            assert np.abs(np.bincount(bins, minlength=10) - inputs[window, f]).sum() <= 4  # rounding of the deciles
    assert np.array_equal(inputs.sum(-1)[:, 0], record.arrays["support"][0, 0])


def test_a_history_reads_the_predictions() -> None:
    record, predictions = run("by_column"), saved("by_column")
    history = history_of(record)
    assert history.samples is not None
    label, site = predictions.slices("class"), predictions.slices("site")
    for w, place in enumerate(predictions.positions):
        assert np.array_equal(history.part("labels")[w], np.bincount(label[place], minlength=3))
        assert np.array_equal(history.part("slice.site")[w], np.bincount(site[place], minlength=3))
        for row in (0, 2, 4):
            correct, nll = history.samples(row, w)
            assert np.array_equal(correct, predictions.correct(row)[:, place])
            assert np.array_equal(nll, predictions.row("nll", row)[:, place])
            for r in range(3):
                codes = predictions.row("predicted", row)[r, place]
                assert np.array_equal(history.part("predicted", row)[r, w], np.bincount(codes, minlength=3))
                right = np.bincount(site[place], correct[r], 3)
                assert np.array_equal(history.part("correct.site", row)[r, w], right)
                bins = np.minimum(
                    (predictions.row("confidence", row)[r, place].astype(np.float32) * 15).astype(int), 14
                )
                assert np.array_equal(history.part("confidence", row)[r, w], np.bincount(bins, minlength=15))


def test_replicas_with_other_test_sets_are_refused_where_they_must_be_the_same() -> None:
    predictions = saved("several_groups")
    assert predictions.arrays["column"].shape[0] == 4
    with pytest.raises(InputError, match="use class_order=natural"):
        _ = predictions.positions
    assert saved("by_column").arrays["column"].shape[0] == 1


def test_many_classes_need_wider_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(600) % 300
    x = rng.normal(size=(600, 4)).astype(np.float32)
    data = from_arrays((x, y), (x, y))
    record = cl_lib.run(streams.split(data, 2), strategies.Finetune(), model=MODEL, save_predictions=True)
    assert record.predictions is not None
    assert record.predictions.arrays["predicted"].dtype == np.uint16
    assert record.predictions.arrays["predicted"].max() > 255


def test_wide_inputs_are_thinned() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 600)).astype(np.float32), np.arange(60) % 2
    data = from_arrays((x, y), (x, y), columns={"part": (np.arange(60) // 30, np.arange(60) // 30)})
    record = cl_lib.run(streams.by_column(data, "part"), strategies.Finetune(), model=MODEL, save_predictions=True)
    assert record.predictions is not None
    assert record.predictions.arrays["inputs"].shape == (2, 200, 10)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_predictions_do_not_depend_on_the_size_of_chunks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved("by_column")
    monkeypatch.setattr(evaluate, "CHUNK", size)
    monkeypatch.setattr(evaluate, "SCORED", 1)
    stream, strategy, options = CASES["by_column"]()
    part = cl_lib.run(stream, strategy, model=MODEL, epochs=2, save_predictions=True, **options).predictions
    assert part is not None
    for name, values in whole.arrays.items():
        same = np.allclose if name in ("nll", "confidence") else np.array_equal
        assert same(values, part.arrays[name]), name


# ---------------------------------------------------------------------- interrupted and resumed
@pytest.mark.parametrize("name", ["by_column", "several_groups", "grid", "online"])
def test_a_resumed_run_has_the_same_predictions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, predictions = run(name), saved(name)
    stream, strategy, options = CASES[name]()
    options |= {"model": MODEL, "epochs": 2, "save_predictions": True}
    done: list[int] = []
    monkeypatch.setattr(Session, "_stops", lambda self, steps: done.append(steps))
    cl_lib.run(stream, strategy, **options)
    monkeypatch.undo()
    for at in {done[0], done[len(done) // 2], done[-2], done[-1]}:
        out = tmp_path / str(at)
        monkeypatch.setattr(Session, "_stops", lambda self, done, at=at: done == at)
        with pytest.raises(Interrupted):
            cl_lib.run(stream, strategy, out=out, **options)
        monkeypatch.undo()
        again = cl_lib.run(stream, strategy, out=out, resume=True, **options)
        for key, values in whole.arrays.items():
            assert values.tobytes() == again.arrays[key].tobytes(), (at, key)
        read = Record.load(out).predictions
        for found in (again.predictions, read):
            assert found is not None
            assert found.arrays.keys() == predictions.arrays.keys()
            for key, values in predictions.arrays.items():
                assert values.dtype == found.arrays[key].dtype
                assert values.tobytes() == found.arrays[key].tobytes(), (at, key)


@pytest.mark.parametrize("name", ["by_column", "several_groups"])
def test_a_resumed_run_without_predictions_has_the_same_flips(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(name, save=False)
    stream, strategy, options = CASES[name]()
    options |= {"model": MODEL, "epochs": 2, "out": tmp_path}
    for at in (10, 14, 20):  # in one run, one interruption after the other
        monkeypatch.setattr(Session, "_stops", lambda self, done, at=at: done >= at)
        with pytest.raises(Interrupted):
            cl_lib.run(stream, strategy, resume=at > 10, **options)
        monkeypatch.undo()
    again = cl_lib.run(stream, strategy, resume=True, **options)
    for key, values in whole.arrays.items():
        assert values.tobytes() == again.arrays[key].tobytes(), key
    assert again.predictions is None


def test_a_run_is_not_resumed_with_another_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, strategy, _ = CASES["by_column"]()
    monkeypatch.setattr(Session, "_stops", lambda self, done: done == 3)
    with pytest.raises(Interrupted):
        cl_lib.run(stream, strategy, model=MODEL, out=tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="save_predictions"):
        cl_lib.run(stream, strategy, model=MODEL, out=tmp_path, resume=True, save_predictions=True)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_the_option_is_a_flag(value: Any) -> None:
    stream, strategy, _ = CASES["by_column"]()
    with pytest.raises(InputError, match=r"save_predictions=.*: must be true or false"):
        cl_lib.run(stream, strategy, model=MODEL, save_predictions=value)


# ---------------------------------------------------------------------- files
@pytest.mark.parametrize("name", ["by_column", "several_groups", "diverged", "valid"])
def test_predictions_come_back(name: str, tmp_path: Path) -> None:
    record = run(name)
    record.save(tmp_path / "a")
    loaded = Record.load(tmp_path / "a")
    assert loaded.predictions is not None
    for key, values in saved(name).arrays.items():
        found = loaded.predictions.arrays[key]
        assert (values.dtype, values.shape) == (found.dtype, found.shape)
        assert values.tobytes() == found.tobytes(), key
    loaded.save(tmp_path / "b")
    again = Record.load(tmp_path / "b")
    assert again.predictions_sha256 == loaded.predictions_sha256
    assert again.predictions is not None
    assert again.predictions.shape == loaded.predictions.shape
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted(
        ["record.json", "arrays.npz", "predictions.npz", "config.yaml"]
    )


def test_a_record_without_predictions_has_no_file(tmp_path: Path) -> None:
    run("by_column", save=False).save(tmp_path)
    assert not (tmp_path / "predictions.npz").exists()
    assert "predictions_sha256" not in (tmp_path / "record.json").read_text()
    assert Record.load(tmp_path).predictions is None


def test_the_file_is_read_when_it_is_first_used(tmp_path: Path) -> None:
    run("by_column").save(tmp_path)
    (tmp_path / "predictions.npz").unlink()
    loaded = Record.load(tmp_path)
    assert loaded.metrics["accuracy"] == run("by_column").metrics["accuracy"]
    with pytest.raises(InputError, match=r"predictions\.npz: is missing; copy it together with its record"):
        _ = loaded.predictions


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    run("by_column").save(tmp_path)
    path = tmp_path / "predictions.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"predictions\.npz: not readable \(damaged, or of another run\)"):
        _ = Record.load(tmp_path).predictions


def test_files_with_a_changed_byte_are_refused(tmp_path: Path) -> None:
    run("by_column").save(tmp_path)
    path = tmp_path / "predictions.npz"
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 40):
        broken = bytearray(content)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(InputError, match="damaged"):
            _ = Record.load(tmp_path).predictions


def test_files_of_another_run_are_refused(tmp_path: Path) -> None:
    run("by_column").save(tmp_path / "a")
    run("blurry").save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "predictions.npz", tmp_path / "a")
    with pytest.raises(InputError, match="damaged, or of another run"):
        _ = Record.load(tmp_path / "a").predictions
    with pytest.raises(InputError, match="damaged, or of another run"):
        Record.load(tmp_path / "a").save(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("bits"), "bits"),
        (lambda a: a.pop("column"), "column"),
        (lambda a: a.pop("label"), "label"),
        (lambda a: a.pop("inputs"), "inputs"),
        (lambda a: a.update(bits=a["bits"][:, :-1]), r"bits: expected the shape"),
        (lambda a: a.update(nll=a["nll"][:2]), r"nll: expected the shape"),
        (lambda a: a.update(predicted=a["predicted"][0]), "."),
        (lambda a: a.update(column=a["column"][:, :-1]), "column: expected whole numbers of shape"),
        (lambda a: a.update(column=a["column"] + 0.5), "column: expected whole numbers"),
        (lambda a: a.update(column=a["column"] - 1), "column: expected"),
        (lambda a: a.update(label=a["label"] - 1), "label: expected"),
        (lambda a: a.update({"slice.site": a["slice.site"][:, :3]}), r"slice\.site: expected"),
    ],
    ids=lambda v: None,
)
def test_files_with_other_contents_are_refused(
    change: Callable[[dict[str, np.ndarray]], Any], message: str, tmp_path: Path
) -> None:
    """Even with the right hash, as a program of somebody else may write them."""
    arrays = dict(saved("by_column").arrays)
    change(arrays)
    sha256 = Predictions(arrays).save(tmp_path / "predictions.npz")
    with pytest.raises(InputError, match=rf"predictions\.npz: not readable \(.*{message}"):
        Predictions.load(tmp_path / "predictions.npz", sha256, 3, 5)


def test_a_file_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, predicted=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="not readable"):
        Predictions.load(path, hashlib.sha256(path.read_bytes()).hexdigest(), 1, 1)


# ---------------------------------------------------------------------- flips
@pytest.mark.parametrize("name", CASES)
def test_flips_follow_from_the_predictions(name: str) -> None:
    record, predictions = run(name), saved(name)
    negative, positive = (record.arrays[f"flips.{k}"] for k in ("negative", "positive"))
    replicas, rows, samples = predictions.shape
    width = len(record.stream["columns"])
    assert negative.shape == (replicas, rows - 1, width)
    column = np.broadcast_to(predictions.arrays["column"], (replicas, samples))
    for r in range(replicas):
        for i in range(rows - 1):
            if np.isnan(record.arrays["matrix.accuracy"][r, i + 1]).any():
                assert np.isnan(negative[r, i]).all()
                continue
            was, now = predictions.correct(i)[r], predictions.correct(i + 1)[r]
            assert np.array_equal(by_group(was & ~now, column[r], width), negative[r, i])
            assert np.array_equal(by_group(now & ~was, column[r], width), positive[r, i])


@pytest.mark.parametrize("name", CASES)
def test_flips_add_up_to_the_change_of_accuracy(name: str) -> None:
    arrays = run(name, save=False).arrays
    change = np.diff(arrays["matrix.accuracy"], axis=1) * arrays["support"][:, 1:]
    net = arrays["flips.positive"] - arrays["flips.negative"]
    assert np.allclose(net, change, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", ["by_column", "several_groups", "online", "one_seed"])
def test_flip_rates_against_a_loop(name: str) -> None:
    record = run(name)
    arrays = record.arrays
    for kind in ("negative", "positive"):
        values = record.metrics[f"{kind}_flip_rate"].per_seed
        for r, value in enumerate(values):
            rates = []
            for update in range(arrays["flips.negative"].shape[1]):  # from row `update` to the next
                for j, learned in enumerate(arrays["learned"][r]):
                    if learned <= update:
                        rates.append(arrays[f"flips.{kind}"][r, update, j] / arrays["support"][r, -1, j])
            assert value == pytest.approx(float(np.mean(rates)), abs=1e-12)
    n, p = (record.metrics[f"{k}_flip_rate"].mean for k in ("negative", "positive"))
    assert n is not None
    assert p is not None


@pytest.mark.parametrize("name", ["by_column", "task", "rotated", "one_seed"])
def test_next_experience_is_the_superdiagonal(name: str) -> None:
    record = run(name)
    for key in ("accuracy", "nll"):
        for r, value in enumerate(record.metrics[f"next_{key}"].per_seed):
            matrix = record.arrays[f"matrix.{key}"][r]
            diagonal = [matrix[j, j] for j in range(1, matrix.shape[1])]
            assert value == pytest.approx(float(np.mean(diagonal)), abs=1e-12)


def test_next_experience_has_its_reasons() -> None:
    seen = run("several_groups").metrics["next_accuracy"]
    assert seen.mean is None
    assert seen.reason is not None
    assert "seen" in seen.reason
    diverged = run("diverged").metrics
    assert [v is None for v in diverged["next_nll"].per_seed] == [False, False, True, True]
    assert [v is None for v in diverged["negative_flip_rate"].per_seed] == [False, False, True, True]
    one = cl_lib.run(streams.split(toy_data(), 1), strategies.Finetune(), model=MODEL)
    for name in ("next_accuracy", "next_nll", "negative_flip_rate", "positive_flip_rate"):
        assert one.metrics[name].mean is None
        assert one.metrics[name].reason == "needs more than one experience", name


def test_metrics_of_flips_by_hand() -> None:
    flips = np.array([[5, 5, 5], [2, 9, 9], [4, 1, 9]])
    assert flip_rate(flips, [10, 20, 30], [1, 2, 3]) == pytest.approx((0.2 + 0.4 + 0.05) / 3)
    assert np.isnan(flip_rate(flips, [10, 20, 30], [3, 3, 3]))
    assert flip_rate(np.stack([flips, flips * 0]), [10, 20, 30], [1, 2, 3]).shape == (2,)
    for bad in ((flips, [1, 2], [1, 2, 3]), (flips, [1, 2, 3], [1, 2]), (flips[0], [1, 2, 3], [1, 2, 3])):
        with pytest.raises(InputError, match="must agree"):
            flip_rate(*bad)
    assert metrics.flip_rate is flip_rate


def test_metric_of_the_next_experience_by_hand() -> None:
    matrix = [[9, 1, 2, 3], [9, 4, 5, 6], [9, 7, 8, 1], [9, 2, 3, 4], [9, 9, 9, 9.0]]
    assert next_experience(matrix) == pytest.approx((4 + 8 + 4) / 3)
    assert next_experience(matrix, [0, 0, 1, 1]) == pytest.approx((5 + 6) / 2)
    assert np.isnan(next_experience(matrix, [0, 0, 0, 0]))
    assert np.isnan(next_experience([[1.0], [1.0]]))
    with pytest.raises(InputError, match="before"):
        next_experience(matrix, [0, 1, 2, 5])
    assert dataclasses.is_dataclass(Predictions)
