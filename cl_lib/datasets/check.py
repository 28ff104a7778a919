"""Validation of data sets."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from cl_lib.datasets.mapped import pieces
from cl_lib.datasets.samples import Dataset, Samples
from cl_lib.errors import InputError

LOST = 1e-3
"""Largest rounding error allowed, as a fraction of the standard deviation."""
RESERVED = ("class", "experience", "age")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_dataset(dataset: Dataset) -> Dataset:
    """Return `dataset` unchanged if its parts fit together.

    Parameters
    ----------
    dataset : Dataset
        The data to check, with at most two passes over `x`.

    Returns
    -------
    Dataset
        The same object.

    Raises
    ------
    InputError
        If a part is empty, two classes have the same name, `x` is neither uint8 nor floating or has no sample shape,
        `x` contains NaN or infinity, `y` is not int64 or not in [0, C), lengths differ, train and test differ in
        sample shape, dtype or columns, a column's codes are outside its labels, `mean` and `std` do not fit the
        channels or are in units of [0, 1] while pixels are in [0, 255], or images have their channels last.

    Examples
    --------
    >>> part = Samples(torch.zeros(3, 2), torch.tensor([0, 1, 2]))
    >>> check_dataset(Dataset("toy", part, part, classes=("a", "b")))
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: toy, train: y[2] is 2, outside [0, 2): there are 2 classes, labels run from 0 to 1
    """
    name, train, test = dataset.name, dataset.train, dataset.test
    if not dataset.classes:
        raise InputError(f"{name}: classes is empty: name every class")
    twice = [label for label, n in Counter(map(str, dataset.classes)).items() if n > 1]
    if twice:
        raise InputError(f"{name}: classes contains {twice[0]!r} more than once: give every class a different name")
    check_samples(f"{name}, train", train, len(dataset.classes))
    check_samples(f"{name}, test", test, len(dataset.classes))
    for what, of_train, of_test in (
        ("sample shape", tuple(train.x.shape[1:]), tuple(test.x.shape[1:])),
        ("dtype", train.x.dtype, test.x.dtype),
        ("columns", _labels(train), _labels(test)),
    ):
        if of_train != of_test:
            raise InputError(f"{name}: the {what} of train is {of_train}, of test {of_test}: they must be the same")
    channels = dataset.shape[0]
    for what, values in (("mean", dataset.mean), ("std", dataset.std)):
        if len(values) not in (1, channels):
            raise InputError(f"{name}: {what} has {len(values)} values: give 1, or {channels}, one per channel")
        for i, value in enumerate(values):
            if not math.isfinite(value) or (what == "std" and value <= 0):
                right = "positive and finite" if what == "std" else "finite"
                raise InputError(f"{name}: {what}[{i}] is {value}: it must be {right}")
    for part in (train, test):
        check_axes(name, part.x)
        check_units(name, part.x, dataset.mean, dataset.std)
    return dataset


def check_axes(name: str, x: Tensor) -> None:
    """Raise `InputError` for images whose last axis is most likely the channel axis."""
    shape = tuple(x.shape)
    if channels_last(shape[1:]) and (x.dtype == torch.uint8 or shape[1] == shape[2]):
        raise InputError(
            f"{name}: x of shape {shape} looks like images with channels last: give channels first, "
            "x.transpose(0, 3, 1, 2) or x.permute(0, 3, 1, 2)"
        )


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image of this shape has its channels last: read as channels first, it would be 1 to 4 pixels wide.

    Examples
    --------
    >>> channels_last((32, 24, 3)), channels_last((3, 32, 24))
    (True, False)
    """
    return len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) > 4


