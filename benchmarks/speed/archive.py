"""The record of all works in one file; a run replaces the works that it timed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cl_lib import InputError

SCHEMA = "cl_lib.side_by_side/1"
MEANING = (
    "Milliseconds per step and replica, medians over all experiences but the first of all rounds; ratio: to the "
    "hand-written loop of the same run. The hand-written loop and Avalanche are timed on one replica: the cost of R "
    "replicas is taken to be R times as much. The hand-written loop plans within its steps. start_up_seconds: what a "
    "first experience took longer than the others. A flag: the accuracy lies further than three seed standard "
    "deviations (one is at least half a point) from that of traced R=10, or of what is nearest to it."
)


def read(path: Path) -> dict[str, Any]:
    """The record, or an empty one."""
    if not path.exists():
        return {"schema": SCHEMA, "meaning": MEANING, "works": {}}
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is no JSON ({error}); move it away") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise InputError(f"{path}: is no record of {SCHEMA}; move it away")
    return record


def merge(path: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Write the entries into the record; those of other works stay as they are."""
    record = read(path)
    record["meaning"] = MEANING
    record["works"] = dict(sorted((record["works"] | _null(entries)).items()))
    write(path, record)


def write(path: Path, record: dict[str, Any]) -> None:
    """Replace the file as a whole, so that it is never half a record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    draft.replace(path)


def _null(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _null(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_null(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
