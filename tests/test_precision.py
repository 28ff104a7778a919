"""TF32 products are for training steps that ask for them, and torch's settings are afterwards as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from running import SMALL, job

import cl_lib
from cl_lib import strategies
from cl_lib.checks import toy_data
from cl_lib.engine import precision
from cl_lib.engine.population import Population
from cl_lib.harness import session
from cl_lib.harness.job import Job
from cl_lib.models import MLP
from cl_lib.streams import split

BACKENDS: Any = torch.backends
KINDS = BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn
CUDA = torch.device("cuda")


def settings() -> list[str]:
    return [kind.fp32_precision for kind in KINDS]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = settings()
    yield
    for kind, value in zip(KINDS, before, strict=True):
        kind.fp32_precision = value


@pytest.mark.parametrize("chosen", ["ieee", "tf32"])
@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
def test_settings_are_afterwards_as_they_were(before: Any, chosen: Any) -> None:
    for kind in KINDS:
        kind.fp32_precision = before
    expected = settings()

    def fail() -> None:
        with precision.products(chosen, CUDA):
            assert settings() == [chosen] * 3
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert settings() == expected


def test_the_older_flags_can_be_read_afterwards() -> None:
    flags = BACKENDS.cuda.matmul.allow_tf32, BACKENDS.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with precision.products("tf32", CUDA):
        pass
    assert flags == (BACKENDS.cuda.matmul.allow_tf32, BACKENDS.cudnn.allow_tf32, torch.get_float32_matmul_precision())


@pytest.mark.parametrize("kind", KINDS, ids=["matrices", "convolutions", "recurrent"])
@pytest.mark.parametrize("chosen", ["ieee", "tf32"])
def test_a_run_after_the_newer_settings_were_used(kind: Any, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of these leave the older flags unreadable."""
    kind.fp32_precision = chosen
    expected = settings()
    options: dict[str, Any] = {"model": MLP.factory(hidden=(8,)), "seeds": 1}
    cl_lib.run(split(toy_data(), 2), strategies.Finetune(), device="cpu", **options)
    monkeypatch.setattr(session, "products", lambda how, device: precision.products(how, CUDA), raising=False)
    cl_lib.run(split(toy_data(), 2), strategies.Finetune(), device="cpu", **options)
    assert settings() == expected


@pytest.mark.parametrize("asked", ["float32", "tf32"])
@pytest.mark.parametrize("before", ["none", "tf32"])
def test_steps_alone_are_rounded(asked: Any, before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consolidation and evaluation, that before training too, stay float32 whatever the user's own settings."""
    seen: dict[str, set[str]] = {}
    for name in ("observe", "begin_experience", "end_experience", "begin_evaluation", "predict"):
        own = getattr(Population, name)

        def noted(*args: Any, name: str = name, own: Any = own, **options: Any) -> Any:
            seen.setdefault(name, set()).update(settings())
            return own(*args, **options)

        monkeypatch.setattr(Population, name, noted)
    monkeypatch.setattr(Job, "check", lambda self: None)  # which refuses TF32 on a CPU
    monkeypatch.setattr(session, "products", lambda how, device: precision.products(how, CUDA), raising=False)
    for kind in KINDS:
        kind.fp32_precision = before
    for _ in session.Session(job(strategies.ER(SMALL), dtype="float32", matmul=asked)):
        assert settings() == [before] * 3, "a setting of ours is seen between rows"
    steps = {"tf32" if asked == "tf32" else "ieee"}
    assert seen == {name: steps if name == "observe" else {"ieee"} for name in seen}
    assert len(seen) == 5
