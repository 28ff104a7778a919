"""Data set classes: samples with labels and slice columns, in a train and a test part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cl_lib.datasets.columns import Column
from cl_lib.datasets.mapped import pieces


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs, labels and metadata of N samples.

    Parameters
    ----------
    x : Tensor of shape (N, *shape), uint8 or floating
        Inputs as they are stored: images as uint8 in [0, 255], channels first. Memory-mapped inputs stay on disk.
    y : Tensor of shape (N,), int64
        Class labels in [0, C).
    columns : mapping of str to Column, default {}
        Metadata by name.

    Examples
    --------
    >>> samples = Samples(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    >>> samples
    Samples(4 x uint8 (1, 8, 8))
    >>> samples.take(torch.tensor([2, 3])).y
    tensor([1, 0])
    """

    x: Tensor
    y: Tensor
    columns: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor | slice) -> Samples:
        """Return the samples at `index`, with their columns."""
        columns = {name: column.take(index) for name, column in self.columns.items()}
        return Samples(self.x[index], self.y[index], columns)

    def __repr__(self) -> str:
        columns = f", columns {', '.join(self.columns)}" if self.columns else ""
        return f"Samples({len(self):,} x {_dtype(self.x)} {tuple(self.x.shape[1:])}{columns})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set with a train and a test part; the model sees ``(x - mean) / std``.

    Parameters
    ----------
    name : str
        Short name, as it appears in records and reports.
    train, test : Samples
        The two parts, with the same sample shape and dtype.
    classes : tuple of str
        Name of each of the C classes.
    mean, std : tuple of float, default (0.0,) and (1.0,)
        In units of `x`: one value per channel (dim 0 of a sample), or a single value for all channels.

    Examples
    --------
    >>> part = Samples(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    >>> data = Dataset("blank", part, part, classes=("a", "b"), std=(255.0,))
    >>> data
    Dataset(blank: 4 train + 4 test, 2 classes, uint8 (1, 8, 8))
    >>> data.fingerprint()
    '4df7be22f4a37658'
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train.x.shape[1:])

    def fingerprint(self) -> str:
        """Return the data hash: 16 hex digits of the SHA-256 over x and y of train and test."""
        digest = hashlib.sha256()
        for tensor in (self.train.x, self.train.y, self.test.x, self.test.y):
            # dtype and shape are hashed too: the same bytes in another shape are different data
            digest.update(f"{_dtype(tensor)}{tuple(tensor.shape)}".encode())
            for piece in pieces(tensor.detach()):
                digest.update(piece.cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def column_fingerprint(self) -> str:
        """Return a hash of the metadata columns: names, labels and codes of both parts."""
        digest = hashlib.sha256()
        for samples in (self.train, self.test):
            for name, column in sorted(samples.columns.items()):
                digest.update(repr((name, column.labels)).encode())
                digest.update(column.codes.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        columns = f", columns {', '.join(self.test.columns)}" if self.test.columns else ""
        return (
            f"Dataset({self.name}: {len(self.train):,} train + {len(self.test):,} test, "
            f"{len(self.classes)} classes, {_dtype(self.train.x)} {self.shape}{columns})"
        )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
