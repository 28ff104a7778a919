"""Output streams whose errors do not end a run, and SIGTERM handled as Ctrl-C."""

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
    """Columns of the terminal; None if the output is not a terminal and ``COLUMNS`` is not set."""
    return shutil.get_terminal_size((0, 0)).columns or None


class Output:
    """A text stream that replaces characters missing in its encoding by ``?`` and drops output after a write error."""

    def __init__(self, stream: Any, number: int) -> None:
        if stream is None:  # closed before the start: its descriptor must not be reused by another file
            with suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, number)
            stream = open(os.devnull, "w")  # noqa: SIM115
        self.stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write ``text``, or drop it after an error."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self._attempt(self.stream.write, text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt(self.stream.flush)

    def _attempt(self, do: Any, *given: str) -> None:
        if self.error is not None:
            return
        try:
            do(*given)
        except (OSError, ValueError) as error:  # a ValueError means that the stream is closed
            self.error = error
            with suppress(OSError, ValueError, AttributeError):  # redirects buffered output, which is flushed at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def outputs() -> Iterator[Output]:
    """Wrap ``sys.stdout`` and ``sys.stderr`` in `Output`; yield the wrapped ``sys.stdout``."""
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
    """Handle SIGTERM as Ctrl-C; yield a list of the received SIGTERM signals."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(number, frame)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
