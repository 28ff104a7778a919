"""A record on disk: one writer, nothing half written, nothing damaged believed, nothing computed lost."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import stat
import subprocess
import sys
import threading
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cl_lib
from cl_lib import InputError, Record, strategies
from cl_lib.checks import toy_data
from cl_lib.errors import NotWritten
from cl_lib.files import Lock
from cl_lib.models import MLP
from cl_lib.report.html import write_report
from cl_lib.report.table import as_text, comparison, notes, summary
from cl_lib.streams import split

STREAM = split(toy_data(), 2)
OPTIONS: dict[str, Any] = {"model": MLP.factory(hidden=(8,)), "seeds": 2, "epochs": 1, "device": "cpu"}


def run(out: Path | None = None, **options: Any) -> Record:
    return cl_lib.run(options.pop("stream", STREAM), strategies.ER(), out=out, **(OPTIONS | options))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("record") / "er"
    run(out, grid={"optim.lr": [0.05, 0.1]})
    return out


# ---------------------------------------------------------------------- one writer
def test_a_second_writer_is_refused_by_name(tmp_path: Path) -> None:
    out = tmp_path / "er"
    out.mkdir()
    with (
        Lock(out),
        pytest.raises(InputError, match=rf"out=.*er: another run \(process {os.getpid()} on .*\) is writing"),
    ):
        run(out)
    assert run(out).metrics["accuracy"].n == 2
    assert sorted(p.name for p in out.iterdir()) == ["arrays.npz", "config.yaml", "record.json"]


def test_of_two_runs_in_threads_one_writes_and_the_other_is_refused(tmp_path: Path) -> None:
    out, said, gate = tmp_path / "er", [], threading.Barrier(2)

    def one(epochs: int) -> None:
        gate.wait()
        try:
            run(out, epochs=epochs)
            said.append(epochs)
        except InputError as error:
            said.append(str(error))

    threads = [threading.Thread(target=one, args=(epochs,)) for epochs in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (epochs,), (error,) = ([x for x in said if isinstance(x, kind)] for kind in (int, str))
    assert "is writing there" in error or "already holds a run" in error
    assert Record.load(out).job["epochs"] == epochs


def test_a_killed_writer_leaves_the_directory_free(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from cl_lib.files import Lock
lock = Lock(Path({str(tmp_path)!r}))
print("held", flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert killed.stdout == "held\n"
    assert (tmp_path / ".lock").exists()
    (tmp_path / "checkpoint.npz.0a1b2c3d.part").touch()  # of a killed write, and of version 0.1.0
    (tmp_path / "record.json.4711.part").touch()
    (tmp_path / "notes.part").touch()
    run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["arrays.npz", "config.yaml", "notes.part", "record.json"]


def test_arrays_of_another_run_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", epochs=2)
    (tmp_path / "a" / "arrays.npz").write_bytes((tmp_path / "b" / "arrays.npz").read_bytes())
    with pytest.raises(InputError, match=r"arrays\.npz: is damaged or belongs to another run"):
        Record.load(tmp_path / "a")


def test_a_record_without_the_hash_is_read(tmp_path: Path) -> None:
    run(tmp_path / "a")
    path = tmp_path / "a" / "record.json"
    data = json.loads(path.read_text())
    del data["arrays_sha256"]
    path.write_text(json.dumps(data))
    assert Record.load(path.parent).arrays["step"].shape == (2, 3)


# ---------------------------------------------------------------------- what can be known before
def test_numpys_values_are_written_as_pythons(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(4)
    record = run(tmp_path / "a", stream=split(toy_data(), 2, class_order=order), seeds=np.arange(2))
    assert record.stream["options"]["class_order"] == order.tolist()
    assert Record.load(tmp_path / "a").seeds == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"a": {"b": object()}}}, r"config\.a\.b=<object .*cannot be written to a record"),
        ({"config": {"a": float("nan")}}, r"config\.a=nan: cannot be written to a record"),
        ({"name": 3}, r"name=3: must be a string"),
        ({"command": ["a"]}, r"command=\['a'\]: must be a string"),
        ({"name": "\ud800"}, r"name=.*contains characters that UTF-8 cannot encode"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_training(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr("cl_lib.harness.session.Session._run", trained)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "a", **options)


# ---------------------------------------------------------------------- what cannot be written
def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_record_that_cannot_be_written_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run()
    monkeypatch.setattr("numpy.savez_compressed", full_disk)
    with pytest.raises(NotWritten, match=r"out=.*: the record cannot be written \(No space left on device\)") as caught:
        run(tmp_path / "a")
    assert caught.value.record.metrics["accuracy"].per_seed == expected.metrics["accuracy"].per_seed
    assert list((tmp_path / "a").iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run()
    monkeypatch.setattr("cl_lib.harness.session.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("cl_lib.engine.checkpoint.np.savez", full_disk)
    with pytest.warns(
        RuntimeWarning, match=r"the checkpoint cannot be written \(No space left .*; training goes on"
    ) as said:
        record = run(tmp_path / "a")
    assert len(said) == 1
    assert record.metrics["accuracy"].per_seed == expected.metrics["accuracy"].per_seed


def test_a_directory_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "a"

    class Removing:
        def log(self, row: cl_lib.Row) -> None:
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
            Removing.log = lambda *_: None  # type: ignore[method-assign, assignment]

        def close(self) -> None:
            pass

    run(out, loggers=[Removing()])
    assert Record.load(out).metrics["accuracy"].n == 2


def test_what_is_written_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is synchronised before it gets its name, its directory after; only then the checkpoint goes."""
    done: list[str] = []
    fsync, rename, unlink = os.fsync, Path.replace, Path.unlink

    def synchronised(handle: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        done.append(target.name)
        return rename(path, target)

    def removed(path: Path, missing_ok: bool = False) -> None:
        if path.name in ("checkpoint.npz", "partial.json"):
            done.append(f"no {path.name}")
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", synchronised)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", removed)
    monkeypatch.setattr("cl_lib.harness.session.CHECKPOINT_SECONDS", 0.0)
    record = run(tmp_path / "a", seeds=1, stream=split(toy_data(), 1))
    write_report([record], tmp_path / "report.html")

    def durable(*names: str) -> list[str]:
        return [part for name in names for part in ("file", name, "directory")]

    checkpoint = durable("checkpoint.npz", "partial.json")
    assert done[: len(checkpoint)] == checkpoint
    while done[: len(checkpoint)] == checkpoint:
        del done[: len(checkpoint)]
    expected = durable("arrays.npz", "config.yaml", "record.json")
    assert done == [*expected, "no checkpoint.npz", "no partial.json", *durable("report.html")]


