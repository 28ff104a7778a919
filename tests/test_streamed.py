"""Streamed inputs: the same results as resident ones, bit for bit, from files larger than what is read of them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cl_lib
from cl_lib import InputError, Memory, datasets, streams
from cl_lib.datasets import Dataset, from_arrays
from cl_lib.datasets.mapped import is_mapped
from cl_lib.engine import window
from cl_lib.engine.population import Population
from cl_lib.engine.rows import read, read_rows
from cl_lib.harness.job import Job
from cl_lib.harness.session import Interrupted, Session
from cl_lib.models import MLP
from cl_lib.plan.plan import STEPS
from cl_lib.strategies import AGEM, ER, EWC, GSS, SLDA, DERpp, ERTricks, Finetune, ICaRL, Joint, Strategy

SMALL = MLP.factory(hidden=(16,))
N, M = 400, 120
PART = 2 * 5 * 13 * 192
"""Bytes of five steps of two replicas with seven new and six recalled samples."""


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise on a pattern of each of ten classes."""
    rng, y = np.random.default_rng(n), np.arange(n) % 10
    pattern = np.random.default_rng(0).integers(0, 128, (10, 3, 8, 8))
    return (pattern[y] + rng.integers(0, 128, (n, 3, 8, 8))).astype(np.uint8), y


def save(folder: Path, dtype: Any = np.uint8) -> Path:
    folder.mkdir(exist_ok=True)
    for part, n in (("train", N), ("test", M)):
        x, y = images(n)
        np.save(folder / f"x_{part}.npy", x.astype(dtype))
        np.save(folder / f"y_{part}.npy", y)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def mapped(folder: Path) -> Dataset:
    return datasets.npy(folder)


@pytest.fixture(scope="module")
def loaded() -> Dataset:
    return from_arrays(images(N), images(M), name="images")


def trained(stream: Any, strategy: Any, **options: Any) -> tuple[Session, list[Any]]:
    options = {"model": SMALL, "seeds": 2, "batch_size": 7, "device": "cpu"} | options
    session = Session(Job(stream, strategy, **options))
    return session, list(session)


def leaves(tree: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in leaves(value, f"{prefix}.{key}").items()}


def assert_same(ours: tuple[Session, list[Any]], theirs: tuple[Session, list[Any]]) -> None:
    """State and rows, bit for bit."""
    one, other = (leaves(session.learner.tree) for session, _ in (ours, theirs))  # type: ignore[union-attr]
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.numpy().tobytes() == other[name].numpy().tobytes(), name
    for row, same in zip(ours[1], theirs[1], strict=True):
        assert (row.experience, row.step) == (same.experience, same.step)
        assert row.arrays.keys() == same.arrays.keys()
        for name, values in row.arrays.items():
            assert values.tobytes() == same.arrays[name].tobytes(), name


# ---------------------------------------------------------------------- the same results
STRATEGIES: dict[str, Strategy] = {
    "er": ER(Memory(capacity=20, batch=6)),
    "derpp": DERpp(Memory(capacity=20, batch=6)),
    "ewc": EWC(samples=20),
    "icarl": ICaRL(Memory(capacity=30, batch=6, admission="strategy")),
    "joint": Joint(),
    "agem": AGEM(Memory(capacity=20, batch=6, admission="ring")),
    "slda": SLDA(),
    "gss": GSS(Memory(capacity=20, batch=6, admission="strategy"), compared=5),
    "er_tricks": ERTricks(Memory(capacity=20, batch=6, admission="strategy")),
}


