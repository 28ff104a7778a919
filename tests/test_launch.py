"""Several steps at once: as on CUDA, but what is recorded is run again instead of replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from running import final
from torch import Tensor

from cl_lib import SGD, Memory, Schedule, strategies
from cl_lib.checks import toy_data
from cl_lib.engine import blocks, launch
from cl_lib.job import Job
from cl_lib.models import MLP
from cl_lib.session import Interrupted, Session
from cl_lib.streams import split

STRATEGIES = {
    "er": strategies.ER(Memory(20, 8)),
    "derpp": strategies.DERpp(Memory(20, 8)),
    "ewc": strategies.EWC(mode="online", samples=30),
    "icarl": strategies.ICaRL(Memory(20, 8, "strategy")),
    "joint": strategies.Joint(),
}
launched = 0


def again(body: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
    """Stands in for a CUDA graph: warming up changes nothing, a replay does what was recorded."""
    before = [t.clone() for t in state]
    body()
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)

    def replay() -> None:
        global launched
        launched += 1
        body()

    return replay


def session(strategy: Any, **options: Any) -> Session:
    options = {
        "model": MLP.factory(hidden=(12,)),
        "batch_size": 2,
        "optim": SGD(0.05, momentum=0.5, schedule=Schedule("cosine")),
        "seeds": 2,
    } | options
    return Session(Job(split(toy_data(), 2), strategy, **options))


@pytest.mark.parametrize("lift", ["never", "auto"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_sixteen_steps_a_launch_learn_what_single_steps_do(
    name: str, lift: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = final(session(STRATEGIES[name], lift=lift))
    monkeypatch.setattr(blocks, "recorder", lambda device: again)
    before = launched
    together = final(session(STRATEGIES[name], lift=lift))
    assert launched > before
    assert all(torch.equal(a, b) for a, b in zip(single, together, strict=True))


def test_batch_statistics_keep_their_odd_last_batch_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(shape: Any, classes: int) -> torch.nn.Module:
        hidden = torch.nn.Linear(shape[0], 8)
        return torch.nn.Sequential(hidden, torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, classes))

    options = {"model": model, "batch_size": 3}
    single = final(session(STRATEGIES["er"], **options))
    monkeypatch.setattr(blocks, "recorder", lambda device: again)
    assert all(torch.equal(a, b) for a, b in zip(single, final(session(STRATEGIES["er"], **options)), strict=True))


def test_a_run_stopped_between_launches_goes_on_from_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "recorder", lambda device: again)
    whole = final(session(STRATEGIES["derpp"]))
    job = session(STRATEGIES["derpp"]).job
    stopped = Session(job, tmp_path)
    monkeypatch.setattr(stopped, "_stops", lambda done: done >= 10)
    with pytest.raises(Interrupted) as caught:
        list(stopped)
    assert caught.value.step == launch.LAUNCH
    resumed = final(Session(job, tmp_path, resume=True))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_what_cannot_be_recorded_runs_step_by_step_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(body: Any, state: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    single = final(session(STRATEGIES["er"]))
    monkeypatch.setattr(blocks, "recorder", lambda device: fail)
    with pytest.warns(UserWarning, match="no CUDA graph can be recorded.*not permitted") as caught:
        other = final(session(STRATEGIES["er"]))
    assert len(caught) == 1
    assert all(torch.equal(a, b) for a, b in zip(single, other, strict=True))


def test_only_cuda_records() -> None:
    assert launch.recorder(torch.device("cpu")) is None
    assert launch.recorder(torch.device("cuda")) is launch.cuda_graph
