"""Continuous integration: the workflow of the public host runs what ``.ci/run`` runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def local() -> list[str]:
    """The commands of ``.ci/run``: the README's line with pytest, and what runs in its environment."""
    readme = re.search(r"^python3? -m venv .*pytest.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert readme is not None
    lines = re.findall(r"^\.venv/bin/.*$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    return [readme[0], *(re.split(r" (?:2>|\|)", line)[0] for line in lines)]


def missing(workflow: str) -> list[str]:
    """Commands of ``.ci/run`` that no step of the workflow runs."""
    steps = yaml.safe_load(workflow)["jobs"]["tests"]["steps"]
    run = [line for step in steps for line in step.get("run", "").splitlines()]
    return [command for command in local() if command not in run]


def test_the_workflow_runs_what_the_local_script_runs():
    assert len(local()) == 7
    assert not missing(WORKFLOW.read_text())


@pytest.mark.parametrize("command", local())
def test_a_workflow_without_a_command_is_noticed(command):
    text = WORKFLOW.read_text()
    assert missing(text.replace(command, "echo")) == [command]
    assert command in missing(text.replace(command, f"{command} || true"))  # a step that cannot fail is none


def test_the_oldest_torch_is_that_of_the_package():
    oldest = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None
    matrix = yaml.safe_load(WORKFLOW.read_text())["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["torch"] == [f"torch=={oldest[1]}.*", "torch"]
    assert 'requires-python = ">=' + matrix["python"][0] in (ROOT / "pyproject.toml").read_text()


def test_hooks_need_no_other_host():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}
