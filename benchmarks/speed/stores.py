"""Experience replay on inputs that are streamed from a file, and on inputs that are in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cl_lib import SGD, Memory, datasets, streams
from cl_lib.datasets import Dataset
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.models import MLP
from cl_lib.strategies import ER
from cl_lib.streams.stream import Stream
from cl_lib.types import Experience

BATCH, OFTEN = 10, 16
"""New samples of a step, and as many recalled; memory is looked at after each so many steps."""


def memory_mib() -> dict[str, float]:
    """This process's resident memory: ``VmHWM`` the most so far, ``VmRSS`` now, of it ``RssAnon`` and ``RssFile``."""
    fields = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(value.split()[0]) / 1024 for name, _, value in fields if name[:3] in ("Rss", "VmH", "VmR")}


class Watched(Session):
    """Notes how resident memory is divided when there is most of it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.peak = memory_mib()

    def _stops(self, done: int) -> bool:
        if done % OFTEN == 0:
            self.peak = max(self.peak, memory_mib(), key=lambda own: own["VmRSS"])
        return super()._stops(done)


def job(stream: Stream, replicas: int) -> Job:
    model, strategy = MLP.factory(hidden=(32,)), ER(Memory(500, BATCH))
    return Job(stream, strategy, model=model, optim=SGD(0.01), seeds=replicas, batch_size=BATCH, device="cpu")


def thinned(stream: Stream, steps: int) -> Stream:
    """About so many steps at most, of samples that lie evenly in the whole file."""

    def make(seed: int) -> Any:
        real = stream.make(seed)
        experiences = []
        for e in real.experiences:
            every = slice(None, None, -(-len(e.train) * stream.length // (steps * BATCH)))
            experiences.append(Experience(e.train[every], e.task[every], e.column))
        return real._replace(experiences=tuple(experiences))

    return dataclasses.replace(stream, make=make)


def whole(folder: Path, steps: int, replicas: int, threads: int) -> dict[str, Any]:
    """All of the file, streamed; called in a process of its own, whose memory is this run's alone."""
    torch.set_num_threads(threads)
    data = datasets.npy(folder, name="pictures")
    session = Watched(job(thinned(streams.split(data, 5), steps), replicas))
    rows = list(tqdm(session, total=6, desc=f"R={replicas}, all", unit="evaluation", leave=False))
    return {
        "steps": rows[-1].step,
        "samples_per_second": rows[-1].step * BATCH * replicas / session.seconds["training"],
        "evaluation_seconds": session.seconds["evaluation"],
        "accuracy": float(rows[-1].arrays["pooled.accuracy"].mean()),
        "peak_resident_mib": memory_mib()["VmHWM"],
        "resident_mib": session.peak,
    }


def in_turns(data: Dataset, subset: int, replicas: int, rounds: int) -> dict[str, Any]:
    """Samples per second of the second of two experiences: a part of the file streamed, and the same part loaded."""
    mapped = dataclasses.replace(data, train=data.train.take(slice(subset)), test=data.test.take(slice(500)))
    train, test = (dataclasses.replace(part, x=part.x.clone()) for part in (mapped.train, mapped.test))
    stored = {"streamed": mapped, "resident": dataclasses.replace(mapped, train=train, test=test)}
    rates: dict[str, list[float]] = {name: [] for name in stored}
    accuracy = {}
    for _ in tqdm(range(rounds), desc=f"R={replicas}, in turns", unit="round", leave=False):
        sessions = {name: Session(job(streams.split(own, 2), replicas)) for name, own in stored.items()}
        rows = {name: iter(session) for name, session in sessions.items()}
        steps = dict.fromkeys(rows, 0)
        for number in range(3):
            for name, session in sessions.items():
                before, row = session.seconds["training"], next(rows[name])
                if number == 2:
                    samples = (row.step - steps[name]) * BATCH * replicas
                    rates[name].append(samples / (session.seconds["training"] - before))
                    accuracy[name] = float(row.arrays["pooled.accuracy"].mean())
                steps[name] = row.step
    ratios = [a / b for a, b in zip(rates["streamed"], rates["resident"], strict=True)]
    return {"samples": subset, "ratio": float(np.median(ratios)), "samples_per_second": rates, "accuracy": accuracy}