def check_units(name: str, x: Tensor, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    """Raise `InputError` if `mean` and `std` are in units of [0, 1] and `x` contains pixels in [0, 255]."""
    fraction = mean is not None and any(0 < m < 1 for m in mean) and max(mean) <= 1
    if not x.numel() or not (max(std) < 1 or (fraction and max(std) <= 1) if std is not None else fraction):
        return
    image, pixels = x.dim() > 2, x.dtype == torch.uint8
    if not image and max(len(mean or ()), len(std or ())) > 1:
        return  # features, each with its standard deviation, not pixels
    inspected = pieces(x if pixels else x[:100])
    ranges = [(float(p.min()), float(p.max()), pixels or bool((p == p.round()).all())) for p in inspected]
    least, most = min(low for low, _, _ in ranges), max(high for _, high, _ in ranges)
    if least < 0 or most > 255 or not all(whole for _, _, whole in ranges):
        return
    # counts may have small standard deviations too: unless x has uint8 images, only values above 127 indicate pixels
    if most > (1 if image and pixels else 127):
        given = f"mean={_short(mean)}" if std is None else f"std={_short(std)}"
        kind = "uint8" if pixels else "whole numbers"
        raise InputError(
            f"{name}: {given} is for pixels in [0, 1], and x is {kind} in [0, 255]: give mean and std times 255"
        )


def _short(values: tuple[float, ...] | None) -> str:
    return str(values[0] if values is not None and len(values) == 1 else values)


def check_range(dataset: Dataset, dtype: torch.dtype) -> None:
    """Raise `InputError` if values, raw or normalised, are outside the range of the dtype of a run.

    Data of a wider dtype are rounded to it before the mean is subtracted; if a mean is given, the rounding error must
    not exceed a thousandth of the standard deviation.
    """
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (dataset.mean, dataset.std))
    most, rounding = torch.finfo(dtype).max, torch.finfo(dtype).eps / 2
    short = str(dtype).removeprefix("torch.")
    for i, value in enumerate(dataset.mean):
        if abs(value) > most:
            raise InputError(f"{dataset.name}: mean[{i}] is {value:g}, too large for {short}: scale the data")
    for i, value in enumerate(dataset.std):
        if value > most or not torch.tensor(value, dtype=dtype):
            raise InputError(f"{dataset.name}: std[{i}] is {value:g}, out of the range of {short}: scale the data")
    floating = dataset.train.x.is_floating_point()
    if not floating and bool(((255 + mean.abs()) / std <= most).all()):
        return
    wider = floating and torch.finfo(dataset.train.x.dtype).bits > torch.finfo(dtype).bits
    rounded = f"rounded to float32 before mean={_some(dataset.mean)} is subtracted, to more than {LOST:g} std"
    for part, samples in (("train", dataset.train), ("test", dataset.test)):
        start = 0
        for piece in pieces(samples.x):
            channels = piece.flatten(2) if piece.dim() > 2 else piece.unsqueeze(2)
            # only the extremes of each channel are checked, which needs no copy
            for ends in (channels.amin((0, 2)).double(), channels.amax((0, 2)).double()):
                bad = (ends.abs() > most) | ((ends - mean).abs() > most) | (((ends - mean) / std).abs() > most)
                lost = wider & (mean != 0) & (ends.abs() * rounding > std * LOST)
                if lost.any():  # the actual rounding error may be smaller: that of integers may be 0
                    lost &= (channels.to(dtype).to(channels.dtype) - channels).abs().amax((0, 2)) > std * LOST
                for wrong, why in (
                    (bad, f"too large for {short}: scale the data or drop those samples"),
                    (lost, f"{rounded}: subtract the mean from the data beforehand, or run with dtype=float64"),
                ):
                    if wrong.any():
                        c = int(wrong.nonzero()[0])
                        i = start + int((channels[:, c] == ends[c]).any(1).nonzero()[0])
                        raise InputError(f"{dataset.name}, {part}: x contains {float(ends[c]):g} in sample {i}, {why}")
            start += len(piece)


