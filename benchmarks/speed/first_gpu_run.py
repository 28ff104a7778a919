"""Runs the steps of ``first_gpu_run.sh``, each in a process of its own, and writes what they gave.

A step that fails or takes too long is recorded as failed, with its last lines; the others run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

RECORDS = Path(__file__).parent / "records"
ROOT = Path(__file__).parents[2]
SECONDS = 480
"""Of the whole run, at most."""
LIMITS = {"cuda tests": 150}
"""Seconds of a step, at most; 90 where nothing stands here, so that one that hangs leaves time for the others."""
REPLICAS = (1, 32, 128)
OPTIONAL = ("pytest", "hydra", "omegaconf", "matplotlib", "jinja2", "tqdm")
"""Packages that may be missing; the record names those that are."""
NO_BAR = """class tqdm:
    def __init__(self, *args, initial=0, **options): self.n = initial
    def update(self, n=1): self.n += n
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def __getattr__(self, name): return lambda *args, **options: None
"""
"""Stands in for a missing tqdm: no progress bar."""


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

    from cl_lib import InputError, datasets

    work_name, _, replicas = name.partition(":")
    work, count = WORKS[work_name], int(replicas)
    device = torch.device("cpu" if dry else "cuda")
    try:
        found, data = datasets.fashion_mnist(download=False), "fashion_mnist"
    except InputError:
        found, data = made_up(datasets), "made up"
    datasets.fashion_mnist = lambda: found
    stream = make_stream(work, 4 if dry else 200, 50 if dry else 2000)
    if not dry:
        torch.cuda.reset_peak_memory_stats()
    side: Any = Population(work, stream, list(range(count)), device) if count else hand_loop(work, stream, 0, device)
    laps = [side.train() for _ in range(2 if dry else 4)][1:]  # the first one traces and records
    return {
        "milliseconds_per_step": 1e3 * float(np.median([lap.training / lap.steps for lap in laps])),
        "planning_milliseconds_per_step": 1e3 * float(np.median([lap.planning / lap.steps for lap in laps])),
        "device": "cpu" if dry else torch.cuda.get_device_name(device),
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
def run(command: list[str], left: float, env: dict[str, str]) -> tuple[str, str, str]:
    """``passed`` or why not, and what was printed: the output, and the errors and warnings."""
    if left <= 1:
        return "skipped: no time was left", "", ""
    child = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=left)
        outcome = "passed" if child.returncode == 0 else f"failed: exit code {child.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with the processes that it started, which hold the pipes open
        out, err = child.communicate()
        outcome = f"failed: took more than {left:.0f} s"
    return outcome, out, err


def said(name: str, outcome: str, out: str, err: str) -> dict[str, Any]:
    """A step's entry: its result where it has one, else its last lines."""
    lines = out.strip().splitlines()
    if ":" in name and outcome == "passed":
        try:
            return {"outcome": outcome, "result": json.loads(lines[-1])}
        except (IndexError, ValueError):
            outcome = "failed: printed no result"
    kept = lines[-1:] if outcome == "passed" else (lines + err.strip().splitlines())[-8:]
    return {"outcome": outcome} | ({"last_lines": kept} if kept else {})


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def machine(dry: bool) -> dict[str, Any]:
    """Device, versions and commit."""
    import torch

    try:
        asked = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
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
    elif not installed("pytest"):
        out["cuda tests"] = "skipped: pytest is not installed"
    for work in ("W1",) if dry else ("W1", "W2", "W3"):
        for replicas in (0, 1, 2) if dry else (0, *REPLICAS):
            flags = ["--dry-run"] if dry else []
            out[f"{work}:{replicas}"] = [sys.executable, str(Path(__file__)), "--part", f"{work}:{replicas}", *flags]
    return out


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    own = record["machine"]
    data = sorted({step["result"]["data"] for step in record["steps"].values() if "result" in step})
    lines = [
        f"# First run on {own['device']}",
        "",
        f"torch {own['torch']}, CUDA {own['cuda']}, Python {own['python']}, commit {own['commit']}, {own['date']}. "
        "Command: `bash benchmarks/speed/first_gpu_run.sh`. Medians over experiences of 200 steps, "
        "without planning.",
        f"Data: {', '.join(data) or 'none'}. Not installed: {', '.join(record['missing']) or 'none'}.",
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
    began, missing = time.monotonic(), [name for name in OPTIONAL if not installed(name)]
    record: dict[str, Any] = {"schema": "cl_lib.first_gpu_run/1", "machine": machine(args.dry_run), "steps": {}}
    record["missing"] = missing
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ)
        if "tqdm" in missing:
            (Path(folder) / "tqdm.py").write_text(NO_BAR)
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), folder]))
        for name, command in steps(args.dry_run).items():
            left = min(LIMITS.get(name, 90), SECONDS - (time.monotonic() - began))
            outcome, out, err = (command, "", "") if isinstance(command, str) else run(command, left, env)
            record["steps"][name] = said(name, outcome, out, err)
            print(f"{name}: {record['steps'][name]['outcome']}", flush=True)
            (args.out / "first_gpu_run.json").write_text(json.dumps(record, indent=1) + "\n")
            (args.out / "first_gpu_run.md").write_text(table(record))
    print(f"record: {args.out / 'first_gpu_run.json'}, {args.out / 'first_gpu_run.md'}")
    return int(any(step["outcome"].startswith("failed") for step in record["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
