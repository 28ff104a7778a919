"""Synthetic records of models in service, with given losses or with the results of every sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from cl_lib.record import Metric, Record
from cl_lib.record.check import check_arrays, check_record
from cl_lib.record.predictions import Predictions

METRICS = (
    "accuracy average_accuracy forgetting bwt fwt learning_accuracy ece adaptive_ece classwise_ece brier nll "
    "worst_class_accuracy worst_experience_accuracy"
).split()
BINS, FEATURES = 15, 3


def record_of(
    nll: np.ndarray,
    error: np.ndarray | None = None,
    support: Any = 100,
    columns: list[str] | None = None,
    predictions: Predictions | None = None,
    labels: dict[str, list[str]] | None = None,
    **stream: Any,
) -> Record:
    """A valid record with the given losses ``(R, E + 1, E)`` of each row on each window."""
    replicas, rows, width = nll.shape
    error = np.clip(nll / 10, 0, 1) if error is None else error
    names = columns or [str(i) for i in range(width)]
    support = np.broadcast_to(np.asarray(support, float), nll.shape).copy()
    classes = 3
    arrays = {
        "matrix.accuracy": 1 - error,
        "matrix.nll": nll.copy(),
        "matrix.brier": nll / 5,
        "support": support,
        "step": np.tile(np.arange(rows) * 10, (replicas, 1)),
        "learned": np.tile(np.arange(width) + 1, (replicas, 1)),
        "before": np.tile(np.arange(width), (replicas, 1)),
    }
    matrix: list[list[float | None]] = [[None] * width for _ in range(rows)]
    empty = {"ece": None, "forgetting": None}
    slices = {
        name: {
            "labels": part,
            "worst": None,
            "gap": None,
            "support": [None] * len(part),
            "accuracy": [None] * len(part),
            **{key: [None] * len(part) for key in empty},
        }
        for name, part in {
            "class": [str(c) for c in range(classes)],
            "experience": names,
            "age": ["new"],
            **(labels or {}),
        }.items()
    }
    diverged = ~np.isfinite(nll).all((1, 2))
    record = Record(
        stream={
            "name": "synthetic",
            "scenario": "domain",
            "experiences": width,
            "classes": classes,
            "columns": names,
            "train_classes": "all",
            "eval_classes": "all",
            "data": "synthetic",
            "data_hash": "0",
            **stream,
        },
        strategy="synthetic",
        seeds=list(range(replicas)),
        config={},
        job={},
        metrics={name: Metric(None, None, None, 0, [None] * replicas, "synthetic") for name in METRICS},
        accuracy_matrix=matrix,
        rows=[{"experience": i, "step": 10 * i} for i in range(rows)],
        learned=list(range(1, width + 1)),
        before=list(range(width)),
        matrices={},
        slices=slices,
        reliability={name: {"confidence": [None], "accuracy": [None], "count": [0]} for name in ("before", "after")},
        cost=dict.fromkeys(("training_seconds", "evaluation_seconds", "planning_seconds", "replicas", "steps"), 0)
        | dict.fromkeys(("samples_per_second", "parameters", "memory_bytes", "peak_device_memory_bytes")),
        replicas=[
            {"seed": i, "hyper": {}, "status": "diverged" if bad else "ok", "diverged_at": 0 if bad else None}
            for i, bad in enumerate(diverged.tolist())
        ],
        grid=[],
        environment=dict.fromkeys(("cl_lib", "python", "torch", "numpy", "device", "threads", "command")),
        arrays=arrays,
        samples=predictions,
    )
    check_record(record.to_json())
    check_arrays(arrays, record.to_json(), "arrays.npz")
    return record


def random_losses(rng: np.random.Generator, replicas: int = 2, windows: int = 12) -> np.ndarray:
    return rng.random((replicas, windows + 1, windows))


def sample_results(
    rng: np.random.Generator, replicas: int = 3, windows: int = 10, samples: int = 80, groups: int = 3
) -> dict[str, np.ndarray]:
    """Results of every sample, as arrays ``(R, T + 1, E, N)``, of models that age; those of samples ``(E, N)``."""
    age = np.abs(np.arange(windows + 1)[:, None] - 1 - np.arange(windows))
    difficulty = 0.3 + 0.07 * age + 0.2 * rng.random((replicas, windows + 1, windows))
    nll = rng.exponential(difficulty[..., None], (replicas, windows + 1, windows, samples)).astype(np.float16)
    bins = np.clip(15 * np.exp(-nll * rng.uniform(0.8, 1.2, nll.shape)), 0, 14.99)
    return {
        "nll": nll,
        "correct": nll < 0.6,
        "predicted": rng.integers(0, 3, nll.shape),
        "confidence": ((np.floor(bins / 5) * 5 + 0.5) / 15).astype(np.float16),  # bins 0, 5 and 10
        "label": rng.integers(0, 3, (windows, samples)),
        "group": rng.integers(0, groups, (windows, samples)),
        "inputs": rng.multinomial(samples, np.full(10, 0.1), (windows, FEATURES)),
    }


def record_with_samples(results: dict[str, np.ndarray]) -> Record:
    """The record of `sample_results`, with predictions; windows are interleaved in the order of samples."""
    windows, samples = results["nll"].shape[2:]

    def flat(name: str) -> np.ndarray:
        values = results[name]
        return values.swapaxes(-1, -2).reshape(*values.shape[:-2], windows * samples)

    column = np.tile(np.arange(windows), samples)[None]
    predictions = Predictions(
        {
            "bits": np.packbits(flat("correct"), axis=-1),
            "confidence": flat("confidence"),
            "nll": flat("nll"),
            "predicted": flat("predicted").astype(np.uint8),
            "index": np.arange(windows * samples)[None],
            "column": column,
            "label": flat("label")[None],
            "slice.group": flat("group")[None],
            "inputs": results["inputs"],
        }
    )
    nll = results["nll"].astype(np.float64).mean(-1)
    error = 1 - results["correct"].mean(-1)
    labels = {"group": [f"g{i}" for i in range(int(results["group"].max()) + 1)]}
    return record_of(nll, error, samples, predictions=predictions, labels=labels)
