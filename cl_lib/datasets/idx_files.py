"""Reading and writing of idx files, the format of MNIST: unsigned bytes with a short header."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
import torch

from cl_lib.datasets.samples import Samples
from cl_lib.errors import InputError

PathLike = str | os.PathLike[str]
Files = dict[str, tuple[Path, Path]]  # "train" and "t10k", each with its images and labels


def read_idx(path: PathLike) -> np.ndarray:
    """Read a file of unsigned bytes in the idx format, compressed with gzip or not.

    Parameters
    ----------
    path : path
        The file; compression is recognised by content, not by the name.

    Returns
    -------
    ndarray of uint8
        With the shape given in the header: (N,) for labels, (N, height, width) for images.

    Raises
    ------
    InputError
        If there is no such file, its gzip stream is damaged, it is not an idx file, or it is shorter or longer than
        its header says.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_idx(f"{folder}/labels", np.array([9, 0, 3], dtype=np.uint8))
    ...     read_idx(f"{folder}/labels")
    array([9, 0, 3], dtype=uint8)
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give an existing idx file") from error
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path} is a damaged gzip file ({error}): download it again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or raw[3] not in (1, 2, 3, 4):
        raise InputError(
            f"{path} starts with bytes {raw[:4].hex(' ')!r}, so it is not an idx file of unsigned bytes: "
            "those start with '00 00 08' and the number of dimensions, 01 for labels, 03 for images"
        )
    header = 4 + 4 * raw[3]
    if len(raw) < header:
        raise InputError(f"{path} ends within its header, after {len(raw)} of {header} bytes: download it again")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", raw[3], offset=4))
    announced = header + int(np.prod(shape, dtype=object))  # object: a damaged header must not overflow
    if len(raw) != announced:
        wrong = "truncated" if len(raw) < announced else "too long"
        raise InputError(
            f"{path} is {wrong}: its header says shape {shape}, {announced} bytes in total, "
            f"and it has {len(raw)}: download it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()


def write_idx(path: PathLike, array: np.ndarray) -> None:
    """Write a uint8 array of 1 to 4 dimensions in the idx format, compressed if `path` ends in .gz.

    Raises
    ------
    InputError
        If `array` is not uint8 or has another number of dimensions.

    Examples
    --------
    >>> write_idx("labels", np.array([0.5]))
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: array is float64 of shape (1,): idx files hold uint8 in 1 to 4 dimensions
    """
    if array.dtype != np.uint8 or not 1 <= array.ndim <= 4:
        raise InputError(f"array is {array.dtype} of shape {array.shape}: idx files hold uint8 in 1 to 4 dimensions")
    raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    Path(path).write_bytes(gzip.compress(raw) if str(path).endswith(".gz") else raw)


def find_files(places: list[Path]) -> Files | None:
    """Return the files of the first folder that has all four."""
    for place in places:
        files: Files = {}
        for part in ("train", "t10k"):
            images, labels = _file(place, f"{part}-images", "idx3"), _file(place, f"{part}-labels", "idx1")
            if images and labels:
                files[part] = images, labels
        if len(files) == 2:
            return files
    return None


def _file(place: Path, stem: str, form: str) -> Path | None:
    names = (f"{stem}{dot}{form}-ubyte{end}" for dot in "-." for end in ("", ".gz"))
    return next((place / name for name in names if (place / name).is_file()), None)


def read_part(images_path: Path, labels_path: Path) -> Samples:
    """Read a file of images and its labels; raise `InputError` if shapes or numbers of samples do not fit."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise InputError(f"{images_path} has shape {images.shape}: must be images of shape (N, 28, 28)")
    if labels.ndim != 1:
        raise InputError(f"{labels_path} has shape {labels.shape}: must be labels of shape (N,)")
    if len(images) != len(labels):
        raise InputError(
            f"{images_path} has {len(images)} images and {labels_path} {len(labels)} labels: "
            "both files must come from the same data set"
        )
    return Samples(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))
