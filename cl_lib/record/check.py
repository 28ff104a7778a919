"""Validation of ``record.json`` against its schema, and of the consistency of its parts and the stored arrays."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cl_lib.errors import InputError
from cl_lib.metrics.scores import BINS

SCHEMA = "cl_lib.record/1"
OLD_BINS = BINS + 1
"""Number of bins in records of version 0.1.0, which had a separate bin for a confidence of exactly 1."""


def schema() -> dict[str, Any]:
    """Load the JSON schema of ``record.json``, which is part of the package."""
    return json.loads((Path(__file__).parent / "record.schema.json").read_text(encoding="utf-8"))


def check_record(data: Any, where: str = "record.json") -> None:
    """Raise `InputError` if ``data`` does not follow the schema or is inconsistent; the message names the key."""
    if isinstance(data, Mapping) and data.get("schema") != SCHEMA:
        raise InputError(f"{where}: schema is {data.get('schema')!r}, this version reads {SCHEMA!r}")
    check_rules(data, schema(), where)
    _check_sizes(data, where)


_TYPES: dict[str, Any] = {
    "object": Mapping,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def check_rules(data: Any, rule: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` if ``data`` does not follow a JSON schema; the message names the key.

    Supports the part of JSON Schema that the schemas of the package use: type, const, enum, required, properties,
    additionalProperties, items, minItems, minimum, maximum.
    """
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
    if "enum" in rule and data not in rule["enum"]:
        raise InputError(f"{where}: expected {' or '.join(map(repr, rule['enum']))}, found {data!r}")
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        _check_number(data, rule, where)
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
                check_rules(value, inner, f"{where}: {name}")
    if isinstance(data, list) and len(data) < rule.get("minItems", 0):
        raise InputError(f"{where}: expected at least {rule['minItems']} values, found {len(data)}")
    if isinstance(data, list) and "items" in rule:
        for i, value in enumerate(data):
            check_rules(value, rule["items"], f"{where}[{i}]")


def _check_number(data: float, rule: Mapping[str, Any], where: str) -> None:
    whole = isinstance(data, int)
    if not (abs(data) < 2**63 if whole else math.isfinite(data)):
        raise InputError(f"{where}: is too large")
    if data < rule.get("minimum", -math.inf) or data > rule.get("maximum", math.inf):
        limits = [f"{word} {rule[k]}" for k, word in (("minimum", "at least"), ("maximum", "at most")) if k in rule]
        raise InputError(f"{where}: expected {', '.join(limits)}, found {data!r}")


# ---------------------------------------------------------------------- consistency of the parts
def _check_sizes(data: Mapping[str, Any], where: str) -> None:
    """Check lengths, shapes and positions, on which the report relies when it combines several keys."""
    stream, rows, replicas = data["stream"], data["rows"], data["replicas"]
    height, width = len(rows), len(stream["columns"])
    trained = [row["experience"] for row in rows]
    if height < 2 or trained[0] != 0 or any(a >= b for a, b in itertools.pairwise(trained)):
        raise InputError(f"{where}: rows: expected increasing numbers of experiences from 0, found {_some(trained)}")
    for name, matrix in (("accuracy_matrix", data["accuracy_matrix"]), *data["matrices"].items()):
        _check_matrix(matrix, height, width, f"{where}: {name}")
    for name in ("learned", "before"):
        _length(data[name], width, f"{where}: {name}")
        _positions(data[name], height, f"{where}: {name}", first=int(name == "learned"))
    for name, metric in data["metrics"].items():
        _check_metric(metric, len(replicas), f"{where}: metrics: {name}")
    for name, part in data["slices"].items():
        known = {"class": stream["classes"], "experience": width}.get(name, len(part["labels"]))
        for key in ("labels", "support", "accuracy", "ece", "forgetting"):
            _length(part[key], known, f"{where}: slices: {name}: {key}")
    for name, diagram in data["reliability"].items():
        for key in ("confidence", "accuracy"):
            _length(diagram[key], len(diagram["count"]), f"{where}: reliability: {name}: {key}")
    for i, point in enumerate(data["grid"]):
        place = f"{where}: grid[{i}]"
        _positions(point["replicas"], len(replicas), f"{place}: replicas")
        if len(set(point["replicas"])) != len(point["replicas"]):
            raise InputError(f"{place}: replicas: lists a replica more than once")
        _check_matrix(point["accuracy_matrix"], height, width, f"{place}: accuracy_matrix")
        for name, metric in point["metrics"].items():
            _check_metric(metric, len(point["replicas"]), f"{place}: metrics: {name}")