# ---------------------------------------------------------------------- damaged and hostile files
def shown(directory: Path, target: Path) -> None:
    """All that is made of a record; an `InputError` from loading is fine, anything else is a defect."""
    try:
        record = Record.load(directory)
    except InputError:
        return
    str(record), summary(record), as_text(comparison([record, record])), notes([record, record])
    write_report([record], target)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


VALUES: list[Any] = [
    None, True, -1, 0, 3, 10**30, 1e300, -0.5, "", "a", "_hidden", "\x1b[31m", [], {}, [[]], [None], [1], {"a": 1},
]  # fmt: skip


def test_a_changed_record_is_refused_or_shown(saved: Path, tmp_path: Path) -> None:
    """400 changes of one place each; every twentieth record that is still accepted is drawn, too."""
    data = json.loads((saved / "record.json").read_text())
    where = [place for place in places(data) if place]
    rng, accepted = random.Random(0), 0
    for i in range(400):
        changed = copy.deepcopy(data)
        *parents, last = rng.choice(where)
        node = changed
        for key in parents:
            node = node[key]
        kind = rng.randrange(4)
        if kind == 0:
            del node[last]
        elif kind == 1 and isinstance(node, list):
            node.append(copy.deepcopy(node[last]))
        else:
            node[last] = rng.choice(VALUES)
        (tmp_path / "record.json").write_text(json.dumps(changed))
        try:
            record = Record.load(tmp_path)
        except InputError:
            continue
        accepted += 1
        str(record), as_text(comparison([record, record])), notes([record, record])
        if accepted % 20 == 0:
            write_report([record], tmp_path / f"{i}.html")
    assert 20 < accepted < 380, "the changes must be of both kinds"


