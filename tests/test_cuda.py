"""What needs a CUDA device: a run there gives what the CPU gives, and says what it cost."""

from __future__ import annotations

import pytest
import torch

import cl_lib
from cl_lib import Memory, datasets, strategies, streams

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is available here"),
]
TOLERANCE = 1e-9
"""In float64, after some 130 steps whose sums are added up in another order: on a CPU, lifted and not, it is 1e-13."""


@pytest.mark.parametrize(
    "strategy",
    [
        strategies.ER(),
        strategies.DERpp(),
        strategies.EWC(mode="online"),
        strategies.AGEM(),
        strategies.ICaRL(Memory(100, 16, "strategy")),
        strategies.SLDA(),
    ],
    ids=lambda s: type(s).__name__,
)
def test_a_run_on_cuda_equals_one_on_the_cpu(strategy):
    stream = streams.split(datasets.digits())
    runs = [cl_lib.run(stream, strategy, seeds=3, dtype="float64", device=device) for device in ("cpu", "cuda")]
    for name in ("accuracy", "nll", "ece"):
        a, b = (torch.tensor(run.arrays[f"matrix.{name}"]).nan_to_num() for run in runs)
        assert (a - b).abs().max() < TOLERANCE, name
    assert runs[1].cost["peak_device_memory_bytes"] > 0
    assert runs[1].job["device"] == "cuda"


def test_compiled_on_cuda_equals_traced():
    stream = streams.split(datasets.digits())
    runs = [cl_lib.run(stream, strategies.ER(), seeds=3, dtype="float64", compile=c) for c in (False, True)]
    for name in ("matrix.accuracy", "matrix.nll", "loss"):
        a, b = (torch.tensor(run.arrays[name]).nan_to_num() for run in runs)
        assert (a - b).abs().max() < TOLERANCE, name


@pytest.mark.parametrize(
    "strategy", [strategies.ER(), strategies.ICaRL(Memory(100, 16, "strategy"))], ids=["er", "icarl"]
)
def test_streamed_to_cuda_equals_resident_there(strategy):
    stream = streams.split(datasets.digits())
    options = {"seeds": 3, "dtype": "float64", "device": "cuda"}
    runs = [cl_lib.run(stream, strategy, store=store, **options) for store in ("streamed", "resident")]
    for name in ("matrix.accuracy", "matrix.nll", "loss"):
        a, b = (torch.tensor(run.arrays[name]).nan_to_num() for run in runs)
        assert (a - b).abs().max() < TOLERANCE, name
