"""Results of backtests as ``backtest.json``: written, read and checked against ``backtest.schema.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib._version import __version__
from cl_lib.errors import InputError
from cl_lib.files import null, read_json, write_text
from cl_lib.policies.policy import Policy
from cl_lib.service.backtest import Backtest
from cl_lib.service.refusals import Refusal, refusals
from cl_lib.service.result_schema import BACKTEST, SCHEMA, check
from cl_lib.validation import as_python

if TYPE_CHECKING:
    from cl_lib.record import Record

FEWEST = 12
"""Windows that an interval needs."""


def to_json(results: Sequence[Backtest], record: Record, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Contents of ``backtest.json``: one entry for each policy, grid point and delay.

    Parameters
    ----------
    results : sequence of Backtest
    record : Record
        That of the backtests; its hash is null if it was not read from a directory.
    names : sequence of str, optional
        Names of the results; default: those of the policies' classes.

    Returns
    -------
    dict
        Undefined numbers are None. Windows in ``alarms`` and ``refused`` are positions in ``windows``.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2)
    >>> data = to_json([cl_lib.service.backtest(record, cl_lib.policies.Every(2))], record)
    >>> data["results"][0]["policy"], data["results"][0]["updates"]
    ({'name': 'Every', 'fields': {'windows': 2}}, [2, 2])
    """
    names = names if names is not None else [type(result.policy).__name__ for result in results]
    entries = []
    for name, result in zip(names, results, strict=True):
        refused = refusals(record, result)
        intervals = {key: interval(result, key) for key in ("mean_loss", "skill")}
        points = range(len(result.points)) if result.points else [None]
        for point in points:
            given = [r for r in refused if r.point == (point or 0)]
            entries.append(_entry(name, result, point, given, intervals))
    about = {
        "sha256": record_hash(record),
        "strategy": record.strategy,
        "stream": record.stream["name"],
        "seeds": [replica["seed"] for replica in record.replicas],
        "windows": len(record.stream["columns"]),
    }
    return {"schema": SCHEMA, "version": __version__, "record": about, "results": entries}


def interval(result: Backtest, name: str) -> np.ndarray:
    """`Backtest.interval`; NaN below 12 windows, where blocks of four give intervals that are far too narrow."""
    if len(result.windows) < FEWEST:
        return np.full((len(result.points), 2) if result.points else (2,), np.nan)
    return result.interval(name)


def record_hash(record: Record) -> str | None:
    """SHA-256 of the ``record.json`` that a record was read from."""
    path = Path(record.directory) / "record.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if record.directory and path.is_file() else None


def _entry(
    name: str,
    result: Backtest,
    point: int | None,
    refused: Sequence[Refusal],
    intervals: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    def at(values: np.ndarray) -> np.ndarray:
        return values if point is None else values[point]

    def summary(values: np.ndarray, interval: str | None = None) -> dict[str, Any]:
        out = {"mean": null(_mean(at(values))), "per_replica": null(at(values))}
        return out | ({"interval": null(at(intervals[interval]))} if interval else {})

    entry = {
        "name": name,
        "policy": described(result.policy),
        "point": result.points[point] if point is not None else {},
        "delay": int(result.delay),
        "metric": result.metric,
        "first": int(result.first),
        "windows": result.windows,
        "path": at(result.path).tolist(),
        "updates": at(result.updates).tolist(),
        "alarms": [np.flatnonzero(replica).tolist() for replica in at(result.alarms)],
        "refused": [{"replica": r.replica, "window": r.window, "reason": r.reason} for r in refused],
        "loss_by_window": {"mean": null(_mean(at(result.loss), 0)), "per_replica": null(at(result.loss))},
        "never_by_window": null(_mean(result.never, 0)),
        "always_by_window": null(_mean(result.always, 0)),
        "loss": summary(result.mean_loss, "mean_loss"),
        "random": summary(result.random),
        "oracle": summary(result.oracle),
        "skill": summary(result.skill, "skill"),
        "precision": summary(result.precision),
        "recall": summary(result.recall),
        "harmful": at(result.harmful).tolist(),
        "costs": {key: at(values).astype(int).tolist() for key, values in result.costs.items()},
    }
    return entry


def described(part: Any) -> Any:
    """A policy, watch or gate as its name and fields; other values as JSON holds them."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {f.name: described(getattr(part, f.name)) for f in dataclasses.fields(part)}
        return {"name": type(part).__name__, "fields": fields}
    if isinstance(part, Policy):
        return {"name": type(part).__name__, "fields": {}}
    if isinstance(part, (list, tuple)):
        return [described(value) for value in part]
    value = null(as_python(part))
    return value if value is None or isinstance(value, (bool, int, float, str, list)) else repr(value)


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of the finite values, NaN where there are none."""
    known = np.isfinite(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def write(data: Mapping[str, Any], path: str | Path) -> Path:
    """Check and write the contents of a ``backtest.json``, atomically; an existing file is replaced."""
    path = Path(path)
    check(data, str(path))
    return write_text(path, json.dumps(data, allow_nan=False) + "\n")


def is_backtest(path: Path) -> bool:
    """Whether a file names the schema of ``backtest.json``."""
    try:
        data = read_json(path)
    except (OSError, ValueError, RecursionError, MemoryError):
        return False
    return isinstance(data, Mapping) and data.get("schema") == SCHEMA


def read(path: str | Path) -> dict[str, Any]:
    """Read and check a ``backtest.json``.

    Parameters
    ----------
    path : path
        The file, or the directory that holds it.

    Raises
    ------
    InputError
        If there is no such file, it does not follow the schema, or parts of it differ in length.
    """
    path = Path(path)
    path = path / BACKTEST if path.is_dir() else path
    try:
        data = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; cl-backtest writes it") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: not a readable backtest ({error})") from error
    check(data, str(path))
    return dict(data)
