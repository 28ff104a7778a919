"""The examples of these pages run in an empty directory that holds the tutorial's two files."""

import re
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).with_name("tutorial.md")


@pytest.fixture(autouse=True)
def _examples(tmp_path, monkeypatch):
    python, yaml = (
        re.search(rf"^```{kind}\n(.*?)^```", TUTORIAL.read_text(), re.S | re.M)[1] for kind in ("python", "yaml")
    )
    (tmp_path / "calm_er.py").write_text(python)
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "calm_er.yaml").write_text(yaml)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("calm_er", None)
