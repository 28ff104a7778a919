"""What a run leaves on disk: ``record.json``, checked and versioned, arrays beside it, the resolved configuration."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cl_lib import metrics as m
from cl_lib.errors import InputError
from cl_lib.stats import summarise

if TYPE_CHECKING:
    from cl_lib.harness import Group, Row, Session

SCHEMA = "cl_lib.record/1"
RECORD, ARRAYS, CONFIG = "record.json", "arrays.npz", "config.yaml"
CHECKPOINT, PARTIAL = "checkpoint.npz", "partial.json"
MATRICES = ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")


@dataclass(frozen=True)
class Metric:
    """One number over seeds. ``per_seed`` is in the order of ``record.replicas``, None where a replica diverged."""

    mean: float | None
    std: float | None
    ci95: list[float] | None
    n: int
    per_seed: list[float | None]
    reason: str | None = None

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        return f"{self.mean:.4f}" + (f" ± {self.std:.4f}" if self.std is not None else "")


@dataclass(frozen=True)
class Record:
    """The outcome of a run; `docs/record.md` explains every key.

    Attributes
    ----------
    metrics : dict of Metric
        Fractions in [0, 1] but for NLL (nats) and Brier ([0, 2]).
    accuracy_matrix : list of lists
        Mean over replicas; row 0 the untrained network, row i after the i-th evaluation; columns the test sets.
    grid : list
        Where a grid was trained: for each of its points ``hyper``, ``replicas``, ``metrics``, ``accuracy_matrix``.
        The metrics above then run over all replicas.
    arrays : dict of ndarray
        Per replica: every matrix ``(R, T + 1, E)``, class and slice sums; in ``arrays.npz``.
    """

    stream: dict[str, Any]
    strategy: str
    seeds: list[int]
    config: dict[str, Any]
    job: dict[str, Any]
    metrics: dict[str, Metric]
    accuracy_matrix: list[list[float | None]]
    rows: list[dict[str, int]]
    matrices: dict[str, list[list[float | None]]]
    slices: dict[str, dict[str, Any]]
    reliability: dict[str, dict[str, list[float | None]]]
    cost: dict[str, Any]
    replicas: list[dict[str, Any]]
    grid: list[dict[str, Any]]
    environment: dict[str, Any]
    schema: str = SCHEMA
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The content of ``record.json``."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "arrays"}
        data["metrics"] = {k: asdict(v) for k, v in self.metrics.items()}
        return {"schema": data.pop("schema"), **data}

    def save(self, directory: str | Path) -> Path:
        """Write the record; the JSON last, so that a directory with ``record.json`` is complete."""
        from omegaconf import OmegaConf

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / ARRAYS, lambda file: np.savez_compressed(file, **self.arrays))
        _replace(directory / CONFIG, lambda file: file.write(OmegaConf.to_yaml(OmegaConf.create(self.config)).encode()))
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        _replace(directory / RECORD, lambda file: file.write(text.encode()))
        return directory

    @classmethod
    def load(cls, directory: str | Path) -> Record:
        """Read and check a record.

        Raises
        ------
        InputError
            When there is none, or it is not of this schema; the message names the file and the key.
        """
        path = Path(directory)
        path = path / RECORD if path.is_dir() else path
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            hint = " (an unfinished run: go on with resume=true)" if (path.parent / CHECKPOINT).exists() else ""
            raise InputError(f"{path}: there is no record{hint}") from None
        except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a readable record ({error})") from error
        check_record(data, str(path))
        arrays = {}
        if (path.parent / ARRAYS).exists():
            with np.load(path.parent / ARRAYS, allow_pickle=False) as file:
                arrays = {k: file[k] for k in file.files}
        data["metrics"] = {k: Metric(**v) for k, v in data["metrics"].items()}
        return cls(**data, arrays=arrays)

    def __str__(self) -> str:
        from cl_lib.report.table import summary

        return summary(self)


def schema() -> dict[str, Any]:
    """The JSON schema of ``record.json``, shipped with the package."""
    return json.loads((Path(__file__).parent / "record.schema.json").read_text())


def check_record(data: Any, where: str = RECORD) -> None:
    """Raise `InputError` where ``data`` does not follow the schema, naming the place.

    Understands the part of JSON Schema that ``record.schema.json`` uses: type, const, required, properties,
    additionalProperties, items.
    """
    if isinstance(data, Mapping) and data.get("schema") != SCHEMA:
        raise InputError(f"{where}: schema is {data.get('schema')!r}, this version reads {SCHEMA!r}")
    _check(data, schema(), where)


_TYPES: dict[str, Any] = {
    "object": Mapping,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def _check(data: Any, rule: Mapping[str, Any], where: str) -> None:
    kinds = rule.get("type")
    if kinds is not None:
        names = [kinds] if isinstance(kinds, str) else kinds
        fits = any(
            isinstance(data, _TYPES[n]) and not (isinstance(data, bool) and n in ("integer", "number")) for n in names
        )
        if not fits:
            raise InputError(f"{where}: expected {' or '.join(names)}, found {type(data).__name__}")
    if "const" in rule and data != rule["const"]:
        raise InputError(f"{where}: expected {rule['const']!r}, found {data!r}")
    if isinstance(data, Mapping):
        for name in rule.get("required", ()):
            if name not in data:
                raise InputError(f"{where}: {name} is missing")
        known, other = rule.get("properties", {}), rule.get("additionalProperties", True)
        for name, value in data.items():
            inner = known.get(name, other)
            if inner is False:
                raise InputError(f"{where}: unknown key {name}")
            if isinstance(inner, Mapping):
                _check(value, inner, f"{where}: {name}")
    if isinstance(data, list) and "items" in rule:
        for i, value in enumerate(data):
            _check(value, rule["items"], f"{where}[{i}]")


def claim(directory: Path, job: dict[str, Any], resume: bool) -> Record | None:
    """Make sure that ``directory`` may be written; with ``resume``, the finished record of the same job if it has one.

    Raises
    ------
    InputError
        When the directory holds another run: nothing is ever overwritten.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"out={directory}: is a file; name a directory")
    if (directory / RECORD).exists():
        if not resume:
            raise InputError(
                f"out={directory}: already holds a run; choose another directory, or resume=true to go on with the same"
            )
        record = Record.load(directory)
        if record.job != json.loads(json.dumps(job)):
            odd = [k for k in job if record.job.get(k) != json.loads(json.dumps(job))[k]]
            raise InputError(f"out={directory}: holds a finished run with other options ({', '.join(odd)})")
        return record
    if (directory / CHECKPOINT).exists() and not resume:
        raise InputError(
            f"out={directory}: holds an unfinished run; go on with resume=true, or choose another directory"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"out={directory}: cannot be written ({error.strerror})") from error
    return None


