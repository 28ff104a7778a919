"""What a run leaves on disk: ``record.json``, checked and versioned, arrays beside it, the resolved configuration."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from cl_lib.errors import InputError

SCHEMA = "cl_lib.record/1"
RECORD, ARRAYS, CONFIG = "record.json", "arrays.npz", "config.yaml"
CHECKPOINT, PARTIAL = "checkpoint.npz", "partial.json"


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
    rows : list
        Experiences trained on and steps taken, for each row of the matrices; the step is None where replicas differ.
    learned, before : list of int
        For each column the row where its training was first finished, and the last row before it began; None where
        replicas differ (``arrays`` holds each replica's ``step``, ``learned`` and ``before``).
    grid : list
        Where a grid was trained: for each of its points ``hyper``, ``replicas``, ``metrics``, ``accuracy_matrix``.
        The metrics above then run over all replicas.
    arrays : dict of ndarray
        Not in the JSON. Per replica: every matrix ``(R, T + 1, E)``, class and slice sums; in ``arrays.npz``.
    directory : str
        Not in the JSON. Where it was loaded from.
    """

    stream: dict[str, Any]
    strategy: str
    seeds: list[int]
    config: dict[str, Any]
    job: dict[str, Any]
    metrics: dict[str, Metric]
    accuracy_matrix: list[list[float | None]]
    rows: list[dict[str, Any]]
    learned: list[int | None]
    before: list[int | None]
    matrices: dict[str, list[list[float | None]]]
    slices: dict[str, dict[str, Any]]
    reliability: dict[str, dict[str, list[float | None]]]
    cost: dict[str, Any]
    replicas: list[dict[str, Any]]
    grid: list[dict[str, Any]]
    environment: dict[str, Any]
    schema: str = SCHEMA
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    directory: str = field(default="", repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The content of ``record.json``."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("arrays", "directory")}
        data["metrics"] = {k: asdict(v) for k, v in self.metrics.items()}
        return {"schema": data.pop("schema"), **data}

    def save(self, directory: str | Path) -> Path:
        """Write the record; the JSON last, so that a directory with ``record.json`` is complete."""
        from omegaconf import OmegaConf

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(directory / ARRAYS, lambda file: np.savez_compressed(file, allow_pickle=False, **self.arrays))
        replace_file(
            directory / CONFIG, lambda file: file.write(OmegaConf.to_yaml(OmegaConf.create(self.config)).encode())
        )
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        replace_file(directory / RECORD, lambda file: file.write(text.encode()))
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
            try:
                with np.load(path.parent / ARRAYS, allow_pickle=False) as file:
                    arrays = {k: file[k] for k in file.files}
            # RuntimeErrors are zipfile's, for encrypted files and for a compression that it does not know
            except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
                raise InputError(f"{path.parent / ARRAYS}: not readable ({error})") from error
        data["metrics"] = {k: Metric(**v) for k, v in data["metrics"].items()}
        return cls(**data, arrays=arrays, directory=str(path.parent))

    def __str__(self) -> str:
        from cl_lib.report.table import summary

        return summary(self)


def schema() -> dict[str, Any]:
    """The JSON schema of ``record.json``, shipped with the package."""
    return json.loads((Path(__file__).parent / "record.schema.json").read_text())


def check_record(data: Any, where: str = RECORD) -> None:
    """Raise `InputError` where ``data`` does not follow the schema, naming the place.

    Understands the part of JSON Schema that ``record.schema.json`` uses: type, const, required, properties,
    additionalProperties, items, minItems.
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
    if isinstance(data, list) and len(data) < rule.get("minItems", 0):
        raise InputError(f"{where}: is empty")
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
    try:
        there = directory.exists()
    except OSError as error:
        raise InputError(f"out={directory}: cannot be a directory ({error.strerror})") from error
    if there and not directory.is_dir():
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


def null(values: Any) -> Any:
    """Nested lists with None for NaN: what JSON can hold."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [null(v) for v in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def replace_file(path: Path, write: Callable[[Any], Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