def _some(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({values[0]:g}, …)"


def check_samples(where: str, samples: Samples, classes: int) -> None:
    """Raise `InputError`, with `where` in front of the message, if one part alone is invalid."""
    x, y = samples.x, samples.y
    if x.layout != torch.strided:
        raise InputError(f"{where}: x is {str(x.layout).removeprefix('torch.')}: give a dense tensor, x.to_dense()")
    if x.is_floating_point() and x.dtype not in FLOATS:
        raise InputError(f"{where}: x is {x.dtype}, a dtype that few operations support: give x.float()")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise InputError(f"{where}: x is {x.dtype}: give uint8 (images) or a floating dtype, such as x.float()")
    if x.dim() < 2:
        raise InputError(f"{where}: x has shape {tuple(x.shape)}: give (N, *shape), x[:, None] for single numbers")
    check_labels(where, x, y)
    if len(x) == 0:
        raise InputError(f"{where}: there are no samples: give at least one")
    if not x.numel():
        raise InputError(f"{where}: x has shape {tuple(x.shape)}: give samples of at least one value")
    if x.is_floating_point():
        values, first, start = 0, 0, 0
        for piece in pieces(x):
            # NaN and infinity appear in the extremes, which take a tenth of the time of a test of each value
            if not torch.stack(piece.aminmax()).isfinite().all():
                finite = torch.isfinite(piece)
                first = first if values else start + int((~finite).flatten(1).any(1).nonzero()[0])
                values += int((~finite).sum())
            start += len(piece)
        if values:
            raise InputError(
                f"{where}: x contains {values} non-finite values (NaN or infinity), first in sample {first}: "
                "fill them in or drop those samples"
            )
    outside = ((y < 0) | (y >= classes)).nonzero()
    if len(outside):
        i = int(outside[0])
        raise InputError(
            f"{where}: y[{i}] is {int(y[i])}, outside [0, {classes}): "
            f"there are {classes} classes, labels run from 0 to {classes - 1}"
        )
    for name, column in samples.columns.items():
        check_column_name(where, name)
        codes = column.codes
        if codes.dtype != torch.int64 or codes.shape != y.shape:
            raise InputError(
                f"{where}: column {name!r} has codes of shape {tuple(codes.shape)} and {codes.dtype}: "
                f"give one int64 code per sample, shape {tuple(y.shape)}"
            )
        if int(codes.min()) < 0 or int(codes.max()) >= len(column.labels):
            raise InputError(
                f"{where}: column {name!r} has codes from {int(codes.min())} to {int(codes.max())}: "
                f"its {len(column.labels)} labels allow [0, {len(column.labels)})"
            )


def check_column_name(where: str, name: object) -> None:
    """Raise `InputError` for a name that a slice column cannot have."""
    if not isinstance(name, str):
        raise InputError(f"{where}: column {name!r} has a {type(name).__name__} as name: give a string, {str(name)!r}")
    if not name.strip():
        raise InputError(f"{where}: column {name!r} has a blank name: give a name that a report can show")
    if name in RESERVED:
        raise InputError(
            f"{where}: column {name!r} has the name of a slicing that every record has ({', '.join(RESERVED)}): rename "
            f"it, for example to my_{name}"
        )


def check_labels(where: str, x: Tensor, y: Tensor) -> None:
    """Raise `InputError` unless `y` contains one int64 label per sample of `x`."""
    if y.is_floating_point():
        if (unknown := y.isnan()).any():
            i = int(unknown.nonzero()[0, 0])
            raise InputError(f"{where}: y[{i}] is nan: leave out the samples without a label, and give integers")
        raise InputError(f"{where}: y is {y.dtype}: labels are integers, y.long() if these are class numbers")
    if y.dtype != torch.int64:
        raise InputError(f"{where}: y is {y.dtype}: give int64, y.long()")
    if y.dim() != 1:
        raise InputError(f"{where}: y has shape {tuple(y.shape)}: give one label per sample, shape ({len(x)},)")
    if len(x) != len(y):
        raise InputError(f"{where}: x has {len(x)} samples and y {len(y)} labels: give as many of each")


def _labels(samples: Samples) -> dict[str, tuple[str, ...]]:
    return {name: column.labels for name, column in samples.columns.items()}
