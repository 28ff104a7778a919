"""The documentation: the tutorial's strategy keeps what the page promises. Its examples run with ``pytest docs``."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

import cl_lib
from cl_lib.cli import main as cli
from cl_lib.cli import overrides

DOCS = Path(__file__).parents[1] / "docs"


def block(kind: str) -> str:
    """The tutorial's first block in that language."""
    found = re.search(rf"^```{kind}\n(.*?)^```", (DOCS / "tutorial.md").read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture
def tutorial(tmp_path, monkeypatch):
    """The tutorial's folder, as the working directory and on Python's path."""
    (tmp_path / "calm_er.py").write_text(block("python"))
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "calm_er.yaml").write_text(block("yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("calm_er")
    sys.modules.pop("calm_er", None)


def test_the_strategy_has_at_most_40_lines():
    assert len(block("python").splitlines()) <= 40


def test_the_strategy_passes_every_check(tutorial):
    lines = cl_lib.check_strategy(tutorial.CalmER())
    assert len(lines) == len(cl_lib.checks.CHECKS)
    assert all(line.endswith(": passed") for line in lines)


def test_without_a_penalty_it_is_er(tutorial):
    stream, memory = cl_lib.streams.split(cl_lib.datasets.digits()), cl_lib.Memory(capacity=50)
    ours, er = (
        cl_lib.run(stream, strategy, seeds=2, device="cpu")
        for strategy in (tutorial.CalmER(memory, beta=0.0), cl_lib.strategies.ER(memory))
    )
    assert ours.metrics["accuracy"].per_seed == er.metrics["accuracy"].per_seed


@pytest.mark.usefixtures("tutorial")
def test_the_strategy_runs_from_the_command_line(capsys):
    argv = ["--config-dir", "conf", "strategy=calm_er", "strategy.memory.capacity=50", "grid.strategy.beta=[0,0.1]"]
    options = ["seeds=2", "epochs=1", "progress=false", "device=cpu", "out=runs/calm"]
    assert cli._guarded("cl-bench", cli._bench, [*argv, *options]) == 0
    assert "calm_er on split_digits" in capsys.readouterr().out
    record = json.loads(Path("runs/calm/record.json").read_text())
    assert record["strategy"] == "calm_er"
    assert [point["hyper"] for point in record["grid"]] == [{"strategy.beta": 0.0}, {"strategy.beta": 0.1}]
    assert record["job"]["strategy"]["memory"]["capacity"] == 50


@pytest.mark.usefixtures("tutorial")
def test_it_stands_beside_the_strategies_of_the_package(capsys):
    argv = ["--config-dir", "conf", "-m", "strategy=er,calm_er", "seeds=1", "epochs=1", "progress=false", "out=both"]
    assert cli._guarded("cl-bench", cli._bench, argv) == 0
    assert "calm_er" in capsys.readouterr().out
    assert {path.name for path in Path("both").iterdir()} == {"er", "calm_er", "report.html"}


def test_a_missing_module_is_named(tutorial, monkeypatch, capsys):
    monkeypatch.undo()
    sys.modules.pop("calm_er", None)
    folder = Path(tutorial.__file__).parent / "conf"
    assert cli._guarded("cl-bench", cli._bench, ["--config-dir", str(folder), "strategy=calm_er"]) == 2
    assert "strategy._target_=calm_er.CalmER: cannot be imported" in capsys.readouterr().err


def test_every_strategy_of_the_package_has_a_place_in_the_reference():
    page = "\n".join(path.read_text() for path in (DOCS / "strategies").glob("*.md"))
    for name in cl_lib.strategies.__all__:
        kind = getattr(cl_lib.strategies, name)
        if (
            isinstance(kind, type)
            and issubclass(kind, cl_lib.strategies.Strategy)
            and kind is not cl_lib.strategies.Strategy
        ):
            assert re.search(rf"autoclass:: cl_lib\.strategies\.{name}$", page, re.MULTILINE), name


def test_the_record_page_names_every_key():
    page = (DOCS / "record.md").read_text()
    rules = cl_lib.record.schema()
    for name in (
        *rules["required"],
        *rules["properties"]["metrics"]["required"],
        *rules["properties"]["cost"]["required"],
    ):
        assert f"`{name}`" in page, name


def test_the_command_line_page_names_every_option():
    page = (DOCS / "cli.md").read_text()
    config = overrides.compose_config([], None, resolve=False)
    left_out = (*overrides.GROUPS, "grid", "swept", "hydra")
    for name in overrides.flat({k: v for k, v in config.items() if k not in left_out}):
        assert f"`{name}`" in page, name
    for group in ("strategy", "model", "optim", "logger"):
        for choice in overrides._options(None)[group]:
            assert f"`{choice}`" in page, choice