def write_partial(directory: Path, job: dict[str, Any], rows: Sequence[Row]) -> None:
    """What is known of an unfinished run, to be read by people: the accuracies so far."""
    own = [
        {"experience": r.experience, "step": r.step, "replicas": r.replicas, "accuracy": _null(r.accuracy)}
        for r in rows
    ]
    text = json.dumps({"status": "unfinished", "job": job, "rows": own}, indent=1) + "\n"
    _replace(directory / PARTIAL, lambda file: file.write(text.encode()))


# ---------------------------------------------------------------------- from rows to numbers
def make_record(
    session: Session, name: str, config: dict[str, Any] | None = None, command: str | None = None
) -> Record:
    """Reduce a session's rows to a record."""
    job, replicas = session.job, session.replicas
    arrays = _arrays(session)
    values, reasons = _values(session, arrays)
    everyone = list(range(len(replicas)))
    matrices = {k: _mean(arrays[f"matrix.{k}"]) for k in MATRICES}
    diverged = arrays.pop("diverged")
    points = _points(replicas)
    grid = [
        {
            "hyper": hyper,
            "replicas": members,
            "metrics": {k: asdict(_metric(v, members, reasons.get(k))) for k, v in values.items()},
            "accuracy_matrix": _mean(arrays["matrix.accuracy"][members]),
        }
        for hyper, members in points
        if hyper
    ]
    return Record(
        stream=json.loads(json.dumps(job.stream.describe())),
        strategy=name,
        seeds=job.seed_list,
        config=json.loads(json.dumps(config if config is not None else session.description)),
        job=json.loads(json.dumps(session.description)),
        metrics={k: _metric(v, everyone, reasons.get(k)) for k, v in values.items()},
        accuracy_matrix=matrices["accuracy"],
        rows=[{"experience": r.experience, "step": r.step} for r in session.groups[0].rows],
        matrices={k: v for k, v in matrices.items() if k != "accuracy"},
        slices=_slices(session, arrays),
        reliability=_reliability(arrays),
        cost=_cost(session),
        replicas=[
            {
                "seed": r.seed,
                "hyper": r.hyper,
                "status": "ok" if diverged[i] < 0 else "diverged",
                "diverged_at": int(diverged[i]) if diverged[i] >= 0 else None,
            }
            for i, r in enumerate(replicas)
        ],
        grid=grid,
        environment=_environment(session, command),
        arrays=arrays,
    )


