"""What a run is reduced from: plain data, so that the reduction needs no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cl_lib.harness.groups import Group
from cl_lib.harness.job import Replica


@dataclass(frozen=True)
class Result:
    """The rows of a finished run and what is needed to name them.

    Attributes
    ----------
    description : dict
        `Job.describe` as JSON.
    seeds : list of int
    replicas : list of Replica
    groups : list of Group
        With their rows; the members are positions in ``replicas``.
    length : int
        Experiences of the stream.
    eval_classes : {"all", "seen", "task"}
        The classes that may be predicted.
    classes, columns : list of str
        Names of the classes and of the test sets.
    slices : dict
        For each metadata column of the test data the names of its values.
    seconds : dict
        By part of the run: training, consolidation, evaluation, planning, preparation.
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
