"""Streams with known change points: the ground truth for detectors of drift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from cl_lib.datasets import Dataset
from cl_lib.errors import InputError
from cl_lib.streams.regimes import Shape, keep_shares, label_tables, regimes, transforms
from cl_lib.streams.stream import SeededStream, Stream, Transform, check_split, hold_out
from cl_lib.types import Experience
from cl_lib.validation import check_choice, check_whole, is_number

FEWEST, SMALLEST = 3, 50
"""Fewest windows, and fewest samples of one, train and test together."""


def drifting(
    data: Dataset,
    *,
    windows: int = 20,
    kind: Literal["covariate", "concept", "label", "none"] = "covariate",
    shape: Shape = "abrupt",
    at: int | Sequence[int] = (10,),
    strength: float = 1.0,
    width: int = 4,
    valid: float = 0.0,
    seed: int = 0,
    name: str | None = None,
) -> Stream:
    """Domain-incremental stream of windows in time, dealt from one data set, with a drift whose windows are known.

    Parameters
    ----------
    data : Dataset
        Its samples are dealt to the windows in random order, train and test part apart, each at most once.
    windows : int, 3 or more, default 20
    kind : {"covariate", "concept", "label", "none"}, default "covariate"
        What drifts: inputs (a permutation of pixels, or of normalised features), labels of the same inputs
        (classes move on in a circle), class proportions (half of the classes become rarer), or nothing.
    shape : {"abrupt", "gradual", "recurring"}, default "abrupt"
        At once, over `width` windows in equal steps, or to and fro every `width` windows.
    at : int or sequence of int in [1, windows - 1], default (10,)
        Windows in which a change begins, counted from 0 and rising; one for a recurring drift.
    strength : float in (0, 1], default 1
        Weight of the permuted inputs, share of the classes that change their label (at least two classes), or share of
        the samples that the rarer half of the classes loses.
    width : int, 1 or more, default 4
        Windows of a gradual change or of a recurring regime.
    valid : float in [0, 1), default 0
        Share of each class of each window that is held out for validation, see `hold_out`.
    seed : int, default 0
        Seed of the deal and the permutations, which are the same in all runs.

    Returns
    -------
    Stream
        ``options["changes"]`` lists the windows that differ in distribution from the one before.

    Raises
    ------
    InputError
        If an option is out of its range, a window would have fewer than 50 samples, train and test together, or a
        gradual change of labels has fewer classes than steps.

    Notes
    -----
    All samples of a window have one input transform and one label for each class, in training and test. So a gradual
    covariate drift moves the weights of the transform, a gradual concept drift moves one class after the other, and
    only the proportions of a gradual label drift are a mixture of both regimes. With ``kind="label"`` samples are
    left out, and all windows are cut to one size.

    Examples
    --------
    >>> from cl_lib import datasets
    >>> stream = drifting(datasets.digits(), windows=12, kind="concept", shape="recurring", at=[4], width=3)
    >>> stream.options["changes"]
    [4, 7, 10]
    >>> stream.realise(0).targets[[3, 4], :5].tolist()
    [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]
    """
    check_split(1, valid)
    points = [at] if isinstance(at, int) else list(at)
    check_whole("stream.windows", windows, FEWEST)
    check_choice("stream.kind", kind, ("covariate", "concept", "label", "none"))
    check_choice("stream.shape", shape, ("abrupt", "gradual", "recurring"))
    check_whole("stream.seed", seed, 0)
    if not is_number(strength) or not 0 < strength <= 1:
        raise InputError(f"stream.strength={strength!r}: must be above 0 and at most 1")
    classes = len(data.classes)
    transform, targets, kept = None, None, torch.ones(windows, classes, dtype=torch.float64)
    states = torch.zeros(windows, 1)
    if kind != "none":
        mix = regimes(windows, shape, points, width)
        states = torch.stack([mix.old.double(), mix.new.double(), mix.rise], 1)
    if kind == "covariate":
        transform = transforms(mix, math.prod(data.shape[1:] or data.shape), strength, seed)
    elif kind == "concept":
        targets = states = label_tables(mix, classes, strength)
    elif kind == "label":
        kept = states = keep_shares(mix, classes, strength)
    changes = [t for t in range(1, windows) if not torch.equal(states[t], states[t - 1])]

    generator = torch.Generator().manual_seed(seed)
    trains, tests = (_deal(part.y, windows, kept, generator) for part in (data.train, data.test))
    fewest = min(len(train) + len(test) for train, test in zip(trains, tests, strict=True))
    if fewest < SMALLEST or not len(trains[0]) or not len(tests[0]):
        raise InputError(
            f"stream.windows={windows}: {data.name} leaves {fewest} samples in a window; each needs {SMALLEST} or "
            "more, in train and test: take fewer windows" + ", or less strength" * (kind == "label")
        )
    return Stream(
        name=name or f"drifting_{data.name}",
        data=data,
        scenario="domain",
        classes=data.classes,
        columns=tuple(f"window {t + 1}" for t in range(windows)),
        length=windows,
        make=partial(_realise, data, trains, tests, valid, targets, transform),
        options={
            "kind": "drifting",
            "drift": kind,
            "shape": shape,
            "at": points,
            "strength": float(strength),
            "width": width,
            "valid": valid,
            "seed": seed,
            "changes": changes,
        },
        partial=kind == "label",
    )


def _deal(y: Tensor, windows: int, kept: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Indices of each window, in rising order; where classes lose samples, all windows have one size."""
    order = torch.randperm(len(y), generator=generator)
    parts = list(order.tensor_split(windows))
    draws = torch.rand(len(y), generator=generator, dtype=torch.float64)
    if bool((kept < 1).any()):
        parts = [part[draws[part] < kept[t][y[part]]] for t, part in enumerate(parts)]
        size = min(map(len, parts))
        parts = [part[:size] for part in parts]
    return [part.sort().values for part in parts]


def _realise(
    data: Dataset,
    trains: Sequence[Tensor],
    tests: Sequence[Tensor],
    valid: float,
    targets: Tensor | None,
    transform: Transform | None,
    seed: int,
) -> SeededStream:
    parts = [hold_out(train, data.train.y[train], valid) for train in trains]
    return SeededStream(
        experiences=tuple(Experience(train, torch.full_like(train, t), t) for t, (train, _) in enumerate(parts)),
        tests=tuple(tests),
        valids=tuple(held for _, held in parts),
        classes=torch.ones(len(trains), len(data.classes), dtype=torch.bool),
        targets=targets,
        transform=transform,
    )
