"""Convolutional networks: lifted as one program, or one replica after the other; which the engine should choose.

    python benchmarks/speed/convolutions.py

ER on Split-Fashion-MNIST, all ways in turn; medians as in side_by_side.py. A lifted convolution is a grouped one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import machine
import torch
from hand import hand_loop
from laps import Side
from ours import Population
from side_by_side import RECORDS, Make, settle
from summary import HAND, Measured
from works import WORKS, Work, er, make_stream

from cl_lib import InputError
from cl_lib.harness import session
from cl_lib.models import SlimResNet18
from cl_lib.strategies import ER

CPU = torch.device("cpu")
NETWORKS = {
    "convnet": WORKS["W4"],
    "slim ResNet-18": Work("ER, slim ResNet-18 of width 20, 10 + 10", er(10), SlimResNet18.factory(), 10, bar=False),
}


class EagerER(ER):
    """The same, without a trace."""

    traceable = False


@contextmanager
def lifted_after_all() -> Iterator[None]:
    """On a CPU the engine does not lift convolutions; here it is made to."""
    before = session.is_convolutional
    session.is_convolutional = lambda module: False
    try:
        yield
    finally:
        session.is_convolutional = before


def ways(work: Work, steps: int, test: int, replicas: int) -> dict[str, tuple[Measured, Make]]:
    """Name, and how a side is made from a round's number."""
    stream = make_stream(work, steps, test)
    seeds = lambda k: list(range(k * replicas, (k + 1) * replicas))

    def lifted(k: int) -> Side:
        with lifted_after_all():
            return Population(work, stream, seeds(k), CPU)

    eager = Work(work.title, EagerER(work.strategy.memory), work.model, work.batch)
    return {
        HAND: (Measured(1), lambda k: hand_loop(work, stream, k, CPU)),
        "lifted, traced": (Measured(replicas, False), lifted),
        "looped, eager": (Measured(replicas, False), lambda k: Population(eager, stream, seeds(k), CPU, lift="never")),
        "looped, traced": (Measured(replicas, False), lambda k: Population(work, stream, seeds(k), CPU, lift="never")),
        "looped, compiled": (
            Measured(replicas, True),
            lambda k: Population(work, stream, seeds(k), CPU, compiled=True, lift="never"),
        ),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="of an experience (default 20)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RECORDS / "convolutions.json")
    args = parser.parse_args(argv)
    try:
        if odd := [name for name in args.networks.split(",") if name not in NETWORKS]:
            raise InputError(f"--networks: no network is called {odd[0]!r}; there are {', '.join(NETWORKS)}")
        if why := machine.busy():
            raise InputError(why)
        about = machine.circumstances(__file__, args.threads, argv)
        torch.set_num_threads(args.threads)
        for name in args.networks.split(","):
            sides = ways(NETWORKS[name], args.steps, 200, args.replicas)
            entry = {"work": NETWORKS[name].title, "steps": args.steps, "replicas": args.replicas, **about}
            settle(args.out, name, entry, sides, args.rounds)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"record: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
