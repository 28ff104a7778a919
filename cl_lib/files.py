"""Atomic and durable writing of files, safe reading of arrays and JSON, and a lock for directories."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import re
import secrets
import socket
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from cl_lib.errors import InputError

LOCK = ".lock"
DEEPEST = 100
"""Maximum number of nesting levels in JSON."""


# ---------------------------------------------------------------------- writing
def replace_file(path: Path, write: Callable[[Any], Any]) -> None:
    """Write a file atomically and durably: after the return it survives a power failure."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    finally:
        with contextlib.suppress(
            OSError
        ):  # the directory may have become read-only; the first error is more informative
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file with `replace_file`, with its directory; raise `InputError` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def remove_parts(directory: Path, names: Iterable[str]) -> None:
    """Remove temporary files of interrupted writes to these files; only while no other process writes them."""
    for name in names:
        # earlier versions used the process id in place of a random token
        for part in directory.glob(f"{name}.*.part"):
            if re.fullmatch(r"[0-9a-f]+", part.name[len(name) + 1 : -len(".part")]):
                part.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Make a rename durable, if the system supports it (Windows cannot open directories)."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---------------------------------------------------------------------- one writer
class Lock:
    """Exclusive right to write to a directory, released by the system when the process ends for any reason.

    Threads of one process exclude each other in the same way as processes.

    Parameters
    ----------
    directory : Path
        Must exist.

    Raises
    ------
    InputError
        If another process holds the lock; the message names the process.
    OSError
        If the directory cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> directory = Path(tempfile.mkdtemp())
    >>> with Lock(directory):
    ...     Lock(directory)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    cl_lib.errors.InputError: out=...: another run (process ... on ...) is writing there
    >>> list(directory.iterdir())
    []
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = self._acquire()

    def _acquire(self) -> IO[bytes]:
        path = self.directory / LOCK
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(path, flags, 0o666), "r+b")
            try:
                _lock(file)
            except BlockingIOError:
                owner = file.read(1000).decode(errors="replace").split()
                file.close()
                named = f" (process {owner[0]} on {owner[1]})" if len(owner) == 2 else ""
                raise InputError(f"out={self.directory}: another run{named} is writing there") from None
            except BaseException:
                file.close()
                raise
            if _is(path, file):
                file.truncate()
                file.write(f"{os.getpid()} {socket.gethostname()}\n".encode())
                file.flush()
                return file
            file.close()  # the previous owner removed the file after it was opened here and before it was locked

    def renew(self) -> None:
        """Acquire the lock again if the directory was removed; an error if another process holds it now."""
        if not self.held:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.file.close()
            self.file = self._acquire()

    @property
    def held(self) -> bool:
        """Whether the lock file in the directory is still the one that this lock has opened."""
        return _is(self.directory / LOCK, self.file)

    def release(self) -> None:
        """Release the lock and remove its file."""
        if self.held:
            with contextlib.suppress(OSError):
                (self.directory / LOCK).unlink()
        self.file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _is(path: Path, file: IO[bytes]) -> bool:
    """Whether a path refers to the given open file."""
    try:
        return not file.closed and os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def _lock(file: IO[bytes]) -> None:
    """Lock an open file, or raise BlockingIOError if it is locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)  # a locked region cannot be read, and the owner is written at the beginning
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            finally:
                file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise BlockingIOError from error
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        message = "this file system does not support locks; do not start a second run in the same directory"
        warnings.warn(f"{file.name}: {message}", RuntimeWarning, stacklevel=4)


def new_directory(path: Path) -> Path:
    """Create the directory ``path``, or, if it exists, ``path-2``, ``path-3`` and so on.

    Examples
    --------
    >>> import tempfile
    >>> home = Path(tempfile.mkdtemp())
    >>> [new_directory(home / "er").name for _ in range(3)]
    ['er', 'er-2', 'er-3']
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = 1, path
        while True:
            try:
                name.mkdir()
                return name
            except FileExistsError:
                number += 1
                name = path.with_name(f"{path.name}-{number}")
    except OSError as error:
        raise InputError(f"out={path}: cannot be written ({error.strerror})") from error


# ---------------------------------------------------------------------- reading
def read_npz(source: Path | bytes, most: int) -> dict[str, np.ndarray]:
    """Read the arrays of a file written by `numpy.savez`, after checking their total size.

    Parameters
    ----------
    source : Path or bytes
    most : int
        Maximum number of bytes of all arrays together, including headers.

    Raises
    ------
    Exception
        Of almost any type, for a damaged file. Pickled objects and more than ``most`` bytes are never loaded.
    """
    with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
        infos = archive.infolist()
        if sum(info.file_size for info in infos) > most:
            raise ValueError(f"its arrays need more than {most:,} bytes")
        if len({info.filename for info in infos}) != len(infos):
            raise ValueError("contains two arrays of the same name")
        return {info.filename.removesuffix(".npy"): _read_array(archive, info) for info in infos}


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{info.filename}: is not an array of numbers")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype.kind not in "biufc" or member.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{info.filename}: its header does not match its content")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


# ---------------------------------------------------------------------- JSON
def plain(value: Any, name: str = "") -> Any:
    """Convert ``value`` to types that JSON supports; numbers and arrays of NumPy and torch become those of Python.

    Raises
    ------
    InputError
        If a value cannot be represented in JSON; the message names its key.

    Examples
    --------
    >>> plain({"order": np.array([1, 0]), "lr": np.float64(0.1)}, "job")
    {'order': [1, 0], 'lr': 0.1}
    >>> plain({"stream": {"options": {"order": {1, 2}}}})
    Traceback (most recent call last):
    ...
    cl_lib.errors.InputError: stream.options.order={1, 2}: cannot be written to a record; give numbers, ...
    """
    return _plain(value, name, 0)


def _plain(value: Any, name: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise InputError(f"{name[:60]}…: is nested deeper than the {DEEPEST} levels that a record supports")
    if hasattr(value, "tolist") and not isinstance(value, type):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**1024:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str):
        value = str.__str__(value)
        if not _encodes(value):
            raise InputError(f"{name}={value!r}: contains characters that UTF-8 cannot encode")
        return value
    if isinstance(value, Mapping):
        return {_key(k, name): _plain(v, f"{name}.{k}".lstrip("."), depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{name}[{i}]", depth + 1) for i, v in enumerate(value)]
    text = repr(value)
    raise InputError(
        f"{name}={text if len(text) < 100 else text[:99] + '…'}: cannot be written to a record; give numbers, strings, "
        "lists or dictionaries of these, finite and not too large"
    )


def _key(key: Any, name: str) -> str:
    """Convert a key as the json module does, including NumPy numbers."""
    key = _plain(key, f"{name}: key", 0)
    if isinstance(key, str):
        return key
    if isinstance(key, (list, dict)):
        raise InputError(f"{name}: key {key!r} cannot be written to a record; keys are strings or numbers")
    return json.dumps(key)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(path: Path) -> Any:
    """Read a JSON file; raises ValueError, RecursionError or OSError if it cannot be read."""

    def refuse(constant: str) -> None:
        raise ValueError(f"contains {constant}, which is not valid JSON")

    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    if _deeper(data, DEEPEST + 4):
        raise ValueError(f"is nested deeper than {DEEPEST} levels")
    return data


def _deeper(data: Any, levels: int) -> bool:
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return levels < 0 or any(_deeper(value, levels - 1) for value in inner)


def null(values: Any) -> Any:
    """Convert arrays to nested lists and replace non-finite numbers by None, as JSON requires."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [null(v) for v in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
