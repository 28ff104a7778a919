"""A thousand experiences: does the last cost what the tenth did, and does memory stay flat?

    python benchmarks/speed/long_stream.py

1,000 experiences of 100 samples (Fashion-MNIST and 40,000 of its images mirrored, class-incremental, in chunks), MLP
784-100-10, 10 + 10, class-balanced memory of 500, evaluated once at the end on all test images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from cl_lib import SGD, InputError, Memory, datasets, streams
from cl_lib.datasets import Dataset, Samples
from cl_lib.harness.job import Job
from cl_lib.harness.session import Session
from cl_lib.models import MLP
from cl_lib.strategies import ER
from cl_lib.streams.stream import Stream

RECORD = Path(__file__).parent / "records" / "long_stream.json"
AROUND = 50
"""A time is the median over so many experiences."""


class Watched(Session):
    """Notes the time and the resident memory when each experience begins."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.seen: list[tuple[float, float]] = []

    def _blocks(self, *args: Any) -> Iterator[Any]:
        self.seen.append((time.perf_counter(), machine.resident_mib()))
        return super()._blocks(*args)


def make_stream(experiences: int) -> Stream:
    """Chunks of 100 samples in the order of the classes."""
    data = datasets.fashion_mnist()
    x, y = data.train.x, data.train.y
    again = torch.cat([(y == c).nonzero()[:4000, 0] for c in range(len(data.classes))])
    train = Samples(torch.cat([x, x[again].flip(-1)]), torch.cat([y, y[again]]))
    own = torch.cat([(train.y // 2 == pair).nonzero()[: 20 * experiences, 0] for pair in range(5)])
    whole = Dataset("fashion_mnist_mirrored", train.take(own), data.test, data.classes, data.mean, data.std)
    return streams.online(streams.split(whole, 5), 100)


def measure(stream: Stream, replicas: int) -> dict[str, Any]:
    """Milliseconds of each experience, and what was resident when it began."""
    strategy = ER(Memory(500, 10, "class_balanced"))
    options: dict[str, Any] = {
        "model": MLP.factory(hidden=(100,)),
        "optim": SGD(0.1),
        "seeds": replicas,
        "device": "cpu",
    }
    session = Watched(Job(stream, strategy, eval_every=stream.length, **options))
    row = list(session)[-1]
    times, resident = np.array(session.seen).T
    ms = np.diff(times) * 1e3
    return {
        "tenth_ms": float(np.median(ms[9 : 9 + AROUND])),
        "last_ms": float(np.median(ms[-AROUND:])),
        "resident_mib": {"first": resident[0], "tenth": resident[9], "last": resident[-1]},
        "accuracy": float(row.arrays["pooled.accuracy"].mean()),
        "planning_share": session.seconds["planning"] / session.seconds["training"],
        "ms": [round(float(m), 3) for m in ms],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiences", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RECORD)
    args = parser.parse_args(argv)
    try:
        if args.experiences % 5 or not 50 <= args.experiences <= 1000:
            raise InputError(f"--experiences={args.experiences}: must be a multiple of 5 from 50 to 1,000")
        if why := machine.busy():
            raise InputError(why)
        record = {"schema": "cl_lib.long_stream/1", **machine.circumstances(__file__, args.threads, argv)}
        torch.set_num_threads(args.threads)
        stream = make_stream(args.experiences)
        rounds = [measure(stream, args.replicas) for _ in range(args.rounds)]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    ratios = [own["last_ms"] / own["tenth_ms"] for own in rounds]
    record |= {"experiences": stream.length, "replicas": args.replicas, "ratio": float(np.median(ratios))}
    record["rounds"] = rounds
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    for own in rounds:
        resident = own["resident_mib"]
        print(
            f"experience 10: {own['tenth_ms']:.2f} ms, experience {stream.length}: {own['last_ms']:.2f} ms, ratio "
            f"{own['last_ms'] / own['tenth_ms']:.2f}; resident MiB at 10: {resident['tenth']:.0f}, at the end "
            f"{resident['last']:.0f}; planning {own['planning_share']:.0%} of training; accuracy {own['accuracy']:.3f}"
        )
    print(f"median ratio {record['ratio']:.2f}\nrecord: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
