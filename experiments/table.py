"""The compact table of a study: one line for each replica of each run, in ``tables/<study>.csv.gz``.

A line holds what pages and tests read: every metric of the replica, and of its run the command, the commit, a hash of
the configuration, the machine and the cost. Arrays that a picture needs are in ``tables/<study>.npz``.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cl_lib import Metric, Record
from cl_lib.stats import summarise

TABLES = Path(__file__).parent / "tables"
SECONDS = ("training_seconds", "preparation_seconds", "evaluation_seconds", "planning_seconds")
COST = (*SECONDS, "steps", "parameters", "memory_bytes")
ENVIRONMENT = ("cl_lib", "python", "torch", "numpy", "platform", "device", "cores", "threads")
NUMBERS = {*COST, "seed", "cores", "threads", "diverged_at", "selection"}


@dataclass(frozen=True)
class Run:
    """What is kept of one record.

    Attributes
    ----------
    name : str
        Within the study, such as ``"er/search"``.
    info : dict
        ``command``, ``commit``, ``config_hash``, ``data_hash``, ``eval_on``, the machine and the cost.
    replicas : list of dict
        ``seed``, ``hyper``, ``status``, ``diverged_at``, and ``selection``: the mean accuracy on the first three
        experiences after the third, by which searches choose.
    metrics : dict
        By name a value for each replica, None where it is undefined.
    arrays : dict of ndarray
        What pictures need; empty for most runs.
    """

    name: str
    info: dict[str, Any]
    replicas: list[dict[str, Any]]
    metrics: dict[str, list[float | None]]
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(replica["seed"] for replica in self.replicas))

    @property
    def diverged(self) -> int:
        return sum(replica["status"] != "ok" for replica in self.replicas)

    def metric(self, name: str, members: Iterable[int] | None = None) -> Metric:
        """A metric over all replicas, or over some of them."""
        values = [self.metrics[name][i] for i in (range(len(self.replicas)) if members is None else members)]
        summary = summarise(values)
        ci = None if summary.ci95 is None else [float(v) for v in summary.ci95]
        return Metric(summary.mean, summary.std, ci, summary.n, values)

    def points(self) -> list[tuple[dict[str, float], list[int]]]:
        """The grid points of a search with the positions of their replicas."""
        out: dict[str, tuple[dict[str, float], list[int]]] = {}
        for i, replica in enumerate(self.replicas):
            out.setdefault(json.dumps(replica["hyper"]), (replica["hyper"], []))[1].append(i)
        return list(out.values())


def from_record(name: str, record: Record, commit: str, arrays: Mapping[str, np.ndarray] | None = None) -> Run:
    """What a table keeps of a record."""
    matrix = record.arrays.get("matrix.accuracy")
    selection: list[float | None] = [None] * len(record.replicas)
    if record.job["eval_on"] == "valid" and matrix is not None and matrix.shape[1] > 3:
        selection = [None if np.isnan(v) else float(v) for v in matrix[:, 3, :3].mean(1)]
    info = {
        "command": record.environment["command"],
        "commit": commit,
        "config_hash": hashlib.sha256(json.dumps(record.job, sort_keys=True).encode()).hexdigest()[:16],
        "data_hash": record.stream["data_hash"],
        "eval_on": record.job["eval_on"],
        **{key: record.environment[key] for key in ENVIRONMENT},
        **{key: record.cost.get(key) for key in COST},
    }
    replicas = [
        {**{k: r[k] for k in ("seed", "hyper", "status", "diverged_at")}, "selection": selection[i]}
        for i, r in enumerate(record.replicas)
    ]
    metrics = {key: list(metric.per_seed) for key, metric in record.metrics.items()}
    return Run(name, info, replicas, metrics, dict(arrays or {}))


def write(study: str, runs: Mapping[str, Run], folder: Path = TABLES) -> None:
    """Write a study's table, the same bytes for the same runs."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for run in runs.values() for name in run.metrics))
    heads = ["run", "seed", "hyper", "status", "diverged_at", "selection", *names]
    keys = list(dict.fromkeys(key for run in runs.values() for key in run.info))
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*heads, *keys])
    for run in runs.values():
        for i, replica in enumerate(run.replicas):
            line = [run.name, replica["seed"], json.dumps(replica["hyper"]), replica["status"]]
            line += [replica["diverged_at"], replica["selection"]]
            values = [run.metrics.get(name, [None] * len(run.replicas))[i] for name in names]
            lines.writerow([*line, *values, *(run.info.get(key) for key in keys)])
    folder.mkdir(exist_ok=True)
    (folder / f"{study}.csv.gz").write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    arrays = {f"{run.name}/{key}": values for run in runs.values() for key, values in run.arrays.items()}
    if arrays:
        np.savez_compressed(folder / f"{study}.npz", allow_pickle=False, **arrays)


def read(study: str, folder: Path = TABLES) -> dict[str, Run]:
    """The runs of a study's table, by name; none where there is no table yet."""
    path = folder / f"{study}.csv.gz"
    if not path.exists():
        return {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    heads = list(lines[0])
    names = heads[heads.index("selection") + 1 : heads.index("command")]
    keys = heads[heads.index("command") :]
    grouped: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        grouped.setdefault(line["run"], []).append(line)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    if (folder / f"{study}.npz").exists():
        with np.load(folder / f"{study}.npz", allow_pickle=False) as stored:
            for key in stored.files:
                run, _, name = key.rpartition("/")
                arrays.setdefault(run, {})[name] = stored[key]
    out = {}
    for run, part in grouped.items():
        replicas = [
            {
                "seed": int(line["seed"]),
                "hyper": json.loads(line["hyper"]),
                "status": line["status"],
                "diverged_at": _number(line["diverged_at"]),
                "selection": _number(line["selection"]),
            }
            for line in part
        ]
        metrics = {name: [_number(line[name]) for line in part] for name in names}
        info = {key: _number(part[0][key]) if key in NUMBERS else part[0][key] for key in keys}
        out[run] = Run(run, info, replicas, metrics, arrays.get(run, {}))
    return out


def _number(text: str) -> Any:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)
