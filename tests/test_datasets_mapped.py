"""Memory-mapped inputs: what stays in its file, what is checked and hashed of it, and a folder of such files."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_lib import InputError, datasets, streams
from cl_lib.cli import main as cli
from cl_lib.datasets import Dataset, Samples, check_dataset, from_arrays, mapped
from cl_lib.datasets.mapped import copy_rows, from_memmap, is_mapped, pieces, release

X = np.random.default_rng(0).integers(0, 256, (60, 3, 4, 4)).astype(np.uint8)
Y = np.arange(60) % 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def opened(file: Path) -> Any:
    return np.load(file, mmap_mode="r")


# ---------------------------------------------------------------------- what stays in its file
CUTS = {
    "all": lambda x: x,
    "a slice": lambda x: x[7:50],
    "a slice of a slice": lambda x: x[7:50][3:],
    "not a memmap any more": lambda x: np.asarray(x)[10:],
    "another shape": lambda x: x.reshape(60, -1),
    "a single sample": lambda x: x[5:6],
}


@pytest.mark.parametrize("name", CUTS)
def test_contiguous_parts_of_a_file_stay_in_it(name: str, file: Path) -> None:
    cut = CUTS[name]
    tensor = from_memmap(cut(opened(file)))
    assert tensor is not None
    assert is_mapped(tensor)
    assert np.array_equal(tensor, cut(X))
    assert is_mapped(tensor[1:])
    assert not is_mapped(tensor.clone())
    release(tensor)
    release(tensor[1:])
    assert np.array_equal(tensor, cut(X))


@pytest.mark.parametrize("offset", [0, 1, 5, 4096, 5000])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_raw_files_may_begin_anywhere(offset: int, mode: Any, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, 20_000 + offset).astype(np.uint8)
    raw.tofile(tmp_path / "raw")
    array = np.memmap(tmp_path / "raw", np.uint8, mode, offset, (100, 200))
    tensor = from_memmap(array)
    assert tensor is not None
    release(tensor[50:])
    assert np.array_equal(tensor, raw[offset:].reshape(100, 200))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_every_dtype_of_inputs_is_copied_row_by_row(dtype: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.astype(dtype))
    tensor, index = from_memmap(opened(tmp_path / "x.npy")), np.array([5, 0, 59, 5])
    assert tensor is not None
    out = torch.empty(6, 3, 4, 4, dtype=tensor.dtype)
    copy_rows(tensor, index, out)
    assert np.array_equal(out[:4], X[index].astype(dtype))


def test_what_cannot_be_shared_is_read(file: Path) -> None:
    np.save(file.with_name("f.npy"), np.asfortranarray(X))
    np.save(file.with_name("big.npy"), X.astype(">f4"))
    x = opened(file)
    others = [x[::2], x[:, :2], x.transpose(3, 0, 1, 2), opened(file.with_name("f.npy")), X]
    others += [opened(file.with_name("big.npy")), np.load(file, mmap_mode="c"), x[:0], np.zeros(3)]
    for array in others:
        assert from_memmap(array) is None
    for array in others[3:7]:
        data = from_arrays((array, Y), (X.astype(array.dtype), Y))
        assert not is_mapped(data.train.x)
        assert np.array_equal(data.train.x, X)


def test_a_file_is_forgotten_with_its_last_tensor(file: Path) -> None:
    gc.collect()
    before = len(mapped._files)
    tensor = from_memmap(opened(file))
    assert tensor is not None
    view = tensor[3:]
    del tensor
    gc.collect()
    assert is_mapped(view)
    del view
    gc.collect()
    assert len(mapped._files) == before


def test_two_tensors_of_one_array_do_not_depend_on_each_other(file: Path) -> None:
    array = opened(file)
    one, other = from_memmap(array), from_memmap(array[:30])
    del other
    gc.collect()
    assert one is not None
    assert is_mapped(one)


# ---------------------------------------------------------------------- data sets
def test_arrays_keep_inputs_in_their_file_and_labels_in_memory(file: Path) -> None:
    np.save(file.with_name("y.npy"), Y)
    x, y = opened(file), opened(file.with_name("y.npy"))
    data = from_arrays((x[:40], y[:40]), (x[40:], y[40:]))
    assert is_mapped(data.train.x)
    assert is_mapped(data.test.x)
    assert not is_mapped(data.train.y)
    assert data.fingerprint() == from_arrays((X[:40], Y[:40]), (X[40:], Y[40:])).fingerprint()
    part = data.train.take(slice(10)), data.train.take(torch.arange(10))
    assert [is_mapped(samples.x) for samples in part] == [True, False]


def test_a_share_of_a_mapped_file_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match=r"arrays: test=0.2 would read the memory-mapped x into memory.*pair"):
        from_arrays((opened(file), Y), 0.2)


def test_pieces_cover_everything_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = from_arrays((X, Y), (X, Y)).fingerprint()
    tensor = from_memmap(opened(file))
    assert tensor is not None
    for size in (1, 48, 100, 10**6):
        monkeypatch.setattr(mapped, "PIECE", size)
        for x in (tensor, torch.from_numpy(X)):
            assert torch.equal(torch.cat(list(pieces(x))), torch.from_numpy(X))
            assert max(piece.nbytes for piece in pieces(x)) <= max(size, 48)
        assert from_arrays((opened(file), Y), (X, Y)).fingerprint() == whole


@pytest.mark.parametrize("size", [1, 10_000, 2**25])
def test_values_that_are_not_finite_are_found_in_any_piece(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "PIECE", size)
    x = X.astype(np.float32)
    x[[17, 17, 44], 0, [0, 1, 2], 0] = np.nan, np.inf, np.nan
    np.save(tmp_path / "x.npy", x)
    for array in (x, opened(tmp_path / "x.npy")):
        with pytest.raises(InputError, match=r"x contains 3 non-finite values \(NaN or infinity\), first in sample 17"):
            from_arrays((array, Y), (X.astype(np.float32), Y))


def test_a_file_cut_short_is_noticed_before_it_is_read(file: Path) -> None:
    data = from_arrays((opened(file), Y), (X, Y))
    with file.open("r+b") as raw:
        raw.truncate(1000)
    for read in (
        data.fingerprint,
        lambda: list(pieces(data.train.x)),
        lambda: mapped.take(data.train.x, torch.ones(1)),
    ):
        with pytest.raises(InputError, match=r"x\.npy: has become shorter since it was opened"):
            read()


def test_a_stream_of_a_file_is_checked(file: Path) -> None:
    np.save(file, np.concatenate([X, X[:3]]))
    x, y = opened(file), np.append(Y, Y[:3])
    data = from_arrays((x[:60], y[:60]), (x[60:], y[60:]), classes=list("abcde"))
    report = streams.check_stream(streams.permuted(data, 2))
    assert (report.train, report.test, report.train_test_duplicates) == (60, 3, 3)


# ---------------------------------------------------------------------- a folder
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "mine"
    home.mkdir()
    for part in ("train", "test"):
        np.save(home / f"x_{part}.npy", X)
        np.save(home / f"y_{part}.npy", Y.astype(np.int32))
    return home


def test_a_folder_is_opened(folder: Path) -> None:
    data = datasets.npy(folder, mean=100, std=[50.0, 60.0, 70.0], classes=list("abcde"))
    assert (data.name, data.classes, data.mean, data.std) == ("mine", tuple("abcde"), (100.0,), (50.0, 60.0, 70.0))
    assert is_mapped(data.train.x)
    assert is_mapped(data.test.x)
    assert data.fingerprint() == from_arrays((X, Y), (X, Y)).fingerprint()
    assert datasets.npy(str(folder), name="own").name == "own"


def test_a_folder_without_its_files_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such folder; give a folder that contains x_train\.npy"):
        datasets.npy(folder / "nowhere")
    (folder / "y_test.npy").unlink()
    (folder / "x_train.npy").unlink()
    with pytest.raises(InputError, match=r"mine: x_train\.npy, y_test\.npy missing; it must contain"):
        datasets.npy(folder)


BROKEN = {
    "a text": lambda path: path.write_text("no array"),
    "nothing": lambda path: path.write_bytes(b""),
    "objects": lambda path: np.save(path, np.array([{}], dtype=object)),
    "half of it": lambda path: path.write_bytes(path.read_bytes()[:-100]),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("which", ["x_train.npy", "y_test.npy"])
def test_a_file_that_is_no_array_is_named(name: str, which: str, folder: Path) -> None:
    BROKEN[name](folder / which)
    with pytest.raises(InputError, match=rf"{which}: not a readable \.npy file of numbers"):
        datasets.npy(folder)


def test_a_file_that_cannot_be_mapped_is_named(folder: Path) -> None:
    np.save(folder / "x_test.npy", np.asfortranarray(X))
    with pytest.raises(InputError, match=r"x_test\.npy: cannot stay on disk; save it in C order"):
        datasets.npy(folder)


def test_a_folder_from_the_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    argv = ["data@stream.data=npy", "stream.name=split_mine", "strategy.memory.capacity=10", "seeds=2", "epochs=1"]
    argv += ["progress=false", "device=cpu"]
    assert cli._guarded("cl-bench", cli._bench, [*argv, "out=a"]) == 2
    assert "folder=None: give the folder that contains x_train.npy" in capsys.readouterr().err
    own = [*argv, "stream.data.folder=mine"]
    for out, store in (("b", "auto"), ("c", "resident")):
        assert cli._guarded("cl-bench", cli._bench, [*own, f"engine.store={store}", f"out={out}"]) == 0
    records = [json.loads(Path(out, "record.json").read_text()) for out in ("b", "c")]
    assert [record["job"]["store"] for record in records] == ["auto", "resident"]
    assert records[0]["accuracy_matrix"] == records[1]["accuracy_matrix"]
    assert records[0]["stream"]["data_hash"] == records[1]["stream"]["data_hash"]


def test_a_data_set_can_be_made_by_hand(file: Path) -> None:
    x, y = from_memmap(opened(file)), torch.from_numpy(Y)
    assert x is not None
    data = check_dataset(Dataset("own", Samples(x[:40], y[:40]), Samples(x[40:], y[40:]), tuple("abcde")))
    assert is_mapped(data.test.x)
