"""A folder of scripts, which import each other by their plain names; what a timing of the parts leaves on disk."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def pytest_sessionstart(session: Any) -> None:
    """A busy machine times nothing."""
    import machine

    if session.config.getoption("benchmark_enable", False) and (why := machine.busy()):
        pytest.exit(why, returncode=2)
    session.config.stash[LOAD] = machine.load()


def pytest_sessionfinish(session: Any) -> None:
    """The record of a timing: medians, and how they came about."""
    import machine
    import torch

    timed = getattr(session.config, "_benchmarksession", None)
    if not session.config.getoption("benchmark_enable", False) or timed is None or not timed.benchmarks:
        return
    cases = [
        {
            "group": case.group,
            "name": case.name,
            "seconds": case.stats.median / case.extra_info.get("replicas", 1),
            "iqr": case.stats.iqr / case.extra_info.get("replicas", 1),
            "rounds": case.stats.rounds,
        }
        for case in timed.benchmarks
    ]
    about = machine.circumstances(__file__, torch.get_num_threads(), [])
    about["command"] = "pytest benchmarks/speed --benchmark-enable"
    record = {"schema": "cl_lib.parts/1", **about, "load_at_start": session.config.stash[LOAD], "benchmarks": cases}
    path = HERE / "records" / "parts.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


LOAD = pytest.StashKey[float]()
