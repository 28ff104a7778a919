"""The interface of policies, which decide before each window which trained model serves it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from cl_lib.errors import InputError
from cl_lib.policies.known import Known
from cl_lib.validation import is_number


class Policy(ABC):
    """Decision which row of the accuracy matrix serves a window. Policies are frozen dataclasses without state.

    Fields declared as float may vary over a grid; they then are arrays of shape ``(G, 1)``, so that `choose` works with
    arrays of shape ``(R,)`` and of shape ``(G, R)``.
    """

    candidates = False
    """Whether decisions use the results of models that were trained and not deployed."""

    @property
    def reads_labels(self) -> bool:
        """Whether decisions need the labels of every window, which then count among the costs."""
        return True

    @property
    def needs_predictions(self) -> bool:
        """Whether the policy reads predictions of single samples (``save_predictions=True``)."""
        return False

    @abstractmethod
    def choose(self, known: Known) -> np.ndarray:
        """Row that serves the window, ``known.shape`` int: ``known.serving`` to keep, ``known.newest`` to update."""

    def alarms(self, known: Known) -> np.ndarray:
        """Whether the policy asks for an update, ``known.shape`` bool; a gate may refuse it."""
        return self.choose(known) > known.serving

    def check(self) -> None:  # noqa: B027 (optional)
        """Raise `InputError` for values that cannot be used."""


def keep_or_update(known: Known, update: np.ndarray) -> np.ndarray:
    """The newest row where ``update`` is true, else the row that serves."""
    return np.where(update, known.newest, known.serving)


def in_range(policy: Policy, name: str, low: float, high: float, closed: bool = True) -> None:
    """Raise `InputError` for a field outside ``[low, high]``, or ``(low, high]``."""
    value = getattr(policy, name)
    values = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
    for v in values:
        if not is_number(v) or not (low <= v <= high and (closed or v > low)):
            raise InputError(f"policy.{name}={v!r}: must be a number in {'[' if closed else '('}{low:g}, {high:g}]")


def float_fields(policy: Policy) -> list[str]:
    """Names of the fields that a grid may vary: numbers that are not declared as int."""
    fields = dataclasses.fields(policy)  # type: ignore[arg-type]
    return [f.name for f in fields if is_number(getattr(policy, f.name)) and f.type not in (int, "int")]


def describe(value: Any) -> Any:
    """A policy with its watch or gates as JSON values: the name of its class, and its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"name": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value
