"""All results of a record that policies decide by: losses of every row on every window, and counts of predictions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cl_lib.errors import InputError, nearest

Array = np.ndarray


class WindowSamples(NamedTuple):
    """Predictions of a row on one window, ``(R, N)``: whether they are correct, and the NLL."""

    correct: Array
    nll: Array


class WindowHistory:
    """Results of R replicas: rows 0 to T are the models (0 untrained, i trained up to window i - 1), columns windows.

    Parameters
    ----------
    losses : dict
        ``error``, ``nll``, ``brier``: ``(R, T + 1, E)``, mean loss of each row on each window.
    support : ndarray
        ``(E,)`` test samples of each window.
    seeds : ndarray
        ``(R,)``.
    parts : mapping of callables, optional
        Called once: ``labels()`` ``(E, C)``, samples of each class; ``inputs()`` ``(E, F, B)``, values of each feature
        by bin, or ``(R, E, F, B)`` where replicas have different inputs; ``predicted(row)`` ``(R, E, C)`` and
        ``confidence(row)`` ``(R, E, B)``, predictions by class and by bin of the confidence; for each metadata column
        ``slice.NAME()`` ``(E, S)``, samples of each slice, and ``correct.NAME(row)`` ``(R, E, S)``, correct
        predictions.
    samples : callable, optional
        ``samples(row, window) -> WindowSamples``.
    """

    def __init__(
        self,
        losses: Mapping[str, Array],
        support: Array,
        seeds: Array,
        parts: Mapping[str, Callable[..., Array]] | None = None,
        samples: Callable[[int, int], WindowSamples] | None = None,
    ) -> None:
        self.losses = {name: values.view() for name, values in losses.items()}
        for values in self.losses.values():
            values.flags.writeable = False  # a policy that changed them would change the record
        self.support, self.seeds = support, seeds
        self.parts, self.samples = parts or {}, samples
        self.cache: dict[Hashable, Any] = {}

    def __repr__(self) -> str:
        return f"WindowHistory({len(self.seeds)} replicas, {self.windows} windows)"

    @property
    def windows(self) -> int:
        """Number of windows, E."""
        return len(self.support)

    def part(self, name: str, *row: int) -> Array:
        """One of ``parts``; `InputError` if there are no predictions or no such slices."""
        key = (name, *row)
        if key not in self.cache:
            if not self.parts:
                raise InputError("policy: needs predictions; run with save_predictions=true")
            if name not in self.parts:
                given = name.partition(".")[2]
                known = [k.removeprefix("slice.") for k in self.parts if k.startswith("slice.")]
                raise InputError(f"slice {given!r}: the predictions have no such column{nearest(given, known)}")
            self.cache[key] = self.parts[name](*row)
        return np.asarray(self.cache[key])

    def compare(self, row: int, other: int, window: int) -> tuple[Array, Array, Array, Array]:
        """Predictions lost and gained, and sums of the differences of the NLL and of their squares, each ``(R,)``."""
        key = ("compare", row, other, window)
        if key not in self.cache:
            if self.samples is None:
                raise InputError("policy: a paired test needs predictions; run with save_predictions=true")
            (was, before), (now, after) = self.samples(row, window), self.samples(other, window)
            difference = after.astype(np.float64) - before
            lost, gained = (was > now).sum(-1), (now > was).sum(-1)
            self.cache[key] = lost, gained, difference.sum(-1), (difference**2).sum(-1)
        return self.cache[key]
