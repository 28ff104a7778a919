"""Which regime holds in each window of a drifting stream, and what it does to inputs, labels and class proportions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.streams.stream import Transform
from cl_lib.validation import check_whole

Shape = Literal["abrupt", "gradual", "recurring"]


class Regimes(NamedTuple):
    """Regimes of T windows: window t has a share ``rise[t]`` of regime ``new[t]``, the rest of ``old[t]``."""

    old: Tensor
    new: Tensor
    rise: Tensor


def regimes(windows: int, shape: Shape, at: Sequence[int], width: int) -> Regimes:
    """Regime 0 until the first change; each change goes to the next regime, a recurring one to and fro.

    Raises
    ------
    InputError
        If `at` is empty, not rising or not within 1 and windows - 1, or does not fit the shape.

    Examples
    --------
    >>> regimes(6, "gradual", [2], 3).rise
    tensor([1.0000, 1.0000, 0.3333, 0.6667, 1.0000, 1.0000], dtype=torch.float64)
    >>> regimes(6, "recurring", [1], 2).new
    tensor([0, 1, 1, 0, 0, 1])
    """
    check_whole("stream.width", width, 1)
    points = list(at)
    for point in points:
        check_whole("stream.at", point)
    if not points or points[0] < 1 or points[-1] >= windows or sorted(set(points)) != points:
        raise InputError(f"stream.at={points}: must be rising windows from 1 to {windows - 1}, counted from 0")
    if shape == "recurring" and len(points) > 1:
        raise InputError(f"stream.at={points}: give one window, from which a recurring drift alternates every width")
    if shape == "gradual" and any(b - a < width for a, b in pairwise([*points, windows])):
        raise InputError(f"stream.at={points}: a gradual change needs width={width} windows before the next or the end")
    window = torch.arange(windows)
    if shape == "recurring":
        new = torch.where(window < points[0], 0, 1 - (window - points[0]).div(width, rounding_mode="floor") % 2)
        return Regimes(new, new, torch.ones(windows, dtype=torch.float64))
    new = (window[:, None] >= torch.tensor(points)).sum(1)
    since = window - torch.tensor([0, *points])[new]
    rise = ((since + 1).double() / width).clamp(max=1.0) if shape == "gradual" else torch.ones(windows).double()
    rise[new == 0] = 1.0
    return Regimes(torch.where(rise < 1, new - 1, new), new, rise)


def transforms(mix: Regimes, size: int, strength: float, seed: int) -> Transform:
    """Inputs of regime r > 0: a share ``strength`` of a permutation, the rest as they are.

    A gradual change moves the weights from the permutation of one regime to that of the next.
    """
    generator = torch.Generator().manual_seed(seed)
    same = torch.arange(size)
    orders = [same, *(torch.randperm(size, generator=generator) for _ in range(int(mix.new.max())))]
    table = torch.stack(orders)
    pixel = torch.stack([same.expand(len(mix.new), -1), table[mix.old], table[mix.new]], -1)
    share = torch.stack([torch.full_like(mix.rise, 1 - strength), strength * (1 - mix.rise), strength * mix.rise], -1)
    share[mix.new == 0] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    used = share.any(0)
    weight = share[:, None, used].expand(-1, size, -1).float()
    return Transform(pixel[..., used].contiguous(), None if bool((weight == 1).all()) else weight)


def label_tables(mix: Regimes, classes: int, strength: float) -> Tensor:
    """Label ``(T, classes)`` of each class in each window.

    Regime r moves the first ``round(strength * classes)`` classes, at least two, on by r places in a circle. In a
    gradual change the circle of the next regime grows by classes, as a window has one label for each class.

    Examples
    --------
    >>> label_tables(regimes(4, "abrupt", [2], 1), 3, 1.0).tolist()
    [[0, 1, 2], [0, 1, 2], [1, 2, 0], [1, 2, 0]]
    """
    if classes < 2:
        raise InputError("stream.kind=concept: needs 2 classes or more")
    moved, steps = max(2, round(strength * classes)), round(1 / float(mix.rise.min()))
    if moved <= steps and steps > 1:
        fits = f"take width={moved - 1} or less, or shape=abrupt" if moved > 2 else "take shape=abrupt"
        raise InputError(
            f"stream.width={steps}: a gradual concept drift moves one class after the other, two in its first step, as "
            f"a window has one label for each class, and {moved} classes move: {fits}"
        )
    rows = []
    for old, new, rise in zip(mix.old.tolist(), mix.new.tolist(), mix.rise.tolist(), strict=True):
        row = torch.arange(classes)
        row[:moved] = (row[:moved] + old) % moved
        if old != new:
            circle = max(1 + round(rise * steps), round(rise * moved))  # larger in each step
            row = torch.where(row < circle, (row + 1) % circle, row)
        rows.append(row)
    return torch.stack(rows)


def keep_shares(mix: Regimes, classes: int, strength: float) -> Tensor:
    """Share ``(T, classes)`` of each class's samples that a window keeps.

    Regimes 1, 3, … lose a share ``strength`` of the first half of the classes, regimes 2, 4, … of the second half.

    Examples
    --------
    >>> keep_shares(regimes(3, "abrupt", [2], 1), 2, 0.75).tolist()
    [[1.0, 1.0], [1.0, 1.0], [0.25, 1.0]]
    """
    if classes < 2:
        raise InputError("stream.kind=label: needs 2 classes or more")
    share = torch.ones(int(mix.new.max()) + 1, classes, dtype=torch.float64)
    share[1::2, : classes // 2] = 1 - strength
    share[2::2, classes // 2 :] = 1 - strength
    return (1 - mix.rise[:, None]) * share[mix.old] + mix.rise[:, None] * share[mix.new]
