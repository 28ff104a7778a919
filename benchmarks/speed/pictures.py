"""Generated images, as many as one likes: a coarse pattern of each class under noise, so that they can be learnt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cl_lib import InputError
from cl_lib.datasets.npy import FILES

CLASSES, SHAPE, TESTED, AT_ONCE = 10, (3, 64, 64), 2000, 1000
"""Images are uint8; so many of them are tested, and so many made at once."""


def make_pictures(folder: Path, gigabytes: float) -> None:
    """``x_train.npy`` of that size and its companions; what is there with the right size is used again."""
    n = int(gigabytes * 1e9 / np.prod(SHAPE)) // CLASSES * CLASSES
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / file).exists() for file in FILES):
        found = np.load(folder / FILES[0], mmap_mode="r").shape
        if found != (n, *SHAPE):
            raise InputError(f"{folder}: holds images of shape {found}, not {(n, *SHAPE)}; give another --folder")
        return
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes + 1:
        raise InputError(f"{folder}: {free:.1f} GB are free, {gigabytes + 1:.1f} are needed; give another --folder")
    for part, count in (("train", n), ("test", TESTED)):
        np.save(folder / f"y_{part}.npy", np.arange(count) % CLASSES)
        draft = folder / f"x_{part}.partial"
        with draft.open("wb") as file:  # not through memory that would be counted as this process's
            head = {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)}
            np.lib.format.write_array_header_1_0(file, head)
            for images in _images(part, count):
                file.write(images.tobytes())
        draft.replace(folder / f"x_{part}.npy")


def _images(part: str, count: int) -> Iterator[np.ndarray]:
    coarse = np.random.default_rng(0).integers(0, 96, (CLASSES, SHAPE[0], 8, 8), np.uint8)
    patterns = coarse.repeat(8, 2).repeat(8, 3)
    for start in range(0, count, AT_ONCE):
        label = np.arange(start, min(start + AT_ONCE, count)) % CLASSES
        rng = np.random.default_rng([part == "test", start])
        yield patterns[label] + rng.integers(0, 160, (len(label), *SHAPE), np.uint8)
