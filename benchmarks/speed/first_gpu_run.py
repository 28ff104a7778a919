"""Runs the steps of ``first_gpu_run.sh``, each in a process of its own, and writes what they gave.

A step that fails or takes too long is recorded as failed, with its last lines; the others run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

RECORDS = Path(__file__).parent / "records"
ROOT = Path(__file__).parents[2]
SECONDS = 480
"""Of the whole run, at most; a step gets what is left."""
REPLICAS = (1, 32, 128)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the record")
    parser.add_argument("--part", help="for the processes that this one starts: WORK:REPLICAS, or 0 for the hand loop")
    return parser.parse_args(argv)


# ---------------------------------------------------------------------- one part, in a process of its own
def part(name: str, dry: bool) -> dict[str, Any]:
    """Seconds of a step and memory of one work: of a hand-written loop, or of a population."""
    import torch
    from hand import hand_loop
    from ours import Population
    from works import WORKS, make_stream

    from cl_lib import datasets

    work_name, _, replicas = name.partition(":")
    work, count = WORKS[work_name], int(replicas)
    device = torch.device("cpu" if dry else "cuda")
    try:
        datasets.fashion_mnist()
        data = "fashion_mnist"
    except Exception:  # not on this machine, which may reach no index
        datasets.fashion_mnist = lambda: made_up(datasets)
        data = "made up"
    stream = make_stream(work, 4 if dry else 200, 50 if dry else 2000)
    if not dry:
        torch.cuda.reset_peak_memory_stats()
    side: Any = Population(work, stream, list(range(count)), device) if count else hand_loop(work, stream, 0, device)
    laps = [side.train() for _ in range(2 if dry else 4)][1:]  # the first one traces and records
    return {
        "milliseconds_per_step": 1e3 * float(np.median([lap.training / lap.steps for lap in laps])),
        "peak_bytes": None if dry else torch.cuda.max_memory_allocated(),
        "steps": laps[0].steps,
        "data": data,
        "notes": getattr(side, "notes", []),
    }


def made_up(datasets: Any) -> Any:
    """Noise of Fashion-MNIST's shape and size: its step takes as long."""
    rng = np.random.default_rng(0)
    parts = [(rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8), np.arange(n) % 10) for n in (60_000, 10_000)]
    return replace(datasets.from_arrays(*parts, name="made up"), name="made up")


# ---------------------------------------------------------------------- all of them
def run(command: list[str], left: float) -> tuple[str, str]:
    """``passed`` or why not, and what was printed."""
    if left <= 1:
        return "skipped: no time was left", ""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired as error:
        out = error.stdout if isinstance(error.stdout, str) else (error.stdout or b"").decode(errors="replace")
        return f"failed: took more than {left:.0f} s", out
    return ("passed" if done.returncode == 0 else f"failed: exit code {done.returncode}"), done.stdout + done.stderr


def machine(dry: bool) -> dict[str, Any]:
    """Device, versions and commit."""
    import torch

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "device": "cpu (a dry run)" if dry else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": commit or None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def steps(dry: bool) -> dict[str, list[str] | str]:
    """The command of each step, or why it is skipped."""
    # without the project's settings, which name plugins that may not be there
    bare = ["-q", "-c", "/dev/null", f"--rootdir={ROOT}", "--import-mode=importlib", "-m", "cuda"]
    out: dict[str, list[str] | str] = {"cuda tests": [sys.executable, "-m", "pytest", *bare, "tests/test_cuda.py"]}
    if dry:
        out["cuda tests"] = "skipped: a dry run"
    elif importlib.util.find_spec("pytest") is None:
        out["cuda tests"] = "skipped: pytest is not installed"
    for work in ("W1",) if dry else ("W1", "W2", "W3"):
        for replicas in (0, 1, 2) if dry else (0, *REPLICAS):
            flags = ["--dry-run"] if dry else []
            out[f"{work}:{replicas}"] = [sys.executable, str(Path(__file__)), "--part", f"{work}:{replicas}", *flags]
    return out


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    own = record["machine"]
    lines = [
        f"# First run on {own['device']}",
        "",
        f"torch {own['torch']}, CUDA {own['cuda']}, Python {own['python']}, commit {own['commit']}, {own['date']}. "
        "Command: `bash benchmarks/speed/first_gpu_run.sh`. Medians over experiences of 200 steps.",
        "",
        "| step | outcome | ms a step | ratio a replica to the hand loop | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, step in record["steps"].items():
        got = step.get("result") or {}
        hand = (record["steps"].get(f"{name.split(':')[0]}:0", {}).get("result") or {}).get("milliseconds_per_step")
        time_, peak = got.get("milliseconds_per_step"), got.get("peak_bytes")
        count = int(name.partition(":")[2] or 0)
        label = name if ":" not in name else f"{name.split(':')[0]}, {'hand loop' if not count else f'R = {count}'}"
        ratio = f"{time_ / count / hand:.3f}" if time_ and hand and count else ""
        shown = f"{time_:.3f}" if time_ else ""
        lines.append(
            f"| {label} | {step['outcome']} | {shown} | {ratio} | {peak / 2**20:.0f} |"
            if peak
            else f"| {label} | {step['outcome']} | {shown} | {ratio} | |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.part:
        print(json.dumps(part(args.part, args.dry_run)))
        return 0
    import torch

    if not args.dry_run and not torch.cuda.is_available():
        print("first_gpu_run: no CUDA device here; --dry-run tries the script on the CPU", file=sys.stderr)
        return 2
    began, record = (
        time.monotonic(),
        {"schema": "cl_lib.first_gpu_run/1", "machine": machine(args.dry_run), "steps": {}},
    )
    args.out.mkdir(parents=True, exist_ok=True)
    for name, command in steps(args.dry_run).items():
        if isinstance(command, str):
            outcome, said = command, ""
        else:
            outcome, said = run(command, SECONDS - (time.monotonic() - began))
        lines = said.strip().splitlines()
        step: dict[str, Any] = {"outcome": outcome}
        if ":" in name and outcome == "passed":
            step["result"] = json.loads(lines[-1])
        elif lines:
            step["last_lines"] = lines[-8:] if outcome != "passed" else lines[-1:]
        record["steps"][name] = step
        print(f"{name}: {outcome}", flush=True)
        (args.out / "first_gpu_run.json").write_text(json.dumps(record, indent=1) + "\n")
        (args.out / "first_gpu_run.md").write_text(table(record))
    print(f"record: {args.out / 'first_gpu_run.json'}, {args.out / 'first_gpu_run.md'}")
    return int(any(step["outcome"].startswith("failed") for step in record["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
