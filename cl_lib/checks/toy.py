"""Small data and a small stream for checking a strategy within seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cl_lib.datasets import Dataset, from_arrays
from cl_lib.streams import split
from cl_lib.streams.stream import Stream


def toy_data(classes: int = 4, each: int | Sequence[int] = 36, seed: int = 0) -> Dataset:
    """Gaussian blobs in six dimensions, ``each`` samples per class; every fourth sample is test data."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 6)) * 2.5
    y = np.arange(classes).repeat(each)
    x = (centres[y] + rng.normal(size=(len(y), 6))).astype(np.float32)
    test = np.arange(len(y)) % 4 == 0
    return from_arrays((x[~test], y[~test]), (x[test], y[test]), name="toy")


def toy_stream() -> Stream:
    """Two experiences of two classes and 54 samples each, so that the last batch of 10 is short."""
    return split(toy_data(), 2)
