"""Speed beside a hand-written loop and Avalanche: one command, interleaved, accuracy beside every time.

    python benchmarks/speed/side_by_side.py                       # all works, CPU
    python benchmarks/speed/side_by_side.py --works W1,W2 --rounds 5
    python benchmarks/speed/side_by_side.py --device cuda

All sides take turns, one experience each, so that what else the machine does falls on all alike. The first experience
warms up (tracing, compiling); the medians are over the others. Nothing is timed where the machine is busy at the start.
Works that are run replace their entries in the record; the others stay, so the record can be made in pieces.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archive
import machine
import peers
import torch
from hand import hand_loop
from laps import Side
from ours import Population
from summary import HAND, Measured, remarks, summarise, table
from tqdm import tqdm
from works import EXPERIENCES, WORKS, Work, make_stream

from cl_lib import InputError
from cl_lib.errors import nearest
from cl_lib.streams.stream import Stream

RECORDS = Path(__file__).parent / "records"
AVALANCHE = "Avalanche"
MATMUL = ("float32", "tf32", "bf16")
Make = Callable[[int], Side]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", default=",".join(WORKS), help=f"of {', '.join(WORKS)} (default all)")
    parser.add_argument("--replicas", help="default 1,10,32; on cuda 1,32,128")
    parser.add_argument("--steps", type=int, default=240, help="steps of an experience, at most (default 240)")
    parser.add_argument("--test", type=int, default=2000, help="test samples, at most 10,000 (default 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is run (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--matmul", help="of float32,tf32,bf16 (default float32; on cuda all three)")
    parser.add_argument("--out", type=Path, help="the record (default under benchmarks/speed/records/)")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled sides")
    parser.add_argument("--no-avalanche", action="store_true", help="leave out Avalanche")
    args = parser.parse_args(argv)
    args.works = args.works.split(",")
    if odd := [name for name in args.works if name not in WORKS]:
        raise InputError(f"--works: no work is called {odd[0]!r}{nearest(odd[0], WORKS)}")
    given = args.replicas or ("1,10,32" if args.device == "cpu" else "1,32,128")
    if not all(part.isdecimal() and int(part) for part in given.split(",")):
        raise InputError(f"--replicas={given}: give whole numbers, 1 or more, with commas between")
    args.replicas = [int(part) for part in given.split(",")]
    args.matmul = (args.matmul or ("float32" if args.device == "cpu" else ",".join(MATMUL))).split(",")
    if odd := [kind for kind in args.matmul if kind not in MATMUL]:
        raise InputError(f"--matmul: {odd[0]!r} must be one of {', '.join(MATMUL)}")
    for name in ("steps", "test", "rounds", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name}={getattr(args, name)}: must be 1 or more")
    args.out = args.out or RECORDS / ("side_by_side.json" if args.device == "cpu" else "side_by_side_cuda.json")
    return args


def sides_of(work: Work, stream: Stream, args: argparse.Namespace) -> dict[str, tuple[Measured, Make]]:
    """What takes turns, in this order; a side is made anew from each round's number."""
    device = torch.device(args.device)
    sides: dict[str, tuple[Measured, Make]] = {HAND: (Measured(1), lambda k: hand_loop(work, stream, k, device))}
    if not args.no_avalanche and peers.can(work) and peers.version():
        sides[AVALANCHE] = Measured(1), lambda k: peers.Avalanche(work, stream, k, device)
    for replicas in args.replicas:
        for compiled, matmul in itertools.product((False,) if args.no_compile else (False, True), args.matmul):

            def ours(k: int, replicas: int = replicas, compiled: bool = compiled, matmul: Any = matmul) -> Side:
                seeds = list(range(k * replicas, (k + 1) * replicas))
                return Population(work, stream, seeds, device, compiled, matmul=matmul)

            name = f"{'compiled' if compiled else 'traced'} R={replicas}"
            sides[name if matmul == "float32" else f"{name} {matmul}"] = Measured(replicas, compiled), ours
    return sides


def interleave(sides: dict[str, tuple[Measured, Make]], rounds: int, title: str) -> dict[str, Measured]:
    """All sides in turn, one experience each."""
    with tqdm(total=rounds * EXPERIENCES * len(sides), desc=title, unit="lap", leave=False) as bar:
        for k in range(rounds):
            running = {side: make(k) for side, (_, make) in sides.items()}
            for measured, _ in sides.values():
                measured.rounds.append([])
            for e in range(EXPERIENCES):
                for side, learner in running.items():
                    bar.set_postfix_str(f"round {k + 1}, experience {e + 1}, {side}")
                    sides[side][0].rounds[-1].append(learner.train())
                    bar.update(1)
            for side, learner in running.items():
                sides[side][0].accuracy.append(learner.accuracy())
                sides[side][0].notes += getattr(learner, "notes", [])
    return {side: measured for side, (measured, _) in sides.items()}


def settle(path: Path, name: str, entry: dict[str, Any], sides: dict[str, tuple[Measured, Make]], rounds: int) -> None:
    """Time the sides, add them to the record's entry of this name, and print them."""
    own = summarise(interleave(sides, rounds, name))
    archive.merge(path, {name: entry | {"sides": own}})
    print("\n".join([f"\n{name}: {entry['work']}", table(own), *remarks(own)]), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Time, print, record; 2 where it cannot be done."""
    try:
        args = parse(argv)
        if args.device == "cuda" and not torch.cuda.is_available():
            print("skipped: no CUDA device")
            return 0
        if why := machine.busy():
            raise InputError(why)
        archive.read(args.out)
        torch.set_num_threads(args.threads)
        load = machine.load()
        if not args.no_avalanche and not peers.version():
            print(f"{AVALANCHE} is left out: {peers.INSTALL}")
        for name in args.works:
            work = WORKS[name]
            sides = sides_of(work, make_stream(work, args.steps, args.test), args)
            entry = {
                "work": work.title,
                "bar": work.bar,
                "strategy": dataclasses.asdict(work.strategy),
                "steps": args.steps,
                "test_samples": args.test,
                "seeds": f"round k of {args.rounds}, from 0: replicas kR to kR + R - 1",
                **machine.circumstances(__file__, args.threads, argv, args.device),
                "load_at_start": load,
            }
            settle(args.out, name, entry, sides, args.rounds)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{archive.MEANING}\nrecord: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