def _check_matrix(matrix: Sequence[Sequence[Any]], height: int, width: int, where: str) -> None:
    _length(matrix, height, where)
    for i, row in enumerate(matrix):
        _length(row, width, f"{where}[{i}]")


def _check_metric(metric: Mapping[str, Any], replicas: int, where: str) -> None:
    _length(metric["per_seed"], replicas, f"{where}: per_seed")
    if metric["ci95"] is not None:
        _length(metric["ci95"], 2, f"{where}: ci95")


def _length(values: Sequence[Any], expected: int, where: str) -> None:
    if len(values) != expected:
        raise InputError(f"{where}: expected {expected} values, found {len(values)}")


def _positions(values: Sequence[int | None], count: int, where: str, first: int = 0) -> None:
    for value in values:
        if value is not None and not first <= value < count:  # null: replicas differ, see the arrays
            raise InputError(f"{where}: expected positions from {first} to {count - 1}, found {value}")


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")


# ---------------------------------------------------------------------- arrays
def _shapes(data: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Expected shapes of the arrays that reports read."""
    stream, groups = data["stream"], {"class": data["stream"]["classes"]}
    size, height, width = len(data["replicas"]), len(data["rows"]), len(stream["columns"])
    columns = {f"column.{k}": len(v["labels"]) for k, v in data["slices"].items() if k not in ("class", "age")}
    return {
        "matrix.accuracy": (size, height, width),
        "support": (size, height, width),
        "age": (size, height, stream["classes"]),
        "pooled.bins": (size, 2, BINS, 3),
        "learned": (size, width),
        "before": (size, width),
        **{f"{k}.{part}": (size, height, n) for k, n in (groups | columns).items() for part in ("count", "correct")},
    }


def bytes_of_arrays(data: Mapping[str, Any]) -> int:
    """Limit on the bytes of a record's arrays: at least twice what the arrays listed in `docs/record.md` need."""
    stream = data["stream"]
    cells = len(stream["columns"]) + stream["classes"] + sum(len(part["labels"]) for part in data["slices"].values())
    values = len(data["replicas"]) * len(data["rows"]) * (cells + 1) * 8
    return 2 * 8 * (values + len(data["replicas"]) * (len(data["rows"]) + 2) * (cells + 1) * OLD_BINS * 3) + 2**20


def check_arrays(arrays: Mapping[str, np.ndarray], data: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` if an array that reports read is inconsistent with the record."""
    for name, shape in _shapes(data).items():
        if name not in arrays:
            continue
        array = arrays[name]
        fits = array.shape == shape or (name == "pooled.bins" and array.shape == (*shape[:2], OLD_BINS, 3))
        if not fits or array.dtype.kind not in "iuf":
            raise InputError(f"{where}: {name}: expected numbers of shape {shape}, found {array.dtype} {array.shape}")
        low, high = _limits(name, len(data["rows"]))
        if ((array < low) | (array > high)).any():
            raise InputError(f"{where}: {name}: expected values from {low} to {high:g}")
        if name in ("age", "learned", "before") and array.dtype.kind == "f":
            raise InputError(f"{where}: {name}: expected whole numbers")
        if name == "pooled.bins" and (array[..., 1:] > array[..., :1] * (1 + 1e-6)).any():
            raise InputError(f"{where}: {name}: expected sums of confidence and accuracy that do not exceed the count")


def _limits(name: str, rows: int) -> tuple[float, float]:
    """Smallest and largest valid value of an array."""
    match name:
        case "matrix.accuracy":
            return 0, 1 + 1e-6
        case "learned" | "before":
            return int(name == "learned"), rows - 1
        case "age":
            return -1, 2**53
    return 0, 2**53
