"""Standard output and error that cannot end a run, and SIGTERM as a second Ctrl-C key."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


def columns() -> int | None:
    """Columns of the terminal; None where the output is no terminal and ``COLUMNS`` is not set."""
    return shutil.get_terminal_size((0, 0)).columns or None


class Output:
    """A text stream: what its encoding lacks becomes ``?``; once it cannot be written, the rest is dropped."""

    def __init__(self, stream: Any, number: int) -> None:
        if stream is None:  # closed before the program began: no file of ours may take its number
            with suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, number)
            stream = open(os.devnull, "w")  # noqa: SIM115
        self.stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write, or drop, ``text``."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self._attempt(self.stream.write, text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        self._attempt(self.stream.flush)

    def _attempt(self, do: Any, *given: str) -> None:
        if self.error is not None:
            return
        try:
            do(*given)
        except (OSError, ValueError) as error:  # a ValueError says that the stream is closed
            self.error = error
            with suppress(OSError, ValueError, AttributeError):  # what is buffered must go somewhere at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def outputs() -> Iterator[Output]:
    """``sys.stdout`` and ``sys.stderr`` as `Output`; yields the former."""
    before = sys.stdout, sys.stderr
    out, error = (s if isinstance(s, Output) else Output(s, n) for n, s in enumerate(before, 1))
    sys.stdout, sys.stderr = out, error
    try:
        yield out
    finally:
        out.flush()
        error.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def termination() -> Iterator[list[int]]:
    """Treat SIGTERM as Ctrl-C; yields a list of the SIGTERMs that came."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def noticed(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(number, frame)

    before = signal.signal(signal.SIGTERM, noticed)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
