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


FORMULAS = {  # and what its MathML holds
    r"\frac1n \sum_i x_i": "<mfrac><mn>1</mn><mi>n</mi></mfrac>",
    r"\tfrac12 \lVert w \rVert": "<mn>1</mn><mn>2</mn></mfrac>",
    r"\big( x_1 \dots x_n \big)^{-1}": "minsize",
    r"\sum_k \tilde F_k": "</mover></mrow><mi>k</mi></msub>",
    r"|\textstyle\sum_i d_i|": "∑",
    r"s = \begin{cases} a & \text{b} \\ c & \text{d} \end{cases}": "<mtext>d</mtext>",
}


@pytest.fixture
def mathml(monkeypatch):
    """The module beside the pages that converts formulas."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("mathml").mathml


@pytest.mark.parametrize("tex", FORMULAS)
def test_a_formula_becomes_mathml(mathml, tex):
    assert FORMULAS[tex] in re.sub(r"\n\s*", "", mathml(tex, block=True))


def test_a_formula_that_cannot_be_converted_is_an_error(mathml):
    with pytest.raises(Exception, match="nosuchcommand"):
        mathml(r"\nosuchcommand x")


@pytest.mark.filterwarnings("ignore")  # Sphinx's and its themes'
@pytest.mark.usefixtures("mathml")
def test_a_built_page_needs_no_network(tmp_path):
    """Formulas of pages and of docstrings, without a script from elsewhere (MathJax)."""
    from sphinx.application import Sphinx

    (tmp_path / "index.md").write_text(
        "# Sample\n\nInline $x^2$.\n\n$$y = \\tfrac12$$\n\n"
        "```{eval-rst}\n.. autofunction:: cl_lib.metrics.forgetting\n```\n"
    )
    out = tmp_path / "html"
    Sphinx(tmp_path, DOCS, out, tmp_path / "trees", "html", status=None, warningiserror=True).build()
    page = (out / "index.html").read_text()
    assert page.count("<math ") >= 3
    assert not outside(page)
    assert outside('<script async src="https://cdn.example/mathjax.js"></script>')


def outside(page: str) -> list[str]:
    """Scripts, styles and images that a page loads from elsewhere."""
    loaded = re.findall(r"<(?:script|img)[^>]*\ssrc=\"([^\"]+)|<link[^>]*stylesheet[^>]*\shref=\"([^\"]+)", page)
    return [address for pair in loaded for address in pair if re.match(r"(https?:)?//", address)]


def unfenced(page: str) -> list[str]:
    """Examples outside a code block, which Markdown takes for three nested quotations."""
    return re.findall(r"^>>>.*", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)


def test_examples_are_shown_as_code():
    for path in DOCS.glob("*.md"):
        assert not unfenced(path.read_text()), path.name
    assert unfenced("```pycon\n>>> 1\n1\n\n```\n\n>>> 2\n2\n") == [">>> 2"]


def ratios(page: str, work: str) -> list[str]:
    """The plain numbers in the first row of a table that begins with a work's name."""
    row = re.search(rf"^\| {work}: .*$", page, re.MULTILINE)
    assert row is not None
    return re.findall(r"\d\.\d\d", re.sub(r"\(≤ [\d.]+\)|[\d.]+ ms", "", row[0]))


def test_the_comparison_has_the_measured_ratios():
    measured, shown = ((DOCS / f"{name}.md").read_text() for name in ("performance", "comparison"))
    for work in ("W1", "W2", "W3", "W4"):
        assert ratios(shown, work) == ratios(measured, work)[:5], work
