"""Reduction of the result of a run to its record."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_lib import metrics as m
from cl_lib._version import __version__
from cl_lib.errors import printable
from cl_lib.files import null, plain
from cl_lib.harness.result import Result
from cl_lib.record import Metric, Record
from cl_lib.record.predictions import Predictions
from cl_lib.record.slices import mean, reliability_diagrams, slice_accuracy, slice_means
from cl_lib.stats import summarise

SAMPLES = ("bits", "confidence", "nll", "predicted")
FLIPS = ("flips.negative", "flips.positive")
KEPT = (
    "pooled.",
    "class.",
    "column.",
    "age",
    "support",
    "experience.",
    "loss",
    "predicted",
    "confidence.",
    "served",
    "candidate.",
    "recalibrat",
    "memory.",
)
MATRICES = ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")


def make_record(result: Result, name: str, config: dict[str, Any] | None = None, command: str | None = None) -> Record:
    """Reduce the rows of a run to a record."""
    replicas = result.replicas
    arrays = _arrays(result)
    values, reasons = _values(result, arrays)
    every_replica = list(range(len(replicas)))
    matrices = {k: _mean(arrays[f"matrix.{k}"]) for k in MATRICES}
    diverged = arrays.pop("diverged")
    points = _points(replicas)
    grid = [
        {
            "hyper": plain(hyper, "grid"),
            "replicas": members,
            "metrics": {k: asdict(_metric(v, members, reasons.get(k))) for k, v in values.items()},
            "accuracy_matrix": _mean(arrays["matrix.accuracy"][members]),
        }
        for hyper, members in points
        if hyper
    ]
    return Record(
        stream=json.loads(json.dumps(result.description["stream"])),
        strategy=name,
        seeds=result.seeds,
        config=json.loads(json.dumps(config if config is not None else result.description)),
        job=json.loads(json.dumps(result.description)),
        metrics={k: _metric(v, every_replica, reasons.get(k)) for k, v in values.items()},
        accuracy_matrix=matrices["accuracy"],
        rows=[
            {"experience": row.experience, "step": step}
            for row, step in zip(result.groups[0].rows, _common(arrays["step"]), strict=True)
        ],
        learned=_common(arrays["learned"]),
        before=_common(arrays["before"]),
        matrices={k: v for k, v in matrices.items() if k != "accuracy"},
        slices=_slices(result, arrays),
        reliability={
            name: {k: null(v) for k, v in diagram.items()}
            for name, diagram in reliability_diagrams(arrays["pooled.bins"]).items()
        },
        cost=_cost(result, arrays),
        replicas=[
            {
                "seed": int(r.seed),
                "hyper": {k: plain(v, f"grid.{k}") for k, v in r.hyper.items()},
                "status": "ok" if diverged[i] < 0 else "diverged",
                "diverged_at": int(diverged[i]) if diverged[i] >= 0 else None,
            }
            for i, r in enumerate(replicas)
        ],
        grid=grid,
        environment=_environment(result, command),
        arrays=arrays,
        samples=_predictions(result),
    )


def _arrays(result: Result) -> dict[str, np.ndarray]:
    """Stack the rows of all groups into one array per quantity, replicas first, in the order of the run's replicas."""
    groups = result.groups
    order = np.argsort([member for group in groups for member in group.members])
    names = set.intersection(*(set(row.arrays) for group in groups for row in group.rows))

    def stacked(name: str, rows: slice) -> np.ndarray:
        per_group = [np.stack([row.arrays[name] for row in group.rows[rows]], 1) for group in groups]
        return np.concatenate(per_group)[order]

    out = {f"matrix.{k}": stacked(k, slice(None)) for k in MATRICES}
    out["step"] = np.concatenate([np.tile([r.step for r in group.rows], (len(group.members), 1)) for group in groups])
    out["step"] = out["step"][order]
    out["learned"] = np.concatenate([group.learned for group in groups])[order]
    out["before"] = np.concatenate([group.before for group in groups])[order]
    out["diverged"] = stacked("diverged", slice(-1, None))[:, 0]
    for name in sorted(names):
        if name.startswith(KEPT) and "samples" not in name:
            out[name] = stacked(name, slice(None))
            if name.endswith("bins"):
                out[name] = out[name][:, [0, -1]]  # large: reports show the first and last evaluation
    if all("flips.negative" in row.arrays for group in groups for row in group.rows[1:]):  # not in old checkpoints
        out |= {name: stacked(name, slice(1, None)) for name in FLIPS}
    return out


