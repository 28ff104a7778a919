"""Checks of single hyper-parameters for `Strategy.check`; they raise an `InputError` that names field and value."""

from __future__ import annotations

from typing import Any

from cl_lib.errors import InputError


def at_least(strategy: Any, least: float, *names: str) -> None:
    """Check that each field is ``least`` or more.

    Examples
    --------
    >>> from cl_lib.strategies import L2Init
    >>> at_least(L2Init(lam=-1.0), 0, "lam")
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: strategy.lam=-1.0: must be 0 or more
    """
    for name in names:
        if getattr(strategy, name) < least:
            raise _refused(strategy, name, f"{least} or more")


def above(strategy: Any, bound: float, *names: str) -> None:
    """Check that each field is larger than ``bound``."""
    for name in names:
        if not getattr(strategy, name) > bound:
            raise _refused(strategy, name, f"above {bound}")


def share(strategy: Any, *names: str) -> None:
    """Check that each field is in [0, 1]."""
    for name in names:
        if not 0 <= getattr(strategy, name) <= 1:
            raise InputError(f"strategy.{name}={getattr(strategy, name)!r}: must lie between 0 and 1")


def decay(strategy: Any, *names: str) -> None:
    """Check that each field is in [0, 1)."""
    for name in names:
        if not 0 <= getattr(strategy, name) < 1:
            raise _refused(strategy, name, "0 or more and below 1")


def one_of(strategy: Any, known: tuple[str, ...], *names: str) -> None:
    """Check that each field is one of ``known``."""
    for name in names:
        if getattr(strategy, name) not in known:
            raise _refused(strategy, name, f"one of {', '.join(known)}")


def _refused(strategy: Any, name: str, right: str) -> InputError:
    return InputError(f"strategy.{name}={getattr(strategy, name)!r}: must be {right}")
