"""The published table is what the committed records say, and says what it missed."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import pytest

import cl_lib
from cl_lib import Record

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "published" / "split_fashion_mnist.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        yield importlib.import_module("split_fashion_mnist")


@pytest.fixture(scope="module")
def records(script):
    return script.known()


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


# ---------------------------------------------------------------------- Split-Digits, and the strategies' pages
def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module(name)


TABLES = {"split_digits": 3, "split_fashion_mnist_every": 1}
"""Tables of every strategy, with the seeds of a search."""


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_every_strategy_is_generated_from_its_records_and_is_complete(name, monkeypatch):
    script = load("every_strategy", monkeypatch)
    table = script.TABLES[name]
    found = script.known(table)
    assert list(found) == script.every()
    for strategy, (record, hyper) in found.items():
        assert hyper["optim.lr"] == record.job["optim"]["lr"], strategy
        assert len(record.seeds) == 10
    assert script.page(table, found) == table.page.read_text()


@pytest.mark.parametrize(("name", "seeds"), TABLES.items())
def test_searches_have_the_same_budget_and_never_see_test_data(name, seeds, monkeypatch):
    script = load("every_strategy", monkeypatch)
    for strategy in script.every():
        search = Record.load(script.TABLES[name].records / strategy / "search")
        assert len(search.grid) == 9, strategy
        assert len(search.seeds) == seeds
        assert search.job["eval_on"] == "valid"


@pytest.mark.parametrize("name", ["finetune", "er", "slda"])
def test_part_of_split_digits_comes_out_again(name, monkeypatch):
    """Two of the ten seeds, run now; another machine may round otherwise."""
    digits = load("every_strategy", monkeypatch)
    table = digits.TABLES["split_digits"]
    record = Record.load(table.records / name / "run")
    strategy = {
        "finetune": cl_lib.strategies.Finetune(),
        "er": cl_lib.strategies.ER(),
        "slda": cl_lib.strategies.SLDA("identity", shrinkage=record.job["strategy"].get("shrinkage", 1e-4)),
    }[name]
    again = cl_lib.run(
        cl_lib.streams.split(cl_lib.datasets.digits()),
        strategy,
        seeds=2,
        epochs=3,
        optim=cl_lib.SGD(lr=record.job["optim"]["lr"]),
    )
    expected, got = (r.metrics["accuracy"].per_seed[:2] for r in (record, again))
    assert got == pytest.approx(expected, abs=0.03)


def test_the_fisher_page_is_generated_from_its_records(monkeypatch):
    script = load("fisher_variants", monkeypatch)
    found = {v: {p: Record.load(script.RECORDS / v / p) for p in script.PARTS} for v in script.VARIANTS}
    found["none"] = {"high": Record.load(script.RECORDS / "none" / "high")}
    assert script.page(found) == script.PAGE.read_text()


def test_the_domain_incremental_page_is_generated_from_its_records(monkeypatch):
    script = load("domain_incremental", monkeypatch)
    found = script.known()
    for stream in script.STREAMS:
        assert list(found[stream]) == list(script.NAMES), stream
    assert script.page(found) == script.PAGE.read_text()


def test_the_plasticity_page_is_generated_from_its_records(monkeypatch):
    script = load("plasticity", monkeypatch)
    found = {n: script.results(n) for n in script.NAMES}
    assert script.page(found) == script.PAGE.read_text()


def test_the_strategies_pages_are_generated_from_records(monkeypatch):
    pages = load("pages", monkeypatch)
    for path, text in pages.pages().items():
        assert path.read_text() == text, path.name
