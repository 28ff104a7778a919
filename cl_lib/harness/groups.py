"""Groups of replicas with the same schedule, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.harness.job import Job, Replica
from cl_lib.streams.stream import SeededStream, Stream
from cl_lib.types import Arrays, Phase, Row


@dataclass
class Group:
    """Replicas with the same schedule, which train together.

    ``learned`` and ``before`` are ``(R, E)``: for each replica and column, the first row after its training ended and
    the last row before its training began. ``samples`` describes the test samples where predictions are saved.
    """

    members: list[int]
    realisations: list[SeededStream]
    rows: list[Row] = field(default_factory=list)
    learned: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))
    before: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))
    parameters: int | None = None
    memory_bytes: int | None = None
    steps: int = 0
    samples: Arrays = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Group({len(self.members)} replicas, {self.steps} steps, {len(self.rows)} rows)"


def make_groups(job: Job, replicas: Sequence[Replica]) -> list[Group]:
    """Group the replicas whose experiences have the same sizes."""
    realised = {seed: job.stream.realise(seed) for seed in job.seed_list}
    groups: dict[Any, list[int]] = {}
    y = job.stream.data.train.y
    for member, replica in enumerate(replicas):
        real = realised[replica.seed]
        if len(real.experiences) != job.stream.length:
            raise InputError(
                f"stream {job.stream.name}: seed {replica.seed} gives {len(real.experiences)} experiences, others "
                f"{job.stream.length}; use stream.class_order=natural or a chunk size that divides evenly"
            )
        sizes = tuple((len(e.train), len(real.labels(y[e.train], e.task).unique())) for e in real.experiences)
        groups.setdefault(sizes, []).append(member)
    return [Group(members, [realised[replicas[m].seed] for m in members]) for members in groups.values()]


def labels(real: SeededStream, y: Tensor) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Function from indices and tasks to the labels of a replica."""
    flat = y.numpy()
    if real.targets is None:
        return lambda index, task: flat[index]
    targets = real.targets.numpy()
    return lambda index, task: targets[task, flat[index]]


def first_and_last(
    stream: Stream, real: SeededStream, phases: Sequence[Sequence[Phase]], evaluated: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """For each column, the first row after its training ended and the last row before its training began."""
    columns = len(stream.columns)
    first, last = np.full(columns, stream.length - 1), np.full(columns, -1)
    for e, experience in enumerate(real.experiences):
        for phase in phases[e]:
            trained = range(columns) if phase.source == "full" else [experience.column]
            for column in trained:
                first[column], last[column] = min(first[column], e), max(last[column], e)
    never = last < 0  # a column that is never trained on counts as learned in its experience
    for e, experience in enumerate(real.experiences):
        if never[experience.column]:
            first[experience.column], last[experience.column] = min(first[experience.column], e), e
    rows = np.array(evaluated)
    learned = np.array([int(np.searchsorted(rows, end + 1)) for end in last])
    before = np.array([int(np.searchsorted(rows, begin, side="right")) - 1 for begin in first])
    return np.minimum(learned, len(rows) - 1), before
