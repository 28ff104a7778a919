"""What a whole `run` costs beside its training: planning, evaluation with all metrics, the record.

    python benchmarks/speed/whole_run.py

The published protocol (W3), all 6,000 steps, evaluated on all 10,000 test images before training and after each
experience, written to disk. Also what importing the library and asking the command line for help cost beyond torch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from works import LR, WORKS, make_stream

import cl_lib
from cl_lib import SGD, InputError

RECORD = Path(__file__).parent / "records" / "whole_run.json"
COMMANDS = {
    "import torch": "import torch",
    "import cl_lib": "import torch, cl_lib",
    "cl-bench --help": "import sys; sys.argv = ['cl-bench', '--help']; from cl_lib.cli import bench; bench()",
}


def whole(steps: int, replicas: int, device: str) -> dict[str, float]:
    """Seconds of `cl_lib.run` and of its parts."""
    work = WORKS["W3"]
    stream = make_stream(work, steps, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"model": work.model, "optim": SGD(LR), "batch_size": work.batch, "out": folder}
        began = time.perf_counter()
        record = cl_lib.run(stream, work.strategy, seeds=replicas, device=device, **options)
        total = time.perf_counter() - began
    parts = {f"{k}_seconds": record.cost[f"{k}_seconds"] for k in ("training", "planning", "evaluation")}
    ratio = total / record.cost["training_seconds"]
    accuracy = record.metrics["accuracy"].mean
    return {"replicas": replicas, "total_seconds": total, **parts, "ratio": ratio, "accuracy": accuracy}


def start_up(rounds: int) -> dict[str, float]:
    """Median seconds of a new process, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, code in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(own)) for name, own in seconds.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200, help="of an experience (default 1200: all)")
    parser.add_argument("--replicas", default="1,10")
    parser.add_argument("--rounds", type=int, default=7, help="of the start-up times (default 7)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--out", type=Path, help="default: records/whole_run.json, with --device cuda whole_run_cuda.json"
    )
    args = parser.parse_args(argv)
    args.out = args.out or (RECORD if args.device == "cpu" else RECORD.with_name("whole_run_cuda.json"))
    if args.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device")
        return 0
    try:
        if why := machine.busy():
            raise InputError(why)
        record = {
            "schema": "cl_lib.whole_run/1",
            **machine.circumstances(__file__, args.threads, argv, args.device),
            "steps": args.steps,
        }
        torch.set_num_threads(args.threads)
        record["start_up_seconds"] = start_up(args.rounds)
        record["runs"] = [whole(args.steps, int(r), args.device) for r in args.replicas.split(",")]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    for own in record["runs"]:
        parts = ", ".join(f"{k} {own[f'{k}_seconds']:.2f} s" for k in ("training", "planning", "evaluation"))
        print(f"R={own['replicas']}: {own['total_seconds']:.1f} s, {own['ratio']:.3f} times its training ({parts})")
    bare = record["start_up_seconds"]["import torch"]
    for name, seconds in record["start_up_seconds"].items():
        print(f"{name}: {seconds:.2f} s, {seconds - bare:.2f} s beyond torch")
    print(f"record: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
