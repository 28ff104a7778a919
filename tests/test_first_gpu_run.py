"""The script for a first run on a GPU, tried on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed" / "first_gpu_run.sh"


def test_a_dry_run_leaves_a_record(tmp_path: Path) -> None:
    command = ["bash", str(SCRIPT), "--dry-run", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "first_gpu_run.json").read_text())
    assert record["machine"]["device"] == "cpu (a dry run)"
    assert record["steps"]["cuda tests"]["outcome"] == "skipped: a dry run"
    for name in ("W1:0", "W1:1", "W1:2"):
        assert record["steps"][name]["outcome"] == "passed"
        assert record["steps"][name]["result"]["milliseconds_per_step"] > 0
    page = (tmp_path / "first_gpu_run.md").read_text()
    assert "| W1, hand loop | passed |" in page
    assert "| W1, R = 2 | passed |" in page
