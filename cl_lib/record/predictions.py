"""Predictions of every evaluation, sample by sample, as ``predictions.npz`` stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cl_lib.errors import InputError
from cl_lib.files import read_npz, replace_file

PREDICTIONS = "predictions.npz"
BYTES = 5
"""Bytes of one prediction: two each for the confidence and the NLL, one for the class (two above 256 classes)."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of R replicas in T + 1 evaluations on N test samples.

    Attributes
    ----------
    arrays : dict of ndarray
        ``bits`` ``(R, T + 1, ceil(N / 8))`` uint8, correct predictions as packed bits; ``confidence`` and ``nll``
        ``(R, T + 1, N)`` float16, the NLL at most 60,000; ``predicted`` ``(R, T + 1, N)``, the class. Of the samples:
        ``index`` ``(R or 1, N)``, positions in the test part, ``column``, the test set, and ``label``. ``slice.NAME``
        ``(R or 1, N)``, codes of each metadata column. ``inputs`` ``(E, F, B)``, number of values of each feature of
        each test set in bins that are quantiles of the first test set, for at most 256 features; ``(R, E, F, B)`` where
        replicas have different inputs.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2, save_predictions=True)
    >>> record.predictions
    Predictions(2 replicas, 6 evaluations, 450 samples)
    >>> bool(record.predictions.correct(5)[0].mean() == record.arrays["pooled.accuracy"][0, 5])
    True
    """

    arrays: Mapping[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """R, T + 1 and N."""
        replicas, rows, samples = self.arrays["predicted"].shape
        return replicas, rows, samples

    def __repr__(self) -> str:
        return "Predictions({} replicas, {} evaluations, {:,} samples)".format(*self.shape)

    def row(self, name: str, row: int) -> np.ndarray:
        """One of ``bits``, ``confidence``, ``nll`` and ``predicted`` of a row, replicas first."""
        return self.arrays[name][:, row]

    def correct(self, row: int) -> np.ndarray:
        """``(R, N)`` bool, whether each prediction of a row is correct."""
        samples = self.arrays["column"].shape[1]
        return np.unpackbits(self.row("bits", row), axis=-1, count=samples).astype(bool)

    @cached_property
    def positions(self) -> list[np.ndarray]:
        """Positions of the samples of each test set, which must be the same for all replicas."""
        column = self.arrays["column"]
        if (column != column[:1]).any():
            raise InputError("predictions: the replicas have different test sets; use class_order=natural")
        order = np.argsort(column[0], kind="stable")
        ends = np.cumsum(np.bincount(column[0]))
        return np.split(order, ends[:-1])

    def slices(self, name: str) -> np.ndarray:
        """``(N,)`` codes of a metadata column, or of the ``class``; the same for all replicas."""
        codes = self.arrays["label" if name == "class" else f"slice.{name}"]
        if (codes != codes[:1]).any():
            raise InputError(f"slices {name!r}: the replicas have different test samples; use class_order=natural")
        return codes[0]

    @property
    def names(self) -> list[str]:
        """Names of the slices: ``class`` and the metadata columns."""
        return ["class", *(name.removeprefix("slice.") for name in self.arrays if name.startswith("slice."))]

    def save(self, path: Path) -> str:
        """Write the file and return its SHA-256."""
        replace_file(path, lambda file: np.savez_compressed(file, allow_pickle=False, **self.arrays))
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @classmethod
    def load(cls, path: Path, sha256: str, replicas: int, rows: int) -> Predictions:
        """Read the file and check it against its record.

        Raises
        ------
        InputError
            For a missing or damaged file, or the file of another record.
        """
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ValueError("damaged, or of another run")
            arrays = read_npz(content, 1032 * len(content))  # deflate shrinks by a factor of 1,032 at most
            size = arrays["predicted"].shape[2]
            shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
                ("confidence", "nll", "predicted"), (replicas, rows, size)
            )
            for name, shape in (shapes | {"bits": (replicas, rows, -(-size // 8))}).items():
                if arrays[name].shape != shape:
                    raise ValueError(f"{name}: expected the shape {shape}, found {arrays[name].shape}")
            for name in ("index", "column", "label", *(n for n in arrays if n.startswith("slice."))):
                if arrays[name].shape not in ((1, size), (replicas, size)) or arrays[name].dtype.kind not in "iu":
                    raise ValueError(f"{name}: expected whole numbers of shape (1, {size})")
                if arrays[name].min(initial=0) < 0:
                    raise ValueError(f"{name}: expected no negative numbers")
            found = arrays["inputs"].shape
            if len(found) != 3 and (len(found) != 4 or found[0] != replicas):
                raise ValueError(f"inputs: expected three axes, or four with one entry by replica, found {found}")
        except FileNotFoundError:
            raise InputError(f"{path}: is missing; copy it together with its record") from None
        except Exception as error:  # a damaged zip or array header raises nearly anything
            raise InputError(f"{path}: not readable ({error})") from error
        return cls(arrays)
