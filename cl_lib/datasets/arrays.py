"""Data sets from tensors and NumPy arrays, in memory or memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.masked import MaskedTensor

from cl_lib.datasets.check import check_column_name, check_dataset, check_labels, check_samples, check_units
from cl_lib.datasets.columns import Column, as_list
from cl_lib.datasets.mapped import from_memmap, is_mapped
from cl_lib.datasets.samples import Dataset, Samples
from cl_lib.datasets.split import stratified_split
from cl_lib.errors import InputError
from cl_lib.validation import is_number

Array = Tensor | np.ndarray
Scale = float | Sequence[float] | None

MAX_UNNAMED_CLASSES = 100_000  # a larger label is an identifier, not a class number


def from_arrays(
    train: tuple[Array, Array],
    test: tuple[Array, Array] | float,
    *,
    name: str = "arrays",
    classes: Sequence[str] | None = None,
    columns: Mapping[str, Any] | None = None,
    mean: Scale = None,
    std: Scale = None,
    seed: int = 0,
) -> Dataset:
    """Make a data set from tensors or NumPy arrays, without a copy if their memory can be shared.

    Parameters
    ----------
    train : (x, y)
        `x` of shape (N, *shape), uint8 (images, channels first) or floating, kept in its dtype; `y` of shape (N,),
        integers; without ``classes``, the labels that occur are the classes. A memory-mapped `x`
        (``np.load(file, mmap_mode="r")``) stays on disk, unless it is not contiguous or has another byte order.
    test : (x, y), or float in (0, 1)
        The test part, or the fraction of every class of `train` to use as the test part, unless `train` is
        memory-mapped.
    name : str, default "arrays"
        Name of the data set.
    classes : sequence of str, default None
        Class names, for labels in [0, C); None: the labels that occur, in ascending order.
    columns : mapping, default None
        Metadata by name: one value per sample, or a pair (train values, test values) if `test` is a pair (x, y).
    mean, std : float or sequence of float, default None
        The model sees ``(x - mean) / std``, with one value per channel or one value for all channels. Default: mean
        0; std 255 for uint8, else 1.
    seed : int, default 0
        Seed of the stratified split; not used if `test` is a pair (x, y).

    Returns
    -------
    Dataset
        On the CPU, with `y` as int64.

    Raises
    ------
    InputError
        If `train` or `test` is not a pair of arrays, a column does not fit, or `check_dataset` fails.

    Examples
    --------
    >>> x, y = np.arange(16, dtype=np.float32).reshape(8, 2), np.array([0, 1] * 4)
    >>> data = from_arrays((x, y), test=0.25, columns={"sensor": ["a", "a", "b", "b"] * 2})
    >>> data
    Dataset(arrays: 6 train + 2 test, 2 classes, float32 (2,), columns sensor)
    >>> data.train.columns["sensor"]
    Column(6 samples: a 2, b 4)
    """
    first = _pair(f"{name}, train", train)
    if isinstance(test, int | float | np.number):
        if is_mapped(first[0]):
            raise InputError(
                f"{name}: test={test} would read the memory-mapped x into memory to split it; give the test part as a "
                "pair (x, y), such as slices of the same arrays"
            )
        names = _classes(name, classes, first[1])
        first = first[0], _numbered(first[1], names, classes is not None)
        whole, classes = Samples(*first, _columns(name, columns or {}, len(first[1]))), names
        check_samples(f"{name}, train", whole, len(classes))  # before the split, so that messages name the input index
        fit, held_out = (whole.take(index) for index in stratified_split(whole.y, test, seed))
    else:
        second = _pair(f"{name}, test", test)
        names = _classes(name, classes, torch.cat([first[1], second[1]]))
        first, second = ((x, _numbered(y, names, classes is not None)) for x, y in (first, second))
        classes = names
        n, m = len(first[1]), len(second[1])
        # one column for both parts, so that a category has the same code in both
        joined = _columns(name, {key: _join(name, key, values) for key, values in (columns or {}).items()}, n + m)
        fit = Samples(*first, {key: column.take(slice(n)) for key, column in joined.items()})
        held_out = Samples(*second, {key: column.take(slice(n, None)) for key, column in joined.items()})
    means, stds = _floats(name, "mean", mean), _floats(name, "std", std)
    if stds is None and fit.x.dtype == torch.uint8:
        check_units(name, fit.x, means, None)
        if fit.x.dim() == 2:
            raise InputError(
                f"{name}: x is uint8 of shape {tuple(fit.x.shape)}: give std=255 if these are pixels, std=1 if "
                "they are counts or codes"
            )
        stds = (255.0,)
    means, stds = (0.0,) if means is None else means, (1.0,) if stds is None else stds
    return check_dataset(Dataset(name, fit, held_out, classes, means, stds))


def _classes(name: str, classes: Sequence[str] | None, y: Tensor) -> tuple[str, ...]:
    if classes is not None:
        if not isinstance(classes, Iterable):
            raise InputError(f"{name}: classes={classes!r}: give a name for each class")
        return tuple(map(str, classes))
    present = y.unique().tolist() or [0]
    if present[-1] >= MAX_UNNAMED_CLASSES:
        raise InputError(f"{name}: the largest label is {present[-1]}: number the classes from 0, or give classes=")
    if present[0] < 0:
        return tuple(str(label) for label in range(max(0, present[-1]) + 1))  # `check_samples` raises the error
    return tuple(map(str, present))


def _numbered(y: Tensor, classes: tuple[str, ...], given: bool) -> Tensor:
    """Labels as positions in ``classes``, if the classes are the labels that occur."""
    if given or not len(y) or int(y.min()) < 0 or classes == tuple(map(str, range(len(classes)))):
        return y
    return torch.searchsorted(torch.tensor([int(name) for name in classes]), y)


def _pair(where: str, pair: tuple[Array, Array]) -> tuple[Tensor, Tensor]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"{where}: give a pair (x, y), not {type(pair).__name__}")
    mapped = from_memmap(pair[0]) if isinstance(pair[0], np.ndarray) else None
    x, y = _tensor(where, "x", pair[0]) if mapped is None else mapped, _tensor(where, "y", pair[1])
    if not (y.is_floating_point() or y.is_complex()):
        y = y.long()
    check_labels(where, x, y)
    return x, y


def _tensor(where: str, what: str, array: Array) -> Tensor:
    if isinstance(array, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(array).sum())
        if masked:
            raise InputError(f"{where}: {what} has {masked} masked values: fill them, or leave those samples out")
        array = array.data
    if isinstance(array, MaskedTensor):
        raise InputError(f"{where}: {what} is a MaskedTensor: fill the masked values, or leave those samples out")
    if isinstance(array, np.ndarray):
        if array.dtype.kind == "O" and array.ndim:
            _check_objects(where, what, array)
        if array.dtype.kind not in "biufc":
            raise InputError(f"{where}: {what} is an array of {array.dtype}: give numbers")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        array = torch.from_numpy(np.require(native, requirements=["C", "W"]))  # torch can share writable memory only
    if not isinstance(array, Tensor):
        raise InputError(f"{where}: {what} is a {type(array).__name__}: give a tensor or a NumPy array")
    if array.is_meta or array.is_nested:
        raise InputError(f"{where}: {what} is a {'meta' if array.is_meta else 'nested'} tensor: give a dense one")
    if array.dim() == 0:
        raise InputError(f"{where}: {what} is a single number: give one entry per sample")
    return array.detach().cpu()


def _check_objects(where: str, what: str, array: np.ndarray) -> None:
    """Raise `InputError` for the first value of an object array that is missing or of a different type."""
    first: dict[str, object] = {}
    for i, value in enumerate(array.ravel().tolist()):
        if value is None or type(value).__name__ in ("NAType", "NaTType") or (is_number(value) and value != value):
            sample = i // (array.size // len(array))
            raise InputError(f"{where}: {what} is missing in sample {sample} ({value}): leave out that sample")
        kind = "number" if is_number(value) else type(value).__name__
        first.setdefault(kind, value)
        if len(first) > 1:
            a, b = first.values()
            raise InputError(f"{where}: {what} contains {a!r} and {b!r}, of two types: give numbers")


def _columns(name: str, columns: Mapping[str, Any], n: int) -> dict[str, Column]:
    out: dict[str, Column] = {}
    for given, values in columns.items():
        key = str(given) if isinstance(given, int | np.integer) else given
        check_column_name(name, key)
        if key in out:
            raise InputError(f"{name}: two columns have the name {key!r}: rename one")
        try:
            out[key] = Column.of(values)
        except InputError as error:
            raise InputError(f"{name}: column {key!r}: {error}") from error
        if len(out[key].codes) != n:
            raise InputError(f"{name}: column {key!r} has {len(out[key].codes)} values: give {n}, one per sample")
    return out


def _join(name: str, key: str, values: Any) -> list[object]:
    if not isinstance(values, tuple | list) or len(values) != 2 or any(isinstance(v, str) for v in values):
        raise InputError(f"{name}: column {key!r} must be a pair (train values, test values), as test is a pair (x, y)")
    return [value for part in values for value in as_list(part)]


def _floats(name: str, what: str, values: Scale) -> tuple[float, ...] | None:
    if values is None:
        return None
    if np.ma.is_masked(values):
        raise InputError(f"{name}: {what} has masked values: fill them")
    try:
        return tuple(np.asarray(values, dtype=np.float64).ravel().tolist())
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {what}={values!r}: must be a number, or one for each channel") from error
