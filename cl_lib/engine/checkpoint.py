"""Checkpoints: nested dicts of tensors in one file, written atomically, read without pickle, restored bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_lib.errors import InputError
from cl_lib.files import read_npz, replace_file
from cl_lib.validation import flat

Tree = dict[str, Any]
JOIN = "|"
"""Separator of the keys of a tree in a file; it is not a dot, because parameter names contain dots."""


def save(path: Path, tree: Tree, meta: dict[str, Any]) -> None:
    """Write ``tree`` (nested dicts of tensors) and ``meta`` (JSON); a reader sees either the old or the new file."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in flat(tree, JOIN).items()}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    arrays["sha256"] = _digest(arrays)
    replace_file(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def load(path: Path) -> tuple[Tree, dict[str, Any]]:
    """The tree and meta written by `save`.

    Raises
    ------
    InputError
        If the file is missing, truncated or not a checkpoint.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state.npz"
    >>> save(path, {"params": {"0.weight": torch.ones(2)}}, {"step": 3})
    >>> load(path)
    ({'params': {'0.weight': tensor([1., 1.])}}, {'step': 3})
    """
    try:
        arrays = read_npz(path, path.stat().st_size)  # checkpoints are not compressed
        digest = arrays.pop("sha256", None)  # checkpoints of version 0.1.0 have none
        if digest is not None and not np.array_equal(digest, _digest(arrays)):
            raise ValueError("its content was changed")
        meta = json.loads(arrays.pop("meta").tobytes())
        tree: Tree = {}
        for name, array in arrays.items():
            *parents, leaf = name.split(JOIN)
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = torch.from_numpy(array)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no checkpoint") from None
    except Exception as error:  # a damaged zip or array header raises nearly anything
        raise unreadable(path, error) from error
    return tree, meta


def _digest(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(digest.digest(), np.uint8)


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a checkpoint that cannot be read."""
    detail = str(error) or type(error).__name__
    return InputError(f"{path}: not a readable checkpoint ({detail}); remove it to start again")


def restore(target: Tree, source: Tree, where: str = "checkpoint") -> None:
    """Copy ``source`` into the tensors of ``target``; both must have the same structure."""
    have, want = flat(source, JOIN), flat(target, JOIN)
    if have.keys() != want.keys():
        differing = sorted(have.keys() ^ want.keys())[:4]
        raise InputError(f"{where}: contains a different state (differs in {', '.join(differing)})")
    for name, tensor in want.items():
        if tensor.shape != have[name].shape or tensor.dtype != have[name].dtype:
            raise InputError(
                f"{where}: {name} is {tuple(have[name].shape)} {have[name].dtype}, "
                f"this run needs {tuple(tensor.shape)} {tensor.dtype}"
            )
        tensor.copy_(have[name])
