"""The examples of these pages run in an empty directory that holds the tutorial's two files and the gate's."""

import re
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _block(page: str, kind: str) -> str:
    """The first block of a page in that language."""
    return re.search(rf"^```{kind}\n(.*?)^```", (HERE / page).read_text(), re.S | re.M)[1]


@pytest.fixture(autouse=True)
def _examples(tmp_path, monkeypatch):
    (tmp_path / "calm_er.py").write_text(_block("tutorial.md", "python"))
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "calm_er.yaml").write_text(_block("tutorial.md", "yaml"))
    (tmp_path / "expectations.yaml").write_text(_block("gate.md", "yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("calm_er", None)
