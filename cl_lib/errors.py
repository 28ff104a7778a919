"""`InputError`, the exception for invalid input, which the command line prints before it exits with status 2."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class InputError(ValueError):
    """Invalid input from the user; the message has the form ``path=value: what would be right``."""

    def __str__(self) -> str:
        return printable(super().__str__())


class NotWritten(InputError):
    """The record of a finished run could not be written; ``record`` contains it."""

    def __init__(self, message: str, record: Any = None) -> None:
        super().__init__(message)
        self.record = record


def printable(text: str, one_line: bool = False) -> str:
    """Escape control characters and characters that change the direction of text.

    Examples
    --------
    >>> print(printable("red: \\x1b[31m"))
    red: \\x1b[31m
    """
    text = _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if one_line else text


def nearest(name: str, known: Iterable[str], more: bool = True) -> str:
    """Hint for an error message with the closest known names, or all known names if none is close.

    Examples
    --------
    >>> nearest("er2", ["er", "ewc", "joint"])
    '; did you mean er?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 3, 0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(names)}" if more and names else ""


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Convert the various out-of-memory errors of torch and NumPy to an `InputError` about ``what``.

    Examples
    --------
    >>> import torch
    >>> with within_memory("er: 10 replicas"):
    ...     torch.empty(10**15)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    cl_lib.errors.InputError: er: 10 replicas do not fit into memory (...); take fewer seeds or points ...
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        full = ("allocate memory", "out of memory", "size calculation overflowed")
        if not isinstance(error, MemoryError) and not any(words in reason for words in full):
            raise
        reason = reason.rpartition("Allocator: ")[2]
        raise InputError(
            f"{what} do not fit into memory ({reason}); take fewer seeds or points of a grid at once, smaller batches, "
            "or a smaller memory or state of the strategy"
        ) from error


def renamed(module: str, names: Mapping[str, str], objects: Mapping[str, Any]) -> Callable[[str], Any]:
    """Make a module ``__getattr__`` that accepts deprecated names with a warning until the next version.

    Examples
    --------
    >>> get = renamed("cl_lib.types", {"Out": "NetOutput"}, {"NetOutput": tuple})
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     kind = get("Out")
    >>> kind, str(caught[0].message)
    (<class 'tuple'>, 'cl_lib.types.Out is deprecated; use NetOutput')
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is deprecated; use {names[name]}", DeprecationWarning, stacklevel=2)
        return objects[names[name]]

    return get
