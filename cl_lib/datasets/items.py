"""Data sets from map-style PyTorch data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from cl_lib.datasets.arrays import from_arrays
from cl_lib.datasets.samples import Dataset
from cl_lib.errors import InputError


def from_torch(train: Any, test: Any, *, name: str = "torch", classes: Sequence[str] | None = None) -> Dataset:
    """Read every item of two map-style data sets, once and in order.

    Parameters
    ----------
    train, test : map-style data set
        ``len()`` and items (x, y) from index 0: `x` a tensor, PIL image or NumPy array, all with the same shape and
        dtype; `y` an integer. PIL images, uint8 arrays (height, width) and uint8 arrays whose last dimension is
        1, 3 or 4 become uint8 with channels first; other arrays and tensors are unchanged.
    name : str, default "torch"
        Name of the data set.
    classes : sequence of str, default None
        Class names; None takes ``train.classes`` if it has strings, else the labels that occur, in ascending order.

    Returns
    -------
    Dataset
        Mean 0; std 255 for uint8, else 1.

    Raises
    ------
    InputError
        If a data set is not map-style, an item is not a pair (x, y) of these types or differs in shape or dtype from
        the first item (the message names its index), or `check_dataset` fails.

    Notes
    -----
    Random transforms are drawn only once, when the items are read: leave augmentation out of the data set.

    Examples
    --------
    >>> data = from_torch([(torch.full((2,), float(i)), i % 2) for i in range(6)], [(torch.zeros(2), 1)])
    >>> data
    Dataset(torch: 6 train + 1 test, 2 classes, float32 (2,))
    >>> data.train.x[5], data.train.y[5]
    (tensor([5., 5.]), tensor(1))
    """
    if classes is None:
        names = getattr(train, "classes", None)
        classes = names if names and all(isinstance(label, str) for label in names) else None
    parts = [_read(f"{name}, {part}", items) for part, items in (("train", train), ("test", test))]
    return from_arrays(parts[0], parts[1], name=name, classes=classes)


def _read(where: str, items: Any) -> tuple[Tensor, Tensor]:
    if isinstance(items, IterableDataset) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise InputError(f"{where} is of type {type(items).__name__}: give a map-style data set, with len() and items")
    n = len(items)
    x, y = torch.empty(0, 1), torch.zeros(n, dtype=torch.int64)
    for i in range(n):
        item = items[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(f"{where}: item {i} is a {type(item).__name__}: every item must be a pair (x, y)")
        sample, y[i] = _input(where, i, item[0]), _label(where, i, item[1])
        if i == 0:
            x = torch.empty((n, *sample.shape), dtype=sample.dtype)
        if sample.shape != x.shape[1:] or sample.dtype != x.dtype:
            raise InputError(
                f"{where}: x of item {i} is {sample.dtype} of shape {tuple(sample.shape)}, of item 0 {x.dtype} of "
                f"shape {tuple(x.shape[1:])}: all must have the same shape and dtype, so resize or crop them"
            )
        x[i] = sample
    return x, y


def _input(where: str, i: int, value: Any) -> Tensor:
    if np.ma.is_masked(value):
        raise InputError(f"{where}: x of item {i} has masked values: fill them, or leave this sample out")
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if hasattr(value, "getbands"):  # a PIL image, without importing PIL
        if value.mode in ("1", "P"):  # bits and palette indices are not grey levels
            value = value.convert("L" if value.mode == "1" else "RGB")
        value = np.array(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        what = f"ndarray of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{where}: x of item {i} is of type {what}: give a tensor, a PIL image or an array of numbers")
    if value.dtype == np.uint8 and value.ndim == 2:
        value = value[None]
    elif value.dtype == np.uint8 and value.ndim == 3 and value.shape[-1] in (1, 3, 4):
        value = value.transpose(2, 0, 1)
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _label(where: str, i: int, value: Any) -> int:
    if np.ma.is_masked(value):
        raise InputError(f"{where}: y of item {i} is masked: fill it, or leave this sample out")
    if isinstance(value, Tensor | np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    if not isinstance(value, int):
        shown = value if isinstance(value, float | str) else type(value).__name__
        raise InputError(f"{where}: y of item {i} is {shown!r}: give an integer class label")
    return value
