"""`InputError`, which means a user's mistake: the command line prints it and exits with 2."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class InputError(ValueError):
    """A user's mistake: the message names the value, the place and what would be right."""

    def __str__(self) -> str:
        return printable(super().__str__())


class NotWritten(InputError):
    """A run is over, and its record cannot be written; ``record`` holds the result."""

    def __init__(self, message: str, record: Any = None) -> None:
        super().__init__(message)
        self.record = record


def printable(text: str, one_line: bool = False) -> str:
    """Text without characters that command a terminal or turn its direction; they are spelt out.

    Examples
    --------
    >>> print(printable("red: \\x1b[31m"))
    red: \\x1b[31m
    """
    text = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text.replace("\n", "\\n").replace("\t", "\\t") if one_line else text


def nearest(name: str, known: Iterable[str], more: bool = True) -> str:
    """A hint with the closest known names, or all of them where none is close.

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
    """Say as an `InputError` that ``what`` does not fit into memory, for which torch and numpy have several errors.

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
        said = str(error).splitlines()[0] if str(error) else "out of memory"
        full = ("allocate memory", "out of memory", "size calculation overflowed")
        if not isinstance(error, MemoryError) and not any(words in said for words in full):
            raise
        said = said.rpartition("Allocator: ")[2]
        raise InputError(
            f"{what} do not fit into memory ({said}); take fewer seeds or points of a grid at once, smaller batches, "
            "or a smaller memory or state of the strategy"
        ) from error


def renamed(module: str, names: Mapping[str, str], objects: Mapping[str, Any]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` under which old names still work, with a warning, until the next version.

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
