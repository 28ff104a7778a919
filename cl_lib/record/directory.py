"""Run directories: one run at a time writes to a directory, and no existing run is overwritten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cl_lib.errors import InputError, NotWritten
from cl_lib.files import Lock, plain, remove_parts
from cl_lib.record.predictions import PREDICTIONS
from cl_lib.record.record import ARRAYS, CHECKPOINT, CONFIG, PARTIAL, RECORD, Record

ADDED = ("network", "realisation", "class", "options", "mean", "std", "column_hash")
"""Keys that are missing from the job description in records and checkpoints of version 0.1.0."""
MISSING = object()


def claim(directory: Path, job: dict[str, Any], resume: bool) -> Record | None:
    """Check that a run may write to ``directory``; with ``resume``, return the record of the job if it is finished.

    Raises
    ------
    InputError
        If the directory contains another run or another run is writing there; existing runs are never overwritten.
    """
    with writing(directory, job, resume) as record_or_lock:
        return record_or_lock if isinstance(record_or_lock, Record) else None


@contextmanager
def writing(directory: Path, job: dict[str, Any], resume: bool) -> Iterator[Record | Lock]:
    """`claim` a directory and lock it until the context exits; yields the finished record or the lock."""
    job = plain(job)
    finished = _finished(directory, job, resume)
    if finished is not None:
        yield finished
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(directory)
    except OSError as error:
        raise InputError(f"out={directory}: cannot be written ({error.strerror})") from error
    with lock:
        finished = _finished(directory, job, resume)  # another run may have finished in the meantime
        if finished is None:
            with suppress(OSError):
                remove_parts(directory, (RECORD, ARRAYS, PREDICTIONS, CONFIG, CHECKPOINT, PARTIAL))
        yield finished or lock


def _finished(directory: Path, job: dict[str, Any], resume: bool) -> Record | None:
    try:
        exists = directory.exists()
    except OSError as error:
        raise InputError(f"out={directory}: cannot be a directory ({error.strerror})") from error
    if exists and not directory.is_dir():
        raise InputError(f"out={directory}: is a file; name a directory")
    if (directory / RECORD).exists():
        if not resume:
            raise InputError(
                f"out={directory}: already holds a run; choose another directory, or resume it with resume=true"
            )
        record = Record.load(directory)
        if changed := differences(job, record.job):
            raise InputError(f"out={directory}: holds a finished run with other options ({', '.join(changed)})")
        return record
    if (directory / CHECKPOINT).exists() and not resume:
        raise InputError(
            f"out={directory}: holds an unfinished run; resume it with resume=true, or choose another directory"
        )
    return None


def differences(job: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the options in which two job descriptions differ; options unknown to version 0.1.0 are skipped.

    Examples
    --------
    >>> differences({"epochs": 3, "optim": {"lr": 0.1}, "network": {}}, {"epochs": 3, "optim": {"lr": 0.2}})
    ['optim.lr']
    """
    out = []
    for key in sorted(job.keys() | other.keys()):
        a, b = job.get(key, MISSING), other.get(key, MISSING)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and a.get("name") == b.get("name"):
            out += [f"{key}.{inner}" for inner in differences(a, b)]
        elif a != b and not (b is MISSING and key in ADDED):
            out.append(key)
    return out


def keep(record: Record, directory: Path, lock: Lock) -> None:
    """Save the record of a finished run, then remove the files from which it could have been resumed.

    Raises
    ------
    NotWritten
        If the record cannot be written; the error contains it, and the checkpoint is kept.
    """
    try:
        lock.renew()
        if (directory / RECORD).exists():
            raise InputError("another run has written its record there")
        record.save(directory)
    except (OSError, InputError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotWritten(f"out={directory}: the record cannot be written ({reason})", record) from error
    with suppress(OSError):
        for name in (CHECKPOINT, PARTIAL):
            (directory / name).unlink(missing_ok=True)
