"""Streams: experiences as indices into one data set, and the classes that may be predicted at test time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cl_lib.datasets import Dataset
from cl_lib.datasets.mapped import PIECE, take
from cl_lib.errors import InputError, renamed
from cl_lib.types import Experience
from cl_lib.validation import as_python, check_choice, check_whole, is_number

Scenario = Literal["class", "task", "domain"]
Classes = Literal["all", "seen", "experience"]


class Transform(NamedTuple):
    """Linear map of pixels for each task, ``y[d] = sum_k weight[t, d, k] * x[pixel[t, d, k]]``, applied in each step.

    ``pixel`` is ``(T, D, K)`` int64 over the D positions of a channel; ``weight`` has the same shape or is None, for
    weights of 1.
    """

    pixel: Tensor
    weight: Tensor | None = None


class SeededStream(NamedTuple):
    """A stream for one seed.

    ``experiences``: the experiences in the order of training. ``tests``: for each column of the accuracy matrix,
    indices into the data set's test part. ``valids``: for each column, indices into its train part, held out for
    validation. ``classes``: ``(T, C)`` bool, the classes of each column. ``targets``: ``(T, C0)``, for each column the
    stream's label of each label of the data set, -1 where there is none; None if the labels are the same.
    ``transform``: the linear map of pixels, if any.
    """

    experiences: tuple[Experience, ...]
    tests: tuple[Tensor, ...]
    valids: tuple[Tensor, ...]
    classes: Tensor
    targets: Tensor | None = None
    transform: Transform | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(str(len(e.train)) for e in self.experiences[:8])
        more = ", …" if len(self.experiences) > 8 else ""
        return f"SeededStream({len(self.experiences)} experiences of {sizes}{more} samples)"

    def labels(self, y: Tensor, task: Tensor) -> Tensor:
        """The stream's labels of samples with data-set labels ``y``."""
        return y if self.targets is None else self.targets[task, y]


