"""Result of a run as plain data, which the reduction to a record takes as its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cl_lib.harness.groups import Group
from cl_lib.harness.job import Replica


@dataclass(frozen=True)
class Result:
    """Rows of a finished run and the description needed to reduce them to a record.

    Attributes
    ----------
    description : dict
        `Job.describe` as JSON values.
    seeds : list of int
    replicas : list of Replica
    groups : list of Group
        Groups with their rows; their members are positions in ``replicas``.
    length : int
        Number of experiences of the stream.
    eval_classes : {"all", "seen", "task"}
        The classes that may be predicted.
    classes, columns : list of str
        Names of the classes and of the test sets.
    slices : dict
        Names of the values of each metadata column of the test data.
    seconds : dict
        Seconds by part of the run: training, consolidation, evaluation, planning, preparation.
    batch_size : int
    device : torch.device
    """

    description: dict[str, Any]
    seeds: list[int]
    replicas: list[Replica]
    groups: list[Group]
    length: int
    eval_classes: str
    classes: list[str]
    columns: list[str]
    slices: dict[str, list[str]]
    seconds: dict[str, float]
    batch_size: int
    device: torch.device

    def __repr__(self) -> str:
        return f"Result({len(self.replicas)} replicas, {len(self.groups[0].rows)} evaluations)"