@pytest.mark.parametrize("lift", ["auto", "always", "never"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_mapped_run_is_the_resident_one(name: str, lift: Any, mapped: Dataset, loaded: Dataset) -> None:
    options = {"lift": lift, "epochs": 2, "eval_every": 5}
    theirs = trained(streams.split(loaded), STRATEGIES[name], **options)
    assert_same(trained(streams.split(mapped), STRATEGIES[name], **options), theirs)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_block_in_many_parts_is_the_same(
    name: str, mapped: Dataset, loaded: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = trained(streams.split(loaded, 2), STRATEGIES[name], eval_every=2)
    for size in (1, PART):
        monkeypatch.setitem(window.BYTES, "cpu", size)
        ours = trained(streams.split(mapped, 2), STRATEGIES[name], eval_every=2)
        assert_same(ours, theirs)
    assert isinstance(ours[0].learner, Population)
    assert ours[0].learner.blocks.window is not None
    assert 2 <= ours[0].learner.blocks.window.steps < 29


@pytest.mark.parametrize("name", ["gss", "er_tricks"])
def test_samples_admitted_in_one_block_are_recalled_in_the_next(name: str, mapped: Dataset, loaded: Dataset) -> None:
    """A block is read ahead before the one before it has changed the memory; an experience here has two or more."""
    options = {"batch_size": 1, "eval_every": 2}
    theirs = trained(streams.split(loaded, 2), STRATEGIES[name], **options)
    assert theirs[0].groups[0].steps / 2 > STEPS
    assert_same(trained(streams.split(mapped, 2), STRATEGIES[name], **options), theirs)


@pytest.mark.parametrize("seeds", [1, 3])
def test_inputs_in_memory_can_be_streamed_and_mapped_ones_resident(
    seeds: int, mapped: Dataset, loaded: Dataset
) -> None:
    strategy = STRATEGIES["er"]
    theirs = trained(streams.split(loaded), strategy, seeds=seeds)
    assert theirs[0].learner.blocks.window is None  # type: ignore[union-attr]
    streamed = trained(streams.split(loaded), strategy, seeds=seeds, store="streamed")
    assert streamed[0].learner.blocks.window is not None  # type: ignore[union-attr]
    resident = trained(streams.split(mapped), strategy, seeds=seeds, store="resident")
    assert resident[0].learner.blocks.window is None  # type: ignore[union-attr]
    assert not is_mapped(resident[0].learner.shared["x"])  # type: ignore[union-attr]
    assert_same(streamed, theirs)
    assert_same(resident, theirs)


@pytest.mark.parametrize("lift", ["auto", "always"])
@pytest.mark.parametrize("make", [streams.permuted, streams.rotated], ids=["permuted", "rotated"])
def test_transformed_streams_are_the_same(make: Any, lift: Any, mapped: Dataset, loaded: Dataset) -> None:
    for strategy in (STRATEGIES["er"], STRATEGIES["icarl"]):
        ours, theirs = (trained(make(data, 2), strategy, lift=lift, eval_every=2) for data in (mapped, loaded))
        assert_same(ours, theirs)


def normalised(shape: Any, classes: int) -> nn.Module:
    layers = nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes)
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize("lift", ["auto", "never"])
def test_networks_with_batch_statistics_are_the_same(lift: Any, mapped: Dataset, loaded: Dataset) -> None:
    options = {"model": normalised, "lift": lift, "eval_every": 2, "batch_size": 9}
    for strategy in (STRATEGIES["er"], STRATEGIES["icarl"]):
        ours, theirs = (trained(streams.split(data, 2), strategy, **options) for data in (mapped, loaded))
        assert_same(ours, theirs)


def test_validation_data_and_a_schedule_are_the_same(
    mapped: Dataset, loaded: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"eval_on": "valid", "optim": cl_lib.SGD(lr=0.1, schedule=cl_lib.Schedule("cosine"))}
    theirs = trained(streams.split(loaded, 2, valid=0.2), STRATEGIES["er"], **options)
    monkeypatch.setitem(window.BYTES, "cpu", 1)
    assert_same(trained(streams.split(mapped, 2, valid=0.2), STRATEGIES["er"], **options), theirs)


def test_floats_are_the_same_and_are_not_changed(tmp_path: Path, loaded: Dataset) -> None:
    data = datasets.npy(save(tmp_path / "floats", np.float32), std=255.0)
    theirs = trained(streams.split(from_arrays(*_floats(), std=255.0)), STRATEGIES["er"])
    assert_same(trained(streams.split(data), STRATEGIES["er"]), theirs)
    assert np.array_equal(data.train.x, images(N)[0])


def _floats() -> Any:
    return tuple((x.astype(np.float32), y) for x, y in (images(N), images(M)))


class Plain:
    """A learner that remembers what it was given."""

    def __init__(self, seed: int) -> None:
        self.seen: list[torch.Tensor] = []

    def observe(self, batch: Any) -> None:
        self.seen.append(batch.x)

    def end_experience(self, data: Any) -> None:
        self.seen += [data.read(part).x for part in data.batches(50)]

    def predict(self, x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(x.flatten(1)[:, :10], -1)


def test_a_plain_learner_is_given_the_same(mapped: Dataset, loaded: Dataset) -> None:
    ours, theirs = (trained(streams.split(data), Plain) for data in (mapped, loaded))
    for one, other in zip(ours[0].learner.learners, theirs[0].learner.learners, strict=True):  # type: ignore[union-attr]
        assert torch.equal(torch.cat(one.seen), torch.cat(other.seen))
    assert np.array_equal(ours[1][-1].accuracy, theirs[1][-1].accuracy)


@pytest.mark.parametrize("name", ["er", "icarl"])
@pytest.mark.parametrize("store", ["auto", "streamed"])
def test_a_run_stopped_in_the_middle_goes_on_as_if_it_were_not(
    name: str, store: Any, mapped: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(window.BYTES, "cpu", PART)
    stream, strategy = streams.split(mapped, 2), STRATEGIES[name]
    options = {"model": SMALL, "seeds": 2, "batch_size": 7, "device": "cpu", "store": store}
    whole = cl_lib.run(stream, strategy, **options)
    steps = whole.rows[-1]["step"]
    for at in (1, 6, steps // 2, steps // 2 + 1, steps - 1):
        monkeypatch.setattr(Session, "_stops", lambda self, done, at=at: done == at)
        with pytest.raises(Interrupted):
            cl_lib.run(stream, strategy, out=tmp_path / str(at), **options)
        monkeypatch.undo()
        monkeypatch.setitem(window.BYTES, "cpu", PART)
        again = cl_lib.run(stream, strategy, out=tmp_path / str(at), resume=True, **options)
        for key, values in whole.arrays.items():
            assert values.tobytes() == again.arrays[key].tobytes(), key


# ---------------------------------------------------------------------- reading
def test_rows_are_read_wherever_they_lie(mapped: Dataset, loaded: Dataset) -> None:
    index = torch.tensor([[3, 399, 0], [3, 200, 7]])
    for data in (mapped, loaded):
        x = data.train.x
        assert torch.equal(read(x, index), loaded.train.x[index])
        assert torch.equal(read(x, index.int()), loaded.train.x[index])
        assert torch.equal(read(x, index[:, :0]), loaded.train.x[index[:, :0]])
        assert torch.equal(torch.func.vmap(lambda i, x=x: read_rows(x, i))(index), loaded.train.x[index])
        turned = torch.func.vmap(lambda i, x=x: read_rows(x, i), in_dims=1)(index)
        assert torch.equal(turned, loaded.train.x[index.T])
        with pytest.raises(IndexError):
            read(x, torch.tensor([400]))
    with pytest.raises(IndexError):
        read(mapped.train.x, torch.tensor([-1]))


def test_the_next_block_is_read_before_it_is_needed(mapped: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(window.BYTES, "cpu", 1)
    read_ahead: list[bool] = []
    load = window.Window.load

    def noted(self: window.Window, block: Any, held: Any = None) -> Any:
        reading = self._reading
        read_ahead.append(reading is not None and reading[0] is block)
        return load(self, block, held)

    monkeypatch.setattr(window.Window, "load", noted)
    trained(streams.split(mapped, 2), STRATEGIES["er"])
    # the first part of each experience is not waited for by anyone
    assert len(read_ahead) > 20
    assert read_ahead.count(False) == 2


def test_a_slow_file_changes_nothing(mapped: Dataset, loaded: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = trained(streams.split(loaded, 2), STRATEGIES["er"])
    monkeypatch.setitem(window.BYTES, "cpu", 1)
    copy_rows = window.copy_rows

    def slow(*args: Any) -> None:
        time.sleep(0.01)
        copy_rows(*args)

    monkeypatch.setattr(window, "copy_rows", slow)
    assert_same(trained(streams.split(mapped, 2), STRATEGIES["er"]), theirs)


def test_a_file_cut_short_ends_the_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "images")
    monkeypatch.setitem(window.BYTES, "cpu", 1)
    rows = cl_lib.iter_run(streams.split(datasets.npy(folder)), Finetune(), model=SMALL, device="cpu")
    next(rows)
    next(rows)
    file = folder / "x_train.npy"
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    with pytest.raises(InputError, match=r"x_train\.npy: has become shorter since it was opened"):
        list(rows)


def test_a_file_that_was_removed_is_read_to_the_end(tmp_path: Path, mapped: Dataset) -> None:
    if sys.platform == "win32":
        pytest.skip("an open file cannot be removed")
    folder = save(tmp_path / "images")
    data = datasets.npy(folder, name=mapped.name)
    for file in folder.iterdir():
        file.unlink()
    assert_same(trained(streams.split(data), ER()), trained(streams.split(mapped), ER()))


# ---------------------------------------------------------------------- memory
PROGRAM = """
import sys
import torch, cl_lib
from cl_lib.strategies import ER, EWC
torch.set_num_threads(1)
stream = cl_lib.streams.split(cl_lib.datasets.npy(sys.argv[1], std=255.0), 2, valid=0.1)
for strategy in (ER(), EWC()):
    options = {"model": cl_lib.models.MLP.factory(hidden=(8,)), "batch_size": 64, "seeds": 2, "device": "cpu"}
    cl_lib.run(stream, strategy, eval_on="valid" if strategy == ER() else "test", **options)
cl_lib.check_stream(stream)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc/self/status to read memory from")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_memory_does_not_grow_with_the_data(dtype: str, tmp_path: Path) -> None:
    """A file of 300 MB, trained, consolidated, evaluated and checked in 150 MB more than one of 5 MB."""
    peak = {}
    for megabytes in (5, 300):
        shape, home = (3, 32, 32), tmp_path / str(megabytes)
        home.mkdir()
        for part, share in (("train", 0.8), ("test", 0.2)):
            n = int(share * megabytes * 1e6 / 3072 / np.dtype(dtype).itemsize)
            x = np.lib.format.open_memmap(home / f"x_{part}.npy", "w+", np.dtype(dtype), (n, *shape))
            for start in range(0, n, 1000):
                x[start : start + 1000] = np.random.default_rng(start).integers(0, 256, x[start : start + 1000].shape)
            x.flush()
            np.save(home / f"y_{part}.npy", np.arange(n) % 4)
        del x
        command = [sys.executable, "-c", PROGRAM, str(home)]
        # glibc would keep up to 64 MB that were freed
        own = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
        assert done.returncode == 0, done.stderr
        peak[megabytes] = int(done.stdout.split()[-1]) / 1024
    assert peak[300] - peak[5] < 150, peak


# ---------------------------------------------------------------------- the benchmark
SPEED = Path(__file__).parent.parent / "benchmarks" / "speed"


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if not SPEED.exists():
        pytest.skip("benchmarks are not part of an installed package")
    monkeypatch.syspath_prepend(SPEED)
    threads = torch.get_num_threads()
    yield importlib.import_module("streamed")
    torch.set_num_threads(threads)


def test_the_benchmark_writes_a_record(
    benchmark_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    path, folder = tmp_path / "deep" / "record.json", tmp_path / "pictures"
    options = ["--gigabytes", "0.03", "--replicas", "2", "--steps", "40", "--subset", "400", "--rounds", "1"]
    options += ["--folder", str(folder), "--out", str(path)]
    assert benchmark_script.main(options) == 0
    record = json.loads(path.read_text())
    assert record["command"].startswith("python benchmarks/speed/streamed.py --gigabytes 0.03")
    assert record["load_at_start"] == 0.1
    assert {"processor", "cores", "ram_gib", "system", "python", "torch"} <= record["machine"].keys()
    assert list(record["whole"]) == list(record["in_turns"]) == ["1", "2"]
    for whole, turns in zip(record["whole"].values(), record["in_turns"].values(), strict=True):
        assert 20 <= whole["steps"] <= 45
        assert whole["peak_resident_mib"] >= whole["resident_mib"]["RssAnon"] > 0
        assert turns["accuracy"]["streamed"] == turns["accuracy"]["resident"]
        assert turns["ratio"] > 0
    assert "R=2, 400 images" in capsys.readouterr().out
    # what was generated is used again, if it is what was asked for
    made = (folder / "x_train.npy").stat().st_mtime_ns
    benchmark_script.make_pictures(folder, 0.03)
    assert (folder / "x_train.npy").stat().st_mtime_ns == made
    assert benchmark_script.main([*options, "--gigabytes", "0.05"]) == 2
    assert "give another --folder" in capsys.readouterr().err


def test_the_benchmark_refuses_a_busy_machine_and_mistakes(
    benchmark_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.51, 0.0, 0.0))
    assert benchmark_script.main(["--out", str(tmp_path / "record.json")]) == 2
    assert "load 0.51" in capsys.readouterr().err
    for options, message in ((["--rounds", "0"], "--rounds=0"), (["--gigabytes", "-1"], "--gigabytes=-1.0")):
        assert benchmark_script.main(options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not list(tmp_path.iterdir())
