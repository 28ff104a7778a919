"""Checkpoints: bit for bit, atomic, refused when broken, readable without pickle."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_lib.engine.checkpoint import load, restore, save
from cl_lib.errors import InputError

DTYPES = [
    torch.float16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
]


def tree() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "params": {"0.body.weight": torch.randn(3, 4, 5, generator=generator), "0.body.bias": torch.zeros(3, 0)},
        "optimiser": {"step": torch.tensor(7), "momentum": {"0.body.weight": torch.randn(2, generator=generator)}},
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 5e-324], dtype=torch.float64),
        "turned": torch.arange(6).reshape(2, 3).T,
    }


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def test_a_tree_comes_back_bit_for_bit(tmp_path: Path) -> None:
    meta = {"step": 3, "job": {"name": "é", "seeds": [0, 1]}, "none": None}
    save(tmp_path / "a.npz", tree(), meta)
    got, got_meta = load(tmp_path / "a.npz")
    assert_same(got, tree())
    assert got_meta == meta


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)], ids=str)
def test_every_type_and_shape_comes_back(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    one = {"x": torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)}
    save(tmp_path / "a.npz", one, {})
    assert_same(load(tmp_path / "a.npz")[0], one)


def test_a_loaded_tensor_can_be_written_to(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", tree(), {})
    load(tmp_path / "a.npz")[0]["params"]["0.body.weight"].add_(1)


def test_numpy_reads_it_without_pickle(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", tree(), {})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert (file["params|0.body.weight"] == tree()["params"]["0.body.weight"].numpy()).all()


# ---------------------------------------------------------------------- atomic
def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    save(path, tree(), {"step": 1})

    def fail(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space"):
        save(path, {"x": torch.zeros(1)}, {"step": 2})
    assert load(path)[1] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for step in range(3):
        save(path, {"x": torch.full((2,), step)}, {"step": step})
    assert load(path)[1] == {"step": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, tree(), {"step": 1})
    with pytest.raises(TypeError):
        save(path, tree(), {"step": object()})
    assert load(path)[1] == {"step": 1}


# ---------------------------------------------------------------------- broken files
def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.npz: there is no checkpoint"):
        load(tmp_path / "b.npz")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, tree(), {"step": 1})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"a\.npz: not a readable checkpoint .*remove it to start again"):
        load(path)


def test_a_corrupt_file_is_refused_or_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, tree(), {"step": 1})
    content = path.read_bytes()
    refused = 0
    for place in range(0, len(content), 3):
        broken = bytearray(content)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            got, meta = load(path)
        except InputError:
            refused += 1
        else:  # a byte that means nothing, as a date or an alignment
            flat = {k: v for k, v in got.items() if k in tree()}
            if flat.keys() == tree().keys():
                assert_same(flat, tree())
                assert meta == {"step": 1}
    assert refused > len(content) / 3 / 3


def test_a_changed_array_is_refused_though_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, tree(), {"step": 1})
    with np.load(path) as file:
        arrays = dict(file)
    for name, array in arrays.items():
        changed = array[1:] if array.ndim and len(array) > 1 else array.astype(np.float16)
        np.savez(path, **{**arrays, name: changed})
        with pytest.raises(InputError, match="its content was changed"):
            load(path)
    del arrays["sha256"]  # as in version 0.1.0
    np.savez(path, **arrays)
    assert_same(load(path)[0], tree())


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": 1}))


def write_objects(path: Path) -> None:
    np.savez(path, meta=np.array([{"step": 1}], dtype=object))


def write_torch(path: Path) -> None:
    torch.save({"x": torch.zeros(2)}, path)


def write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_without_meta(path: Path) -> None:
    np.savez(path, x=np.zeros(2))


def write_text(path: Path) -> None:
    path.write_text("step: 1")


WRITERS = [write_pickle, write_objects, write_torch, write_array, write_without_meta, write_text]


@pytest.mark.parametrize("write", WRITERS)
def test_a_foreign_file_is_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "a.npz")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load(tmp_path / "a.npz")


# ---------------------------------------------------------------------- restore
def test_restore_copies_into_the_same_tensors(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", tree(), {})
    target = {k: ({n: torch.clone(t) for n, t in v.items()} if k == "params" else v) for k, v in tree().items()}
    own = target["params"]["0.body.weight"].zero_()
    restore(target, load(tmp_path / "a.npz")[0])
    assert target["params"]["0.body.weight"] is own
    assert_same(target, tree())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"a": {"x": torch.zeros(2)}, "c": torch.zeros(1)}, r"here: contains a different state \(differs in b, c\)"),
        (
            {"a": {"x": torch.zeros(3)}, "b": torch.zeros(1)},
            r"here: a\|x is \(3,\) torch.float32, this run needs \(2,\)",
        ),
        ({"a": {"x": torch.zeros(2).double()}, "b": torch.zeros(1)}, r"a\|x is \(2,\) torch.float64"),
    ],
)
def test_restore_refuses_another_state(source: dict[str, Any], message: str) -> None:
    target = {"a": {"x": torch.ones(2)}, "b": torch.ones(1)}
    with pytest.raises(InputError, match=message):
        restore(target, source, "here")