def _arrays(session: Session) -> dict[str, np.ndarray]:
    """Rows of all groups as one array for each quantity, replicas first, in the order of the run's replicas."""
    groups: list[Group] = session.groups
    order = np.argsort([member for group in groups for member in group.members])
    names = set.intersection(*(set(row.arrays) for group in groups for row in group.rows))

    def stacked(name: str, rows: slice) -> np.ndarray:
        per_group = [np.stack([row.arrays[name] for row in group.rows[rows]], 1) for group in groups]
        return np.concatenate(per_group)[order]

    out = {f"matrix.{k}": stacked(k, slice(None)) for k in MATRICES}
    out["step"] = np.array([row.step for row in groups[0].rows])
    out["diverged"] = stacked("diverged", slice(-1, None))[:, 0]
    for name in sorted(names):
        if name.startswith(("pooled.", "class.", "column.", "age", "support", "experience.bins", "loss")):
            # bins are large: the first and last evaluation are what reports show
            out[name] = (
                stacked(name, slice(None)) if not name.endswith("bins") else stacked(name, slice(None))[:, [0, -1]]
            )
    return out


def _values(session: Session, arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every metric for each replica, and why one is null."""
    matrix = arrays["matrix.accuracy"]
    count = matrix.shape[0]
    learned = np.zeros((count, matrix.shape[2]), int)
    before = np.zeros_like(learned)
    for group in session.groups:
        learned[group.members], before[group.members] = group.learned, group.before

    def each(one: Callable[..., Any], rows: np.ndarray | None = None) -> np.ndarray:
        return np.array([float(one(matrix[r]) if rows is None else one(matrix[r], rows[r])) for r in range(count)])

    reasons: dict[str, str] = {}
    values: dict[str, np.ndarray] = {
        "accuracy": each(m.accuracy),
        "average_accuracy": each(m.average_accuracy, before),
        "learning_accuracy": each(m.learning_accuracy, learned),
        "forgetting": each(m.forgetting, learned),
        "bwt": each(m.bwt, learned),
        "fwt": each(m.fwt, before),
    }
    if session.job.stream.eval_classes == "seen":
        values["fwt"] = np.full(count, np.nan)
        reasons["fwt"] = (
            "only seen classes may be answered, so accuracy before an experience says nothing (eval_classes=seen)"
        )
    if matrix.shape[2] == 1:
        for name in ("forgetting", "bwt", "fwt"):
            reasons[name] = "needs more than one experience"
    elif (before == 0).all():
        for name in ("forgetting", "bwt"):
            reasons[name] = "all experiences were trained on at once"
        reasons.setdefault("fwt", "all experiences were trained on at once")
    for name in ("ece", "adaptive_ece", "classwise_ece", "brier", "nll"):
        values[name] = arrays[f"pooled.{name}"][:, -1]
        if np.isnan(values[name]).all():
            reasons[name] = "undefined: some tested classes were never seen, or every replica diverged"
    support = arrays["class.count"][:, -1]
    with np.errstate(invalid="ignore"):
        per_class = arrays["class.correct"][:, -1] / support
    values["worst_class_accuracy"] = m.worst(per_class, support)
    values["class_gap"] = m.gap(per_class, support)
    values["worst_experience_accuracy"] = m.worst(matrix[:, -1], arrays["support"][:, -1])
    values["anytime_accuracy"] = _anytime(arrays)
    for name in ("worst_class_accuracy", "class_gap", "worst_experience_accuracy"):
        if np.isnan(values[name]).all():
            reasons[name] = "no slice has at least 30 test samples, or every replica diverged"
    bad = arrays["diverged"] >= 0
    for name, value in values.items():
        values[name] = np.where(bad, np.nan, value)
    return values, reasons


def _anytime(arrays: dict[str, np.ndarray]) -> np.ndarray:
    steps = arrays["step"]
    if len(steps) < 2 or (np.diff(steps) <= 0).any():
        return np.full(len(arrays["matrix.accuracy"]), np.nan)
    return m.anytime_accuracy(steps, arrays["matrix.accuracy"].mean(2))


def _metric(value: np.ndarray, members: Sequence[int], reason: str | None) -> Metric:
    per_seed = _null(value[list(members)])
    got = summarise(per_seed)
    ci = None if got.ci95 is None else [float(v) for v in got.ci95]
    if got.n == 0 and reason is None:
        reason = "every replica diverged"
    return Metric(got.mean, got.std, ci, got.n, per_seed, reason if got.n == 0 else None)


def _points(replicas: Sequence[Any]) -> list[tuple[dict[str, float], list[int]]]:
    points: dict[Any, list[int]] = {}
    for i, replica in enumerate(replicas):
        points.setdefault(tuple(replica.hyper.items()), []).append(i)
    return [(dict(hyper), members) for hyper, members in points.items()]


def _null(values: Any) -> Any:
    """Nested lists with None for NaN: what JSON can hold."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [_null(v) for v in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _mean(values: np.ndarray) -> Any:
    """Mean over the healthy replicas (the first axis)."""
    healthy = np.isfinite(values)
    total = np.where(healthy, values, 0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _null(np.where(healthy.any(0), total / healthy.sum(0), np.nan))


def _slices(session: Session, arrays: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Support, accuracy, ECE and forgetting of each slice, means over the healthy replicas."""
    stream = session.job.stream
    matrix = arrays["matrix.accuracy"]
    # what was first trained on after the last but one evaluation has no past to forget
    known = arrays["age"][:, -2] >= 0
    past = np.zeros((matrix.shape[0], matrix.shape[2]), bool)
    for group in session.groups:
        past[group.members] = group.learned < matrix.shape[1] - 1
    out = {
        "class": _slice(stream.classes, *(arrays[f"class.{k}"] for k in ("count", "correct", "bins")), known),
        "experience": _slice(
            stream.columns, arrays["support"], matrix * arrays["support"], arrays["experience.bins"], past
        ),
    }
    group, labels = m.age_groups(arrays["age"][:, -1])
    merged = [m.merge_groups(arrays[f"class.{k}"][:, -1], group, len(labels)) for k in ("count", "correct", "bins")]
    out["age"] = _slice(labels, *(part[:, None] for part in merged))
    for name in sorted({k.split(".")[1] for k in arrays if k.startswith("column.")}):
        names = session.job.stream.data.test.columns[name].labels
        out[name] = _slice(names, *(arrays[f"column.{name}.{k}"] for k in ("count", "correct", "bins")))
    return out


def _slice(
    labels: Sequence[str], count: np.ndarray, correct: np.ndarray, bins: np.ndarray, past: np.ndarray | bool = True
) -> dict[str, Any]:
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = correct / count
    support = count[:, -1]
    forgotten = m.slice_forgetting(accuracy) if accuracy.shape[1] > 2 else np.full(support.shape, np.nan)
    return {
        "labels": list(labels),
        "support": _mean(np.where(support > 0, support, np.nan)),
        "accuracy": _mean(accuracy[:, -1]),
        "ece": _mean(m.ece(bins[:, -1])),
        "forgetting": _mean(np.where(past, forgotten, np.nan)),
        "worst": _mean(m.worst(accuracy[:, -1], support)),
        "gap": _mean(m.gap(accuracy[:, -1], support)),
    }


def _reliability(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, list[float | None]]]:
    """Reliability diagrams of the untrained network and after the stream, samples of all healthy replicas pooled."""
    bins = arrays["pooled.bins"].copy()
    bins[..., -2, :] += bins[..., -1, :]  # a confidence of exactly 1 belongs to the last bin of a diagram
    total = np.nansum(bins[:, :, :-1], 0)
    out = {}
    for name, own in (("before", total[0]), ("after", total[-1])):
        diagram = m.reliability(own)
        parts = (("confidence", diagram.confidence), ("accuracy", diagram.accuracy), ("count", diagram.count))
        out[name] = {k: _null(np.asarray(v)) for k, v in parts}
    return out


def _cost(session: Session) -> dict[str, Any]:
    seconds, job = session.seconds, session.job
    steps = sum(group.steps * len(group.members) for group in session.groups) / len(session.replicas)
    cuda = job.torch_device.type == "cuda"
    return {
        "training_seconds": seconds["training"],
        "evaluation_seconds": seconds["evaluation"],
        "planning_seconds": seconds["planning"],
        "replicas": len(session.replicas),
        "steps": steps,
        "samples_per_second": steps * job.batch_size * len(session.replicas) / max(seconds["training"], 1e-9),
        "parameters": session.groups[0].parameters,
        "memory_bytes": session.groups[0].memory_bytes,
        "peak_device_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }


def _environment(session: Session, command: str | None) -> dict[str, Any]:
    from cl_lib import __version__

    device = session.job.torch_device
    return {
        "cl_lib": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu ({_processor()})",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": command if command is not None else f"python {Path(sys.argv[0]).name}",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _replace(path: Path, write: Callable[[Any], Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
