"""The published table is what the committed records say, and says what it missed."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from cl_lib import Record

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "published" / "split_fashion_mnist.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("split_fashion_mnist", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def records(script):
    runs = {name: (Record.load(script.RECORDS / run), recipe) for name, (run, _, recipe) in script.RUNS.items()}
    search = Record.load(script.RECORDS / "joint_search")
    joint = Record.load(script.RECORDS / "joint")
    return runs | {"Joint": (joint, script.joint_recipe(search))}, search


def test_the_page_is_generated_from_the_records(script, records):
    assert script.page(*records) == script.PAGE.read_text()


def test_the_readme_quotes_the_records(records):
    readme = (ROOT / "README.md").read_text()
    for name in ("ER", "Joint"):
        accuracy = records[0][name][0].metrics["accuracy"]
        assert f"{100 * accuracy.mean:.2f} ± {100 * accuracy.std:.2f} %" in readme


def test_records_have_ten_seeds_no_divergence_and_lie_within_their_bars(script, records):
    with (SCRIPT.parent / "targets.csv").open() as file:
        targets = {row["name"]: row for row in csv.DictReader(file)}
    for name, (record, _) in records[0].items():
        assert len(record.seeds) == 10
        assert {r["status"] for r in record.replicas} == {"ok"}
        if targets[name]["low"]:
            assert float(targets[name]["low"]) <= record.metrics["accuracy"].mean <= float(targets[name]["high"])


def test_joints_learning_rate_is_the_best_on_validation_data(script, records):
    joint, search = records[0]["Joint"][0], records[1]
    assert search.job["eval_on"] == "valid"
    assert joint.job["eval_on"] == "test"
    best = max(search.grid, key=lambda p: p["metrics"]["accuracy"]["mean"])
    assert joint.job["optim"]["lr"] == best["hyper"]["optim.lr"]
