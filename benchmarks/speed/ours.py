"""cl_lib on the same stream: a population of replicas, traced or compiled."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from laps import Lap
from works import LR, Work

from cl_lib import SGD
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.streams.stream import Stream


class Population:
    """``seeds`` trained as one; its session tells the seconds, synchronised with the device."""

    def __init__(
        self,
        work: Work,
        stream: Stream,
        seeds: list[int],
        device: torch.device,
        compiled: bool = False,
        lift: Literal["auto", "never"] = "auto",
        matmul: Literal["float32", "tf32", "bf16"] = "float32",
    ) -> None:
        job = Job(
            stream,
            work.strategy,
            model=work.model,
            optim=SGD(lr=LR),
            seeds=seeds,
            batch_size=work.batch,
            device=device.type,
            compile=compiled,
            lift=lift,
            matmul=matmul,
        )
        self.session = Session(job)
        self.notes: list[str] = []
        """What was warned of: that the compiler was not found, and the traced program went on."""
        self.rows = iter(self.session)
        self.row = next(self.rows)  # the untrained networks are evaluated

    def train(self) -> Lap:
        """Train on the next experience, and evaluate."""
        before, step = dict(self.session.seconds), self.row.step
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.row = next(self.rows)
        self.notes += [str(warning.message).splitlines()[0] for warning in caught]
        spent = {name: seconds - before.get(name, 0.0) for name, seconds in self.session.seconds.items()}
        return Lap(
            self.row.step - step,
            spent["training"],
            spent["planning"],
            spent["consolidation"],
            spent["evaluation"],
        )

    def accuracy(self) -> list[float]:
        """Of each replica, over all test samples and classes."""
        return self.row.arrays["pooled.accuracy"].tolist()