def test_a_report_leaves_out_what_arrays_would_say(saved: Path, tmp_path: Path) -> None:
    record = Record.load(saved)
    for name in record.arrays:
        arrays = {k: v for k, v in record.arrays.items() if k != name}
        write_report([replace(record, arrays=arrays)], tmp_path / "report.html")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learned", 0, "from 1 to 2"),
        ("before", 3, "from 0 to 2"),
        ("before", 0.5, "whole numbers"),
        ("age", 0.5, "whole numbers"),
        ("matrix.accuracy", 1.5, "from 0 to 1"),
        ("support", -1, "from 0 to"),
        ("pooled.bins", [0, 1, 1], "do not exceed the count"),
        ("class.count", np.inf, "from 0 to"),
    ],
)
def test_arrays_that_cannot_be_are_refused(name: str, value: Any, message: str, saved: Path, tmp_path: Path) -> None:
    without_hash(saved, tmp_path)
    arrays = dict(Record.load(saved).arrays)
    arrays[name] = np.broadcast_to(np.array(value, float), arrays[name].shape)
    np.savez(tmp_path / "arrays.npz", **arrays)
    with pytest.raises(InputError, match=rf"arrays\.npz: {name}: expected .*{message}"):
        Record.load(tmp_path)


def test_flipped_bits_never_end_in_another_error(saved: Path, tmp_path: Path) -> None:
    for name in ("arrays.npz", "record.json"):
        for other in ("arrays.npz", "record.json"):
            (tmp_path / other).write_bytes((saved / other).read_bytes())
        original, rng = (saved / name).read_bytes(), random.Random(1)
        for _ in range(150):
            damaged = bytearray(original)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            (tmp_path / name).write_bytes(bytes(damaged))
            try:
                Record.load(tmp_path)
            except InputError:
                continue
            assert name == "record.json", "arrays that differ from their hash were loaded"


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"schema": ' + "1" * 5000 + "}", "\x00", '{"a": NaN}', "\udcff", "null", ""],
    ids=["deep", "long", "zero", "nan", "surrogate", "null", "empty"],
)
def test_hostile_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"record\.json: "):
        Record.load(tmp_path)


def without_hash(saved: Path, target: Path) -> None:
    data = json.loads((saved / "record.json").read_text())
    del data["arrays_sha256"]
    (target / "record.json").write_text(json.dumps(data))


def test_a_zip_that_would_fill_the_memory_is_refused(saved: Path, tmp_path: Path) -> None:
    without_hash(saved, tmp_path)
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("matrix.accuracy.npy", bytes(2**26))
    with pytest.raises(InputError, match=r"arrays\.npz: not readable \(its arrays need more than"):
        Record.load(tmp_path)


def test_a_header_that_lies_is_refused(saved: Path, tmp_path: Path) -> None:
    without_hash(saved, tmp_path)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000), }"
    header += b" " * (117 - len(header)) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive:
        archive.writestr("matrix.accuracy.npy", content)
    with pytest.raises(InputError, match=r"arrays\.npz: not readable \(.*header does not match"):
        Record.load(tmp_path)


def test_what_commands_a_terminal_is_spelt_out(tmp_path: Path) -> None:
    record = run(name="red\x1b[31m\x07")
    for text in (str(record), as_text(comparison([record, record]))):
        assert "\x1b" not in text
        assert "\x07" not in text
    with pytest.raises(InputError) as caught:
        Record.load(tmp_path / "no\x1b[2Jsuch")
    assert "\x1b" not in str(caught.value)


def test_letters_of_every_kind_are_drawn_and_written(saved: Path, tmp_path: Path) -> None:
    data = json.loads((saved / "record.json").read_text())
    data["stream"]["columns"] = ["夜", "\x1b[2J"]
    data["slices"]["class"]["labels"] = ["猫", "犬", "\ud800", "\u202e"]
    data["slices"]["\ud801"] = data["slices"]["experience"]
    data["reliability"]["\ud801"] = data["reliability"]["after"]
    data["environment"]["numpy"] = "\udcff"
    (tmp_path / "record.json").write_text(json.dumps(data))
    (tmp_path / "arrays.npz").write_bytes((saved / "arrays.npz").read_bytes())
    path = write_report([Record.load(tmp_path)], tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert "猫" in text
    assert "夜" in text
    assert not {"\x1b", "\u202e"} & {*text}


def test_a_label_with_an_underscore_stays_in_the_legend(tmp_path: Path) -> None:
    from cl_lib.report.entries import entries
    from cl_lib.report.plots import over_time

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing = over_time(entries([run(name="_hidden"), run(name="seen")]))
    assert "_hidden" in drawing
    assert "seen" in drawing


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_table_fits_the_terminal(columns: int) -> None:
    long = run(name="a_strategy_with_a_name_that_is_longer_than_a_narrow_terminal_is_wide")
    grid = run(grid={"optim.lr": [0.05, 0.1]})
    for text in (summary(run(), columns), summary(grid, columns), as_text(comparison([long, run()]), columns)):
        assert max(map(len, text.splitlines())) <= columns
        assert "accuracy" in text
