"""Trees of tensors in one file: written atomically, read without pickle, restored bit for bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl_lib.errors import InputError

Tree = dict[str, Any]


def save(path: Path, tree: Tree, meta: dict[str, Any]) -> None:
    """Write ``tree`` (nested dicts of tensors) and ``meta`` (JSON); a reader sees the old file or the new."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in _flatten(tree)}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> tuple[Tree, dict[str, Any]]:
    """The tree and meta written by `save`.

    Raises
    ------
    InputError
        For a file that is missing, truncated or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "state.npz"
    >>> save(path, {"params": {"0.weight": torch.ones(2)}}, {"step": 3})
    >>> load(path)
    ({'params': {'0.weight': tensor([1., 1.])}}, {'step': 3})
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            flat = {name: torch.from_numpy(file[name]) for name in file.files if name != "meta"}
    except FileNotFoundError:
        raise InputError(f"{path}: there is no checkpoint") from None
    except Exception as error:  # a damaged zip or array header raises nearly anything
        raise InputError(f"{path}: not a readable checkpoint ({error}); remove it to start anew") from error
    tree: Tree = {}
    for name, tensor in flat.items():
        *parents, leaf = name.split("|")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = tensor
    return tree, meta


def restore(target: Tree, source: Tree, where: str = "checkpoint") -> None:
    """Copy ``source`` into the tensors of ``target``; both must have the same structure."""
    have, want = dict(_flatten(source)), dict(_flatten(target))
    if have.keys() != want.keys():
        odd = sorted(have.keys() ^ want.keys())[:4]
        raise InputError(f"{where}: holds another kind of state (differs in {', '.join(odd)})")
    for name, tensor in want.items():
        if tensor.shape != have[name].shape or tensor.dtype != have[name].dtype:
            raise InputError(
                f"{where}: {name} is {tuple(have[name].shape)} {have[name].dtype}, "
                f"this run needs {tuple(tensor.shape)} {tensor.dtype}"
            )
        tensor.copy_(have[name])


def _flatten(tree: Tree, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Leaves with their names; ``|`` joins the keys, since parameter names hold dots."""
    out: list[tuple[str, Tensor]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        out += _flatten(value, f"{name}|") if isinstance(value, dict) else [(name, value)]
    return out