def _predictions(result: Result) -> Predictions | None:
    """Predictions of all groups, replicas first, in the order of the run's replicas."""
    groups = result.groups
    if not groups[0].samples:
        return None
    order = np.argsort([member for group in groups for member in group.members])
    parts = [{k: np.stack([row.arrays[f"samples.{k}"] for row in g.rows], 1) for k in SAMPLES} for g in groups]
    arrays = {name: np.concatenate([part[name] for part in parts])[order] for name in SAMPLES}
    for name in groups[0].samples:
        axes = 3 if name == "inputs" else 1  # axes of one replica
        per_group = [np.broadcast_to(g.samples[name], (len(g.members), *g.samples[name].shape[-axes:])) for g in groups]
        codes = np.concatenate(per_group)[order]
        arrays[name] = codes[:1] if (codes == codes[:1]).all() else codes
        if name == "inputs" and len(arrays[name]) == 1:
            arrays[name] = arrays[name][0]
    return Predictions(arrays)


def _values(result: Result, arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every metric for each replica, and the reasons of undefined metrics."""
    matrix = arrays["matrix.accuracy"]
    count, learned, before = matrix.shape[0], arrays["learned"], arrays["before"]

    def per_replica(metric: Callable[..., Any], rows: np.ndarray | None = None) -> np.ndarray:
        return np.array(
            [float(metric(matrix[r]) if rows is None else metric(matrix[r], rows[r])) for r in range(count)]
        )

    reasons: dict[str, str] = {}
    values: dict[str, np.ndarray] = {
        "accuracy": per_replica(m.accuracy),
        "average_accuracy": per_replica(m.average_accuracy, before),
        "learning_accuracy": per_replica(m.learning_accuracy, learned),
        "forgetting": per_replica(m.forgetting, learned),
        "bwt": per_replica(m.bwt, learned),
        "fwt": per_replica(m.fwt, before),
    }
    if result.eval_classes == "seen":
        values["fwt"] = np.full(count, np.nan)
        reasons["fwt"] = (
            "only seen classes may be predicted, so accuracy before an experience is not defined (eval_classes=seen)"
        )
    if matrix.shape[2] == 1:
        for name in ("forgetting", "bwt", "fwt"):
            reasons[name] = "needs more than one experience"
    elif matrix.shape[1] == 2 and result.length > 1:
        values["learning_accuracy"] = np.full(count, np.nan)
        for name in ("forgetting", "bwt", "fwt", "learning_accuracy"):
            reasons.setdefault(name, "evaluated only after the last experience (eval_every)")
    elif (before == 0).all():
        for name in ("forgetting", "bwt"):
            reasons[name] = "all experiences were trained on at once"
        reasons.setdefault("fwt", "all experiences were trained on at once")
    _updates(result, arrays, values, reasons)
    healthy = arrays["diverged"] < 0
    for name in ("ece", "adaptive_ece", "classwise_ece", "brier", "nll"):
        values[name] = arrays[f"pooled.{name}"][:, -1]
        if np.isnan(values[name][healthy]).all():
            reasons[name] = "some tested classes were never seen (eval_classes=seen)"
    support = arrays["class.count"][:, -1]
    with np.errstate(invalid="ignore"):
        per_class = arrays["class.correct"][:, -1] / support
    values["worst_class_accuracy"] = m.worst(per_class, support)
    values["class_gap"] = m.gap(per_class, support)
    values["worst_experience_accuracy"] = m.worst(matrix[:, -1], arrays["support"][:, -1])
    values["anytime_accuracy"] = _anytime(arrays)
    for name in ("worst_class_accuracy", "class_gap", "worst_experience_accuracy"):
        if np.isnan(values[name][healthy]).all():
            reasons[name] = "no slice has at least 30 test samples"
    if not healthy.any():
        reasons = dict.fromkeys(values, "every replica diverged")
    return {name: np.where(healthy, value, np.nan) for name, value in values.items()}, reasons


def _updates(
    result: Result, arrays: dict[str, np.ndarray], values: dict[str, np.ndarray], reasons: dict[str, str]
) -> None:
    """Add the flip rates of the updates and the metrics on the experience that follows each of them."""
    matrix, learned, before = arrays["matrix.accuracy"], arrays["learned"], arrays["before"]
    replicas = range(len(matrix))
    for name in ("accuracy", "nll"):
        values[f"next_{name}"] = np.array(
            [float(m.next_experience(arrays[f"matrix.{name}"][r], before[r])) for r in replicas]
        )
        if "fwt" in reasons:  # undefined for the same reason
            values[f"next_{name}"][:] = np.nan
            reasons[f"next_{name}"] = reasons["fwt"]
    for name in FLIPS:
        metric = f"{name.removeprefix('flips.')}_flip_rate"
        if name not in arrays:
            values[metric] = np.full(len(matrix), np.nan)
            reasons[metric] = "resumed from a checkpoint of a version that did not count flips"
            continue
        support = arrays["support"][:, -1]
        values[metric] = np.array([float(m.flip_rate(arrays[name][r], support[r], learned[r])) for r in replicas])
        if np.isnan(values[metric]).all() and "forgetting" in reasons:
            reasons[metric] = reasons["forgetting"]


def _anytime(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Anytime accuracy of each replica over its steps; NaN if two evaluations have no step between them."""
    out = np.full(len(arrays["step"]), np.nan)
    for r, (steps, curve) in enumerate(zip(arrays["step"], arrays["matrix.accuracy"].mean(2), strict=True)):
        if (np.diff(steps) > 0).all():
            out[r] = m.anytime_accuracy(steps, curve)
    return out


def _common(values: np.ndarray) -> list[int | None]:
    """Values shared by all replicas, None where they differ (the arrays contain the values of each replica)."""
    return [int(column[0]) if (column == column[0]).all() else None for column in values.T]


def _metric(value: np.ndarray, members: Sequence[int], reason: str | None) -> Metric:
    per_seed = null(value[list(members)])
    summary = summarise(per_seed)
    ci = None if summary.ci95 is None else [float(v) for v in summary.ci95]
    if summary.n == 0 and reason is None:
        reason = "every replica diverged"
    return Metric(summary.mean, summary.std, ci, summary.n, per_seed, reason if summary.n == 0 else None)


def _points(replicas: Sequence[Any]) -> list[tuple[dict[str, float], list[int]]]:
    points: dict[Any, list[int]] = {}
    for i, replica in enumerate(replicas):
        points.setdefault(tuple(replica.hyper.items()), []).append(i)
    return [(dict(hyper), members) for hyper, members in points.items()]


def _mean(values: np.ndarray) -> Any:
    return null(mean(values))


def _slices(result: Result, arrays: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Support, accuracy, ECE and forgetting of each slice, as means over the replicas that did not diverge."""
    matrix = arrays["matrix.accuracy"]
    # forgetting is undefined for classes first trained on after the last but one evaluation
    known = arrays["age"][:, -2] >= 0 if "age" in arrays else True
    past = arrays["learned"] < matrix.shape[1] - 1
    out = {
        "class": _slice(result.classes, *_sums(arrays, "class"), known),
        "experience": _slice(
            result.columns, arrays["support"], matrix * arrays["support"], arrays["experience.bins"], past
        ),
    }
    if "age" in arrays:
        ages, labels = m.age_groups(arrays["age"][:, -1])
        sums = (m.merge_groups(part[:, -1], ages, len(labels))[:, None] for part in _sums(arrays, "class"))
        out["age"] = _slice(labels, *sums)
    else:
        out["age"] = {name: [] for name in ("labels", "support", "accuracy", "ece", "forgetting")}
        out["age"] |= {"worst": None, "gap": None}
        out["age"]["reason"] = "a policy decided for each replica which windows it was trained on"
    # a name may contain dots
    for name in sorted({k.split(".", 1)[1].rsplit(".", 1)[0] for k in arrays if k.startswith("column.")}):
        names = result.slices[name]
        out[name] = _slice(names, *_sums(arrays, f"column.{name}"))
    return out


def _sums(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return arrays[f"{name}.count"], arrays[f"{name}.correct"], arrays[f"{name}.bins"]


def _slice(
    labels: Sequence[str], count: np.ndarray, correct: np.ndarray, bins: np.ndarray, past: np.ndarray | bool = True
) -> dict[str, Any]:
    accuracy, support = slice_accuracy(count, correct), count[:, -1]
    forgotten = m.slice_forgetting(accuracy) if accuracy.shape[1] > 2 else np.full(support.shape, np.nan)
    return {
        **{k: null(v) for k, v in slice_means(labels, support, correct[:, -1]).items()},
        "ece": _mean(m.ece(bins[:, -1])),
        "forgetting": _mean(np.where(past, forgotten, np.nan)),
        "worst": _mean(m.worst(accuracy[:, -1], support)),
        "gap": _mean(m.gap(accuracy[:, -1], support)),
    }


def _cost(result: Result, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    seconds = result.seconds
    steps = sum(group.steps * len(group.members) for group in result.groups) / len(result.replicas)
    if "served" in arrays and "candidate.nll" not in arrays:  # windows whose updates a policy declined are not trained
        accepted = arrays["served"][:, 1:] == np.arange(1, arrays["served"].shape[1])
        steps = float((np.diff(arrays["step"], axis=1) * accepted).sum(1).mean())
    cuda = result.device.type == "cuda"
    training = seconds["training"] + seconds["consolidation"]
    return {
        "training_seconds": training,
        "preparation_seconds": seconds["preparation"],
        "evaluation_seconds": seconds["evaluation"],
        "planning_seconds": seconds["planning"],
        "replicas": len(result.replicas),
        "steps": steps,
        "samples_per_second": steps * result.batch_size * len(result.replicas) / max(training, 1e-9),
        "parameters": result.groups[0].parameters,
        "memory_bytes": result.groups[0].memory_bytes,
        "peak_device_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }


def _environment(result: Result, command: str | None) -> dict[str, Any]:
    device = result.device
    return {
        "cl_lib": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu ({_processor()})",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": command if command is not None else printable(f"python {Path(sys.argv[0]).name}"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
