"""Where and when something was timed."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from laps import now
from peers import version

import cl_lib

BUSY = 0.5
"""Load (of the last minute) above which nothing is timed."""


def load() -> float:
    """Mean number of running processes in the last minute."""
    return os.getloadavg()[0]


def busy() -> str | None:
    """Why nothing should be timed now, or None."""
    found = load()
    if found <= BUSY:
        return None
    return f"the machine is busy: load {found:.2f} in the last minute, at most {BUSY} for a timing; try again later"


def today() -> str:
    """Date and time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, memory, system and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cl_lib": cl_lib.__version__,
        "avalanche": version(),
    }


def circumstances(script: str, threads: int, argv: list[str] | None, device: str = "cpu") -> dict[str, Any]:
    """What every record says of how it came about."""
    own = [Path(script).name, *(sys.argv[1:] if argv is None else argv)]
    return {
        "command": shlex.join(["python", f"benchmarks/speed/{own[0]}", *own[1:]]),
        "date": today(),
        "device": device,
        "threads": threads,
        "load_at_start": load(),
        "machine": describe(torch.device(device)),
        "roof": roof(threads, torch.device(device)),
    }


def roof(threads: int, device: torch.device) -> dict[str, float]:
    """What this machine can do at best: float32 products, and moving memory.

    On a CPU of 1024 x 1024 and 8 MiB, one call at a time; on a GPU of 4096 x 4096 and 512 MiB, which no cache holds,
    many calls between two synchronisations.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        return _cuda_roof(device)
    a, b = torch.rand(2, 1024, 1024, device=device)
    x = torch.rand(2**21, device=device)
    out = torch.empty_like(x)
    return {
        "gflops": 2 * 1024**3 / _fastest(lambda: torch.mm(a, b), device) / 1e9,
        "gbytes_per_second": 2 * x.nbytes / _fastest(lambda: torch.mul(x, 2.0, out=out), device) / 1e9,
    }


def _cuda_roof(device: torch.device) -> dict[str, float]:
    a, b = torch.rand(2, 4096, 4096, device=device)
    x = torch.rand(2**27, device=device)
    out = torch.empty_like(x)
    half = a.bfloat16(), b.bfloat16()
    products = torch.backends.cuda.matmul
    before, rates = products.fp32_precision, {}
    try:
        for name, precision in (("gflops", "ieee"), ("gflops_tf32", "tf32")):
            products.fp32_precision = precision
            rates[name] = 2 * 4096**3 / _fastest(lambda: torch.mm(a, b), device, 20) / 1e9
    finally:
        products.fp32_precision = before
    rates["gflops_bf16"] = 2 * 4096**3 / _fastest(lambda: torch.mm(*half), device, 20) / 1e9
    moved = 2 * x.nbytes / _fastest(lambda: torch.mul(x, 2.0, out=out), device, 20) / 1e9
    return rates | {"gbytes_per_second": moved}


def _fastest(work: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Seconds of a call, the best of twenty times ``calls`` of them."""
    times = []
    for _ in range(20):
        began = now(device)
        for _ in range(calls):
            work()
        times.append((now(device) - began) / calls)
    return min(times)


def resident_mib() -> float:
    """Memory of this process that lies in RAM, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
