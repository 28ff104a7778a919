"""Permuted streams: all the data in each experience, with a different permutation of the pixels."""

from __future__ import annotations

import math
from functools import partial

import torch

from cl_lib.datasets import Dataset
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


def permuted(
    data: Dataset,
    experiences: int = 10,
    *,
    scenario: Scenario = "domain",
    by_seed: bool = True,
    valid: float = 0.0,
    train_classes: Classes | None = None,
    eval_classes: Classes | None = None,
    name: str | None = None,
) -> Stream:
    """One random permutation of the pixels for each experience, including the first (Goodfellow et al. 2013).

    Parameters
    ----------
    data : Dataset
    experiences : int, default 10
    scenario : {"domain", "class", "task"}
        ``domain``: the same labels in each experience; ``class``, ``task``: different labels in each experience.
    by_seed : bool, default True
        Whether permutations are drawn from each run's seed; False: the same for all runs.

    Examples
    --------
    >>> from cl_lib import datasets
    >>> stream = permuted(datasets.digits(), 3)
    >>> stream.realise(0).transform.pixel.shape
    torch.Size([3, 64, 1])
    """
    check_split(experiences, valid)
    names, targets, table = spread_classes(data, experiences, scenario)

    stream = Stream(
        name or f"permuted_{data.name}",
        data,
        scenario,
        names,
        tuple(f"permutation {e + 1}" for e in range(experiences)),
        experiences,
        partial(_realise, data, experiences, by_seed, valid, targets, table),
        *answerable(scenario),
        {"kind": "permuted", "by_seed": by_seed, "valid": valid},
        True,
    )
    return restricted(stream, train_classes, eval_classes)


def _realise(
    data: Dataset,
    experiences: int,
    by_seed: bool,
    valid: float,
    targets: torch.Tensor | None,
    table: torch.Tensor,
    seed: int,
) -> SeededStream:
    generator = torch.Generator().manual_seed(seed if by_seed else 0)
    pixels = math.prod(data.shape[1:] or data.shape)
    orders = torch.stack([torch.randperm(pixels, generator=generator) for _ in range(experiences)])
    return SeededStream(
        **every_experience(data, experiences, valid),
        classes=table,
        targets=targets,
        transform=Transform(orders[..., None]),
    )
