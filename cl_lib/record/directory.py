"""The directory of a run: claimed by one run at a time, and nothing in it ever overwritten."""

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
"""What records and checkpoints of version 0.1.0 do not say of their job."""
MISSING = object()


def claim(directory: Path, job: dict[str, Any], resume: bool) -> Record | None:
    """Make sure that ``directory`` may be written; with ``resume``, the finished record of the same job if it has one.

    Raises
    ------
    InputError
        When the directory holds another run, or one is writing there: nothing is ever overwritten.
    """
    with writing(directory, job, resume) as there:
        return there if isinstance(there, Record) else None


@contextmanager
def writing(directory: Path, job: dict[str, Any], resume: bool) -> Iterator[Record | Lock]:
    """`claim` a directory and keep others from writing it until the end; yields the finished record, or the lock."""
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
        finished = _finished(directory, job, resume)  # by a run that has ended meanwhile
        if finished is None:
            with suppress(OSError):
                remove_parts(directory, (RECORD, ARRAYS, PREDICTIONS, CONFIG, CHECKPOINT, PARTIAL))
        yield finished or lock


def _finished(directory: Path, job: dict[str, Any], resume: bool) -> Record | None:
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
        if odd := differences(job, record.job):
            raise InputError(f"out={directory}: holds a finished run with other options ({', '.join(odd)})")
        return record
    if (directory / CHECKPOINT).exists() and not resume:
        raise InputError(
            f"out={directory}: holds an unfinished run; go on with resume=true, or choose another directory"
        )
    return None


def differences(job: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two descriptions of jobs differ, by name; what version 0.1.0 did not describe is compared where it can be.

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
    """Save the record of a run that is over, and only then remove what it could have gone on from.

    Raises
    ------
    NotWritten
        When it cannot be written; the error holds the record, and the checkpoint stays.
    """
    try:
        lock.renew()
        if (directory / RECORD).exists():
            raise InputError("another run has left its record there")
        record.save(directory)
    except (OSError, InputError) as error:
        said = getattr(error, "strerror", None) or error
        raise NotWritten(f"out={directory}: the record cannot be written ({said})", record) from error
    with suppress(OSError):
        for name in (CHECKPOINT, PARTIAL):
            (directory / name).unlink(missing_ok=True)
