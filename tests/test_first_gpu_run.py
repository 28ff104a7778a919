"""The script for a first run on a GPU, tried on the CPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed" / "first_gpu_run.sh"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("first_gpu_run")


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
        assert record["steps"][name]["result"]["device"] == "cpu"
        assert record["steps"][name]["result"]["data"] in ("fashion_mnist", "made up")
    page = (tmp_path / "first_gpu_run.md").read_text()
    assert "| W1, hand loop | passed |" in page
    assert "| W1, R = 2 | passed |" in page


def test_steps_that_fail_are_recorded_and_the_others_run(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fails, one hangs with a process of its own that holds its output, one warns, one prints no result."""
    hangs = "import subprocess, sys, time; print('began', flush=True); subprocess.run([sys.executable, '-c', '{}'])"
    result = '{"milliseconds_per_step": 1.0, "peak_bytes": null, "data": "made up"}'
    codes = {
        "W1:0": "raise SystemExit('out of memory')",
        "W1:1": hangs.format("import time; time.sleep(60)"),
        "W1:2": f"import sys; print('{result}'); print('a warning', file=sys.stderr)",
        "W2:0": "print('no result')",
    }
    monkeypatch.setattr(script, "steps", lambda dry: {k: [sys.executable, "-c", code] for k, code in codes.items()})
    monkeypatch.setattr(script, "LIMITS", {"W1:1": 2})
    began = time.monotonic()
    assert script.main(["--dry-run", "--out", str(tmp_path)]) == 1
    assert time.monotonic() - began < 30
    steps = json.loads((tmp_path / "first_gpu_run.json").read_text())["steps"]
    assert steps["W1:0"] == {"outcome": "failed: exit code 1", "last_lines": ["out of memory"]}
    assert steps["W1:1"] == {"outcome": "failed: took more than 2 s", "last_lines": ["began"]}
    assert steps["W1:2"]["result"]["milliseconds_per_step"] == 1
    assert steps["W2:0"] == {"outcome": "failed: printed no result", "last_lines": ["no result"]}


def test_missing_packages_are_named_and_a_missing_bar_is_replaced(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "installed", lambda package: package not in ("tqdm", "pytest"))
    assert script.steps(False)["cuda tests"] == "skipped: pytest is not installed"
    seen: dict[str, str] = {}

    def run(command: list[str], left: float, env: dict[str, str]) -> tuple[str, str, str]:
        folder = env["PYTHONPATH"].split(os.pathsep)[-1]
        seen[command[-2]] = (Path(folder) / "tqdm.py").read_text()
        return "failed: not run", "", ""

    monkeypatch.setattr(script, "run", run)
    script.main(["--dry-run", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "first_gpu_run.json").read_text())["missing"] == ["pytest", "tqdm"]
    assert "Not installed: pytest, tqdm." in (tmp_path / "first_gpu_run.md").read_text()
    scope: dict[str, Any] = {}
    exec(next(iter(seen.values())), scope)
    with scope["tqdm"](total=3, initial=1, disable=True) as bar:
        bar.update(2)
        bar.set_postfix(loss=1.0)
    assert bar.n == 3


def test_made_up_data_have_fashion_mnists_shape(script: Any) -> None:
    from cl_lib import datasets

    data = script.made_up(datasets)
    assert data.train.x.shape == (60_000, 1, 28, 28)
    assert data.test.x.shape == (10_000, 1, 28, 28)
    assert data.train.y.unique().tolist() == list(range(10))
    assert data.name == "made up"


def test_without_the_files_a_part_runs_on_made_up_data_and_says_so(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_lib import InputError, datasets

    def nowhere(download: bool = True) -> None:
        assert not download, "nothing is downloaded"
        raise InputError("the files are nowhere")

    monkeypatch.setattr(datasets, "fashion_mnist", nowhere)
    got = script.part("W1:2", True)
    assert (got["data"], got["device"], got["steps"]) == ("made up", "cpu", 4)


def test_without_a_gpu_it_says_so(script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main([]) == 2
    assert "--dry-run" in capsys.readouterr().err
