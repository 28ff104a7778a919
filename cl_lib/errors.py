"""The one exception that means "you can fix this": the command line prints it and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A user's mistake: the message names the value, the place and what would be right."""


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
