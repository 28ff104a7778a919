"""A run in a process where other things go on: threads, inference mode, anomaly mode; and what cannot be traced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cl_lib
from cl_lib import strategies
from cl_lib.checks import toy_data
from cl_lib.engine.trace import TraceError
from cl_lib.models import MLP
from cl_lib.streams import split

STREAM = split(toy_data(), 2)
OPTIONS: dict[str, Any] = {"model": MLP.factory(hidden=(8,)), "seeds": 2, "epochs": 1, "device": "cpu"}


def accuracy(strategy: Any = None, **options: Any) -> list[float | None]:
    return cl_lib.run(STREAM, strategy or strategies.ER(), **(OPTIONS | options)).metrics["accuracy"].per_seed


def test_runs_in_several_threads_are_as_runs_alone() -> None:
    chosen = [strategies.ER(), strategies.EWC(), strategies.DERpp(), strategies.ICaRL()]
    expected = [accuracy(strategy) for strategy in chosen]
    got: dict[int, Any] = {}

    def one(i: int) -> None:
        try:
            got[i] = accuracy(chosen[i])
        except BaseException as error:  # what a thread raises would only be printed
            got[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(chosen))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(len(chosen))] == expected


def test_rows_may_be_asked_for_in_and_outside_inference_mode() -> None:
    expected = [row.accuracy.tolist() for row in cl_lib.iter_run(STREAM, strategies.EWC(), **OPTIONS)]
    with torch.inference_mode():
        rows = cl_lib.iter_run(STREAM, strategies.EWC(), **OPTIONS)
        got = [next(rows).accuracy.tolist()]
    got += [next(rows).accuracy.tolist()]
    with torch.inference_mode():
        got += [row.accuracy.tolist() for row in rows]
    assert got == expected


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_anomaly_mode_changes_nothing() -> None:
    expected = accuracy(strategies.EWC())
    with torch.autograd.set_detect_anomaly(True):
        assert accuracy(strategies.EWC()) == expected
        assert torch.is_anomaly_enabled()


class Attending(nn.Module):
    """Six tokens of one number each."""

    def __init__(self, classes: int, math: bool) -> None:
        super().__init__()
        self.math = math
        self.token, self.head = nn.Linear(1, 4), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.token(x.unsqueeze(-1)).unsqueeze(1)
        backends = [torch.nn.attention.SDPBackend.MATH]
        if not self.math:
            backends.append(torch.nn.attention.SDPBackend.FLASH_ATTENTION)
        with torch.nn.attention.sdpa_kernel(backends):
            z = nn.functional.scaled_dot_product_attention(z, z, z)
        return self.head(z.squeeze(1).mean(1))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("seeds", [1, 2])
def test_fused_attention_is_refused_for_what_it_is_and_runs_as_the_message_says(seeds: int) -> None:
    with pytest.raises(TraceError, match=r"fused attention .* not supported yet; .*sdpa_kernel\(.*MATH\)") as caught:
        accuracy(model=lambda shape, classes: Attending(classes, math=False), seeds=seeds)
    assert "random" not in str(caught.value)
    assert len(accuracy(model=lambda shape, classes: Attending(classes, math=True), seeds=seeds)) == seeds


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_spectral_norm_is_refused_with_its_reason(norm: Callable[[nn.Module], nn.Module]) -> None:
    def model(shape: Any, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, classes))

    with pytest.raises(TraceError, match=r"cannot run for several replicas at once .*spectral_norm"):
        accuracy(model=model)


@pytest.mark.parametrize("statistics", [True, False])
def test_batch_norm_without_running_statistics_works(statistics: bool) -> None:
    def model(shape: Any, classes: int) -> nn.Module:
        norm = nn.BatchNorm1d(8, track_running_stats=statistics)
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, classes))

    together = accuracy(model=model)
    assert together == [accuracy(model=model, seeds=[r])[0] for r in range(2)]