@dataclass(frozen=True, eq=False)
class Stream:
    """A stream of experiences, made by `split`, `permuted`, `rotated`, `by_column`, `drifting`, `online` or `blurry`.

    Attributes
    ----------
    name : str
    data : Dataset
    scenario : {"class", "task", "domain"}
    classes : tuple of str
        Names of the labels that a model predicts; their number is the width of its head.
    columns : tuple of str
        Names of the test sets, the columns of the accuracy matrix.
    length : int
        Number of experiences trained on (equal to the number of columns except for online streams).
    make : callable
        ``make(seed) -> SeededStream``.
    train_classes, eval_classes : {"all", "seen", "experience"}
        Classes in the softmax of the training loss and of predictions at test time.
    options : dict
        Options that the stream was made with, for the record.
    repeated : bool
        Whether each sample belongs to every column that has its class (permuted, rotated) or to one such column.
    partial : bool
        Whether some samples may belong to no column (drifting class proportions).
    """

    name: str
    data: Dataset
    scenario: Scenario
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    length: int
    make: Callable[[int], SeededStream]
    train_classes: Classes = "all"
    eval_classes: Classes = "all"
    options: dict[str, Any] = field(default_factory=dict)
    repeated: bool = False
    partial: bool = False

    def __repr__(self) -> str:
        size = f"{self.length} experiences, {len(self.classes)} classes"
        return f"Stream({self.name}: {self.scenario}-incremental, {size}, data {self.data.name})"

    def __post_init__(self) -> None:
        for name in ("train_classes", "eval_classes"):
            check_choice(f"stream.{name}", getattr(self, name), ("all", "seen", "experience"))

    def realise(self, seed: int = 0) -> SeededStream:
        """Make the stream for one seed, and check that no experience and no test set is empty."""
        real = self.make(seed)
        for number, experience in enumerate(real.experiences):
            if not len(experience.train):
                raise InputError(f"stream {self.name}: experience {number + 1} has no training samples")
        for column, test in zip(self.columns, real.tests, strict=True):
            if not len(test):
                raise InputError(f"stream {self.name}: {column} has no test samples")
        return real

    def describe(self) -> dict[str, Any]:
        """Description of the stream for the record."""
        return {
            "name": self.name,
            "scenario": self.scenario,
            "experiences": int(self.length),
            "classes": len(self.classes),
            "class_names": list(self.classes),
            "columns": list(self.columns),
            "train_classes": self.train_classes,
            "eval_classes": self.eval_classes,
            "data": self.data.name,
            "data_hash": self.data.fingerprint(),
            "column_hash": self.data.column_fingerprint(),
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "options": as_python(self.options),
        }

    def __str__(self) -> str:
        real = self.realise(0)
        head = (
            f"{self.name}: {self.scenario}-incremental, {self.length} experiences, {len(self.classes)} classes, "
            f"{self.data.name} {tuple(self.data.shape)}; trains against {self.train_classes}, "
            f"evaluates over {self.eval_classes} classes (seed 0)"
        )
        rows = [("experience", "classes", "train", "valid", "test set", "test")]
        shown: set[int] = set()
        for number, e in enumerate(real.experiences):
            column = e.column
            held_out = 0 if column in shown else len(real.valids[column])
            shown.add(column)
            labels = real.labels(self.data.train.y[e.train], e.task).unique().tolist()
            more = f", … ({len(labels)})" if len(labels) > 6 else ""
            names = ", ".join(str(self.classes[c]) for c in labels[:6]) + more
            test = len(real.tests[column])
            rows.append((str(number + 1), names, str(len(e.train)), str(held_out), self.columns[column], str(test)))
            if number == 19 and self.length > 22:
                rows.append(("…", f"{self.length - 20} more", "", "", "", ""))
                break
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            [head, *("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)]
        )


def restricted(stream: Stream, train_classes: Classes | None, eval_classes: Classes | None) -> Stream:
    """Copy of the stream with other train and eval classes, where given."""
    return replace(
        stream,
        train_classes=stream.train_classes if train_classes is None else train_classes,
        eval_classes=stream.eval_classes if eval_classes is None else eval_classes,
    )


def hold_out(index: Tensor, labels: Tensor, valid: float) -> tuple[Tensor, Tensor]:
    """Split an experience's samples into a train and a validation part.

    Of each class, the first ``floor(valid * n)`` samples of a fixed pseudo-random order (seed 0, the same for all runs)
    are held out; both parts keep the data set's order.
    """
    held_out = torch.zeros(len(index), dtype=torch.bool)
    if valid:
        generator = torch.Generator().manual_seed(0)
        for label in labels.unique():
            members = torch.nonzero(labels == label)[:, 0]
            held_out[members[torch.randperm(len(members), generator=generator)[: int(valid * len(members))]]] = True
    return index[~held_out], index[held_out]


def check_split(experiences: int, valid: float) -> None:
    """Raise `InputError` for an invalid number of experiences or validation fraction."""
    check_whole("stream.experiences", experiences, 1)
    if not is_number(valid) or not 0 <= valid < 1:
        raise InputError(
            f"stream.valid={valid!r}: must be at least 0 and below 1, the fraction of each experience held out"
        )


def every_experience(data: Dataset, experiences: int, valid: float) -> dict[str, Any]:
    """Fields of a `SeededStream` with all the data in each experience, test and validation set (permuted, rotated)."""
    train, held_out = hold_out(torch.arange(len(data.train)), data.train.y, valid)
    return {
        "experiences": tuple(Experience(train, torch.full_like(train, e), e) for e in range(experiences)),
        "tests": (torch.arange(len(data.test)),) * experiences,
        "valids": (held_out,) * experiences,
    }


def spread_classes(
    data: Dataset, experiences: int, scenario: Scenario
) -> tuple[tuple[str, ...], Tensor | None, Tensor]:
    """Class names, targets and class table of a stream whose experiences contain all classes of a data set.

    ``domain``: the classes are the same in each experience; ``class`` and ``task``: the classes of each experience are
    different classes of the stream.
    """
    width = len(data.classes)
    if scenario == "domain":
        return data.classes, None, torch.ones(experiences, width, dtype=torch.bool)
    check_choice("stream.scenario", scenario, ("class", "task", "domain"))
    names = tuple(f"{name} ({e + 1})" for e in range(experiences) for name in data.classes)
    targets = torch.arange(experiences * width).reshape(experiences, width)
    return names, targets, torch.eye(experiences, dtype=torch.bool).repeat_interleave(width, 1)


def answerable(scenario: Scenario) -> tuple[Classes, Classes]:
    """Default train and eval classes of a scenario."""
    defaults: dict[Scenario, tuple[Classes, Classes]] = {
        "class": ("all", "seen"),
        "task": ("experience", "experience"),
        "domain": ("all", "all"),
    }
    return defaults[scenario]


class StreamReport(NamedTuple):
    """Result of `check_stream`: problems, numbers of samples and numbers of exact duplicates across parts."""

    problems: tuple[str, ...]
    train: int
    valid: int
    test: int
    train_test_duplicates: int
    train_valid_duplicates: int

    def __str__(self) -> str:
        return (
            ("; ".join(self.problems) or "nothing lost, doubled or leaked")
            + f" ({self.train} train, {self.valid} validation, {self.test} test samples; exact duplicates:"
            f" {self.train_test_duplicates} test samples equal a train sample,"
            f" {self.train_valid_duplicates} validation samples equal a train sample)"
        )


def check_stream(stream: Stream, seed: int = 0) -> StreamReport:
    """Verify that a stream loses, doubles and leaks no samples.

    A sample belongs to columns whose classes include its label: to each such column (permuted, rotated) or to one of
    them. For each column that it belongs to, a train sample must be trained on or held out exactly once, and a test
    sample must be evaluated exactly once; no other samples may occur. A partial stream may leave
    samples out. Exact duplicates across parts are a property of the data: they are counted and reported, and are not
    an error.

    Returns
    -------
    StreamReport

    Raises
    ------
    InputError
        If samples are lost, doubled or leaked; the message lists all problems.

    Examples
    --------
    >>> from cl_lib import datasets, streams
    >>> print(check_stream(streams.split(datasets.digits(), valid=0.1)))
    nothing lost, doubled or leaked (1217 train, 130 validation, 450 test samples; exact duplicates: 0 test samples
    equal a train sample, 0 validation samples equal a train sample)
    """
    real, data = stream.realise(seed), stream.data
    columns = len(real.tests)
    index = torch.cat([e.train for e in real.experiences])
    valid = torch.cat(real.valids).unique()
    trained = torch.stack([index, torch.cat([e.task for e in real.experiences])])
    held_out, tested = (
        torch.stack([torch.cat(sets), torch.cat([torch.full_like(v, j) for j, v in enumerate(sets)])])
        for sets in (real.valids, real.tests)
    )
    problems = [
        problem
        for part, pairs, samples in (
            ("training", torch.cat([trained, held_out], 1), data.train),
            ("test", tested, data.test),
        )
        for problem in _differences(part, _table(pairs, len(samples), columns), real, samples.y, stream)
    ]
    leaked = int(torch.isin(index.unique(), valid).sum())
    if leaked:
        problems.append(f"{leaked} samples leaked between train and validation")
    if problems:
        raise InputError(f"stream {stream.name} (seed {seed}): {'; '.join(problems)}")
    train_hashes = set(_hashes(data.train.x, index.unique()))
    return StreamReport(
        tuple(problems),
        len(index.unique()),
        len(valid),
        len(tested[0].unique()),
        sum(h in train_hashes for h in _hashes(data.test.x, torch.arange(len(data.test)))),
        sum(h in train_hashes for h in _hashes(data.train.x, valid)),
    )


def _table(pairs: Tensor, samples: int, columns: int) -> Tensor:
    """Count ``(N, T)`` of each sample in each column."""
    return torch.bincount(pairs[0] * columns + pairs[1], minlength=samples * columns).reshape(samples, columns)


def _differences(part: str, count: Tensor, real: SeededStream, y: Tensor, stream: Stream) -> list[str]:
    """Problems of the ``count`` ``(N, T)`` of each sample in each column, given the columns that it belongs to."""
    columns = torch.arange(count.shape[1])
    labels = real.labels(y[:, None].expand_as(count), columns.expand_as(count))
    belongs = (labels >= 0) & real.classes[columns, labels.clamp_min(0)]
    present, problems = count * belongs, []
    if not stream.repeated:
        present, expected = present.sum(1, keepdim=True), belongs.any(1, keepdim=True)
    else:
        expected = belongs
    for verdict, wrong in (
        ("lost", expected & (present == 0) & (not stream.partial)),
        ("doubled", present > 1),
        ("where they do not belong", ~belongs & (count > 0)),
    ):
        if wrong.any():
            problems.append(f"{int(wrong.any(1).sum())} {part} samples {verdict}")
    return problems


def _hashes(x: Tensor, index: Tensor) -> Iterator[bytes]:
    """Hashes of the samples at ``index``, read in pieces of bounded size."""
    for part in index.split(max(1, PIECE // x[:1].nbytes)):
        yield from (hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in _bytes(take(x, part)))


def _bytes(x: Tensor) -> np.ndarray:
    """Bytes of each sample; viewed as uint8, because NumPy does not support every dtype."""
    return x.contiguous().flatten(1).view(torch.uint8).numpy()


__getattr__ = renamed(__name__, {"Realisation": "SeededStream"}, globals())
