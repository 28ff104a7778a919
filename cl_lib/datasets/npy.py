"""Data sets from folders of ``.npy`` files, whose inputs stay on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl_lib.datasets.arrays import from_arrays
from cl_lib.datasets.mapped import is_mapped
from cl_lib.datasets.samples import Dataset
from cl_lib.errors import InputError

FILES = ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy")


def npy(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> Dataset:
    """Open ``x_train.npy``, ``y_train.npy``, ``x_test.npy`` and ``y_test.npy`` of a folder, of any size.

    Parameters
    ----------
    folder : path
        Folder with the files, as written by `numpy.save`: `x` of shape (N, *shape), uint8 (images, channels first) or
        floating, stays on disk, memory-mapped; `y` of shape (N,), integers, is read into memory.
    name : str, default None
        Name of the data set; None takes the name of the folder.
    classes, mean, std
        As in `from_arrays`.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        If a file is missing or cannot be memory-mapped, or `from_arrays` fails.

    Notes
    -----
    A file that is too large for memory can be written in pieces with ``np.lib.format.open_memmap``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for part, n in (("train", 20), ("test", 10)):
    ...         np.save(f"{folder}/x_{part}.npy", np.zeros((n, 3, 8, 8), np.uint8))
    ...         np.save(f"{folder}/y_{part}.npy", np.arange(n) % 5)
    ...     data = npy(folder, name="blank")
    >>> data
    Dataset(blank: 20 train + 10 test, 5 classes, uint8 (3, 8, 8))
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"folder={folder!r}: give the folder that contains {', '.join(FILES)}")
    home = Path(folder)
    if not home.is_dir():
        raise InputError(f"{home}: there is no such folder; give a folder that contains {', '.join(FILES)}")
    missing = [file for file in FILES if not (home / file).is_file()]
    if missing:
        raise InputError(f"{home}: {', '.join(missing)} missing; it must contain {', '.join(FILES)}")
    x_train, y_train, x_test, y_test = (_open(home / file) for file in FILES)
    title = home.resolve().name if name is None else name
    data = from_arrays((x_train, y_train), (x_test, y_test), name=title, classes=classes, mean=mean, std=std)
    for part, file in ((data.train, FILES[0]), (data.test, FILES[2])):
        if not is_mapped(part.x):
            raise InputError(f"{home / file}: cannot stay on disk; save it in C order and this machine's byte order")
    return data


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if path.name.startswith("x") else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file of numbers ({error})") from error
