"""Split streams: the classes of one data set, divided among the experiences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from cl_lib.datasets import Dataset
from cl_lib.errors import InputError
from cl_lib.streams.stream import Classes, Scenario, SeededStream, Stream, answerable, check_split, hold_out, restricted
from cl_lib.types import Experience
from cl_lib.validation import check_choice


def split(
    data: Dataset,
    experiences: int = 5,
    *,
    scenario: Scenario = "class",
    class_order: str | Sequence[int] = "natural",
    valid: float = 0.0,
    train_classes: Classes | None = None,
    eval_classes: Classes | None = None,
    name: str | None = None,
) -> Stream:
    """Stream with an equal number of classes in each experience.

    Parameters
    ----------
    data : Dataset
    experiences : int, default 5
        Must divide the number of classes.
    scenario : {"class", "task", "domain"}
        Prediction target (van de Ven et al. 2022). ``class``: one of all classes; ``task``: one of the experience's
        classes (multi-head); ``domain``: the position of the class within the experience, a label whose meaning differs
        between experiences.
    class_order : {"natural", "seed"} or sequence of int
        Order of the classes in the stream; ``"seed"`` shuffles them by each run's seed.
    valid : float, default 0
        Fraction of each class that is held out for validation, see `hold_out`.
    train_classes, eval_classes : {"all", "seen", "experience"}, optional
        Default: ``all`` / ``seen`` (class), ``experience`` (task), ``all`` (domain).

    Raises
    ------
    InputError
        If the number of experiences does not divide the number of classes, or the class order is not a permutation.

    Examples
    --------
    >>> from cl_lib import datasets
    >>> print(split(datasets.digits()))
    split_digits: class-incremental, 5 experiences, 10 classes, digits (1, 8, 8); trains against all, evaluates over
    seen classes (seed 0)
    experience  classes  train  valid  test set      test
    1           0, 1     270    0      experience 1  90
    2           2, 3     270    0      experience 2  90
    3           4, 5     272    0      experience 3  91
    4           6, 7     270    0      experience 4  90
    5           8, 9     265    0      experience 5  89
    """
    check_split(experiences, valid)
    width = len(data.classes)
    if width % experiences:
        fitting = ", ".join(str(k) for k in range(1, width + 1) if width % k == 0)
        raise InputError(
            f"stream.experiences={experiences}: must divide the number of classes, {width}; choose one of {fitting}"
        )
    check_choice("stream.scenario", scenario, ("class", "task", "domain"))
    if isinstance(class_order, str):
        if class_order not in ("natural", "seed"):
            raise InputError(f"stream.class_order={class_order!r}: must be natural, seed, or a list of all classes")
    elif sorted(class_order) != list(range(width)):
        raise InputError(f"stream.class_order={list(class_order)}: must contain each of 0 to {width - 1} once")
    order = class_order if isinstance(class_order, str) else tuple(class_order)
    make = partial(_realise, data, experiences, scenario, order, valid)
    per_experience = width // experiences
    names = data.classes if scenario != "domain" else tuple(f"position {i + 1}" for i in range(per_experience))
    stream = Stream(
        name or f"split_{data.name}",
        data,
        scenario,
        names,
        tuple(f"experience {e + 1}" for e in range(experiences)),
        experiences,
        make,
        *answerable(scenario),
        {"kind": "split", "class_order": class_order if isinstance(class_order, str) else list(order), "valid": valid},
    )
    return restricted(stream, train_classes, eval_classes)


def _realise(
    data: Dataset, experiences: int, scenario: Scenario, order: str | tuple[int, ...], valid: float, seed: int
) -> SeededStream:
    width = len(data.classes)
    if order == "natural":
        classes = torch.arange(width)
    elif order == "seed":
        classes = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    else:
        classes = torch.tensor(order)
    groups = classes.reshape(experiences, -1)
    parts, tests, valids = [], [], []
    for e, group in enumerate(groups):
        samples = torch.nonzero(torch.isin(data.train.y, group))[:, 0]
        train, held_out = hold_out(samples, data.train.y[samples], valid)
        parts.append(Experience(train, torch.full_like(train, e), e))
        valids.append(held_out)
        tests.append(torch.nonzero(torch.isin(data.test.y, group))[:, 0])
    if scenario == "domain":
        per_experience = groups.shape[1]
        targets = torch.full((experiences, width), -1)
        targets.scatter_(1, groups, torch.arange(per_experience).expand(experiences, per_experience))
        all_classes = torch.ones(experiences, per_experience, dtype=torch.bool)
        return SeededStream(tuple(parts), tuple(tests), tuple(valids), all_classes, targets)
    table = torch.zeros(experiences, width, dtype=torch.bool).scatter_(1, groups, True)
    return SeededStream(tuple(parts), tuple(tests), tuple(valids), table)
