"""Dispatch of a run's rows to its loggers; a logger that raises does not end the run."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cl_lib.errors import InputError
from cl_lib.loggers import Logger
from cl_lib.types import Row


class _Sink:
    """Logger that calls a function with each row."""

    def __init__(self, function: Callable[[Row], None]) -> None:
        self.log = function
        self.close: Callable[[], None] = getattr(function, "finish", lambda: None)


def check_loggers(loggers: Any, sinks: Any = ()) -> list[Logger]:
    """Loggers of a run, followed by the deprecated ``sinks`` as loggers; raise `InputError` for other objects."""
    if isinstance(loggers, (str, Mapping)) or not isinstance(loggers, Iterable):
        raise InputError(f"loggers={loggers!r}: must be a list of loggers, such as [CSVLogger('rows.csv')]")
    loggers, sinks = list(loggers), list(sinks)
    for i, logger in enumerate(loggers):
        if isinstance(logger, type) or not all(callable(getattr(logger, name, None)) for name in ("log", "close")):
            raise InputError(f"loggers[{i}]={logger!r}: must be an object with the methods log(row) and close()")
    for i, sink in enumerate(sinks):
        if not callable(sink):
            raise InputError(f"sinks[{i}]={sink!r}: must be a function of a row")
    if sinks:
        warnings.warn("run(sinks=...) is deprecated; use loggers=[...]", DeprecationWarning, stacklevel=3)
    return [*loggers, *map(_Sink, sinks)]


class Logging:
    """Pass rows to loggers, which can neither end the run nor change its rows; as a context manager, close them."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = loggers
        self.failed: set[int] = set()
        self.step, self.start = -1, 0

    def __enter__(self) -> Logging:
        return self

    def log(self, row: Row) -> None:
        """Pass a row to every logger that has not failed."""
        if not self.loggers:
            return
        if row.experience == 0:  # each group of replicas counts its steps from 0
            self.start = self.step + 1
        self.step = self.start + row.step
        arrays = {name: values.view() for name, values in row.arrays.items()}
        for values in arrays.values():
            values.flags.writeable = False
        shown = dataclasses.replace(row, step=self.step, replicas=list(row.replicas), arrays=arrays)
        for message in [self._call(i, "log", shown) for i in range(len(self.loggers)) if i not in self.failed]:
            _warn(message)

    def __exit__(self, *error: object) -> None:
        for message in [self._call(i, "close") for i in range(len(self.loggers))]:
            _warn(message)

    def _call(self, i: int, method: str, *given: Any) -> str | None:
        """Call a method of a logger; return the message of the warning if this is its first failure, else None."""
        logger = self.loggers[i]
        try:
            getattr(logger, method)(*given)
        except (Exception, SystemExit) as error:
            named: Any = logger.log if isinstance(logger, _Sink) else type(logger)
            name = getattr(named, "__qualname__", type(named).__name__)
            reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
            then = "it gets no more rows, and the run continues" if method == "log" else "its last rows may be missing"
            before = i in self.failed
            self.failed.add(i)
            return None if before else f"logger {name}: {method} failed ({reason}); {then}"
        return None


def _warn(message: str | None) -> None:
    if message is not None:
        warnings.warn(message, stacklevel=5)
