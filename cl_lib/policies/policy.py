"""The interface of policies, which decide before each window which trained model serves it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from cl_lib.errors import InputError
from cl_lib.policies.known import Known
from cl_lib.validation import is_number


class Policy(ABC):
    """Decision which row of the accuracy matrix serves a window. Policies are frozen dataclasses without state.

    Fields that are numbers may vary over a grid; they then are arrays of shape ``(G, 1)``, so that `choose` works with
    arrays of shape ``(R,)`` and of shape ``(G, R)``.
    """

    candidates = False
    """Whether decisions use the results of models that were trained and not deployed."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Numeric fields that a grid cannot vary."""

    @abstractmethod
    def choose(self, known: Known) -> np.ndarray:
        """Row that serves the window, ``known.shape`` int: ``known.serving`` to keep, ``known.newest`` to update."""

    def alarms(self, known: Known) -> np.ndarray:
        """Whether the policy asks for an update, ``known.shape`` bool; a gate may refuse it."""
        return self.choose(known) > known.serving

    def check(self) -> None:
        """Raise `InputError` for values that cannot be used."""


def keep_or_update(known: Known, update: np.ndarray) -> np.ndarray:
    """The newest row where ``update`` is true, else the row that serves."""
    return np.where(update, known.newest, known.serving)


def in_range(policy: Policy, name: str, low: float, high: float, closed: bool = True) -> None:
    """Raise `InputError` for a field outside ``[low, high]``, or ``(low, high)``."""
    value = getattr(policy, name)
    values = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
    for v in values:
        if not is_number(v) or not (low <= v <= high if closed else low < v < high):
            brackets = f"[{low:g}, {high:g}]" if closed else f"({low:g}, {high:g})"
            raise InputError(f"policy.{name}={v!r}: must be a number in {brackets}")


def float_fields(policy: Policy) -> list[str]:
    """Names of the fields that a grid may vary."""
    fields = dataclasses.fields(policy)  # type: ignore[arg-type]
    return [f.name for f in fields if is_number(getattr(policy, f.name)) and f.name not in policy.fixed]
