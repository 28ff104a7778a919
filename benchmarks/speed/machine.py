"""Where and when something was timed."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
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


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
