"""Rotated streams: all the data in each experience, rotated by a different angle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch

from cl_lib.datasets import Dataset
from cl_lib.datasets.check import channels_last
from cl_lib.errors import InputError
from cl_lib.streams.stream import (
    Classes,
    Scenario,
    SeededStream,
    Stream,
    Transform,
    answerable,
    check_split,
    every_experience,
    restricted,
    spread_classes,
)
from cl_lib.validation import is_number


def rotated(
    data: Dataset,
    experiences: int = 10,
    *,
    angles: Sequence[float] | None = None,
    scenario: Scenario = "domain",
    by_seed: bool = True,
    valid: float = 0.0,
    train_classes: Classes | None = None,
    eval_classes: Classes | None = None,
    name: str | None = None,
) -> Stream:
    """One rotation for each experience (Lopez-Paz & Ranzato 2017), bilinear, about the image's centre.

    Parameters
    ----------
    data : Dataset
        Data set of images of shape (C, H, W).
    experiences : int, default 10
    angles : sequence of float, optional
        Degrees counter-clockwise, one for each experience; default: uniform in [0, 180).
    by_seed : bool, default True
        Whether angles are drawn from each run's seed; False: the same for all runs.

    Raises
    ------
    InputError
        For data that are not images, or a wrong number of angles.

    Examples
    --------
    >>> from cl_lib import datasets
    >>> rotated(datasets.digits(), 2, angles=[0, 90]).columns
    ('rotation 1 (0°)', 'rotation 2 (90°)')
    """
    if len(data.shape) != 3:
        raise InputError(f"stream rotated: needs images of shape (C, H, W), {data.name} has {tuple(data.shape)}")
    if channels_last(data.shape):
        raise InputError(
            f"stream rotated: {data.name} has {tuple(data.shape)}, which looks like channels last: give "
            "channels first, x.transpose(0, 3, 1, 2) or x.permute(0, 3, 1, 2)"
        )
    if angles is not None and len(angles) != experiences:
        raise InputError(
            f"stream.angles: {len(angles)} given for {experiences} experiences; give one angle for each experience"
        )
    check_split(experiences, valid)
    if angles is not None and not all(is_number(a) and math.isfinite(a) for a in angles):
        raise InputError(f"stream.angles={list(angles)}: must be finite numbers, degrees")
    names, targets, table = spread_classes(data, experiences, scenario)
    given = None if angles is None else tuple(float(a) for a in angles)
    columns = tuple(f"rotation {e + 1}" + (f" ({given[e]:g}°)" if given else "") for e in range(experiences))
    stream = Stream(
        name or f"rotated_{data.name}",
        data,
        scenario,
        names,
        columns,
        experiences,
        partial(_realise, data, experiences, given, by_seed, valid, targets, table),
        *answerable(scenario),
        {"kind": "rotated", "angles": list(given) if given else None, "by_seed": by_seed, "valid": valid},
        True,
    )
    return restricted(stream, train_classes, eval_classes)


def _realise(
    data: Dataset,
    experiences: int,
    angles: tuple[float, ...] | None,
    by_seed: bool,
    valid: float,
    targets: torch.Tensor | None,
    table: torch.Tensor,
    seed: int,
) -> SeededStream:
    generator = torch.Generator().manual_seed(seed if by_seed else 0)
    turns = angles or (torch.rand(experiences, generator=generator) * 180).tolist()
    maps = [_bilinear(a, *data.shape[1:]) for a in turns]
    transform = Transform(torch.stack([i for i, _ in maps]), torch.stack([w for _, w in maps]))
    return SeededStream(
        **every_experience(data, experiences, valid), classes=table, targets=targets, transform=transform
    )


def _bilinear(angle: float, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Index and weight ``(H * W, 4)`` of the four neighbours of each rotated pixel; weight 0 outside the image."""
    turn = math.radians(angle)
    row, column = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    y = math.cos(turn) * row + math.sin(turn) * column + (height - 1) / 2
    x = -math.sin(turn) * row + math.cos(turn) * column + (width - 1) / 2
    # rotations by right angles must map to pixels exactly, not to positions 1e-16 outside the image
    y, x = (torch.where((v - v.round()).abs() < 1e-9, v.round(), v) for v in (y, x))
    indices, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            r, c = y.floor() + dy, x.floor() + dx
            weight = (1 - (y - r).abs()) * (1 - (x - c).abs())
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            weights.append(torch.where(inside, weight, 0.0))
            indices.append((r.clamp(0, height - 1) * width + c.clamp(0, width - 1)).long())
    index, weight = torch.stack(indices, -1).reshape(-1, 4), torch.stack(weights, -1).reshape(-1, 4)
    return index, weight.float()
