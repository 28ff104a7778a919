"""What is known when a policy decides: results of the rows and windows of the past, cut out of the whole history."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cl_lib.drift.watch import Kind
from cl_lib.errors import InputError, nearest
from cl_lib.policies.history import Array, WindowHistory

DIVERGED = 1e300
"""Loss of a diverged model: larger than any other, and finite, so that differences are defined."""


@dataclass(frozen=True, eq=False)
class Paired:
    """Comparison of two rows on the same samples, arrays of shape ``Known.shape``.

    ``count``, number of samples; ``lost``, correct under the first row only; ``gained``, under the second only;
    ``nll``, mean NLL of the second row minus that of the first, and ``nll_error``, its standard error.
    """

    count: int
    lost: Array
    gained: Array
    nll: Array
    nll_error: Array


@dataclass(frozen=True, eq=False)
class Known:
    """What a policy knows before window ``window`` is served; later results cannot be reached.

    Rows are models: row i was trained on windows 0 to i - 1. With a label delay of d windows the labels of windows
    0 to window - 1 - d have arrived, and row ``newest = window - d`` is trained on them. What tests a row is its loss
    on windows i and later, which it was not trained on. There is none for the newest row, whose results cannot be read.

    Attributes
    ----------
    window : int
        The window to be served, from 0.
    newest : int
        The row that an update deploys, and the number of windows whose labels have arrived.
    serving : ndarray
        ``shape``, the row that serves each replica so far.
    since : ndarray
        ``shape``, number of windows served since the last update.
    history : WindowHistory
        All results; use the methods of this class, which refuse what is not known yet.
    """

    window: int
    newest: int
    serving: Array
    since: Array
    history: WindowHistory

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a policy's decision: ``(R,)``, or ``(G, R)`` for a grid of G points."""
        return self.serving.shape

    @cached_property
    def _replicas(self) -> Array:
        return np.arange(len(self.history.seeds))

    @property
    def seeds(self) -> Array:
        """``(R,)`` seed of each replica."""
        return self.history.seeds

    def loss(self, row: Array | int, window: int, metric: str = "nll") -> Array:
        """Mean loss of a row (one for each replica, or one for all) on a window with labels; 1e300 if it diverged."""
        self._check(row, window)
        return np.nan_to_num(self._losses(metric)[self._replicas, row, window], nan=DIVERGED)

    def losses(self, metric: str = "nll") -> Array:
        """``(R, newest, newest)`` mean losses of the rows before the newest on windows with labels."""
        out = np.nan_to_num(self._losses(metric)[:, : self.newest, : self.newest], nan=DIVERGED)
        out.flags.writeable = False
        return out

    def support(self, window: int) -> int:
        """Number of test samples of a window whose labels have arrived."""
        self._check(0, window)
        return int(self.history.support[window])

    def slice_counts(self, name: str, row: Array | int, window: int) -> tuple[Array, Array]:
        """``count`` ``(S,)`` and ``correct`` ``(shape, S)`` of the slices of a metadata column in a window."""
        self._check(row, window)
        count = self.history.part(f"slice.{name}")[window]
        return count, self._by_row(row, lambda one: self.history.part(f"correct.{name}", one)[:, window])

    def compare(self, row: Array | int, other: Array | int, window: int) -> Paired:
        """Compare two rows on the samples of a window whose labels have arrived."""
        self._check(row, window)
        self._check(other, window)
        pairs = np.broadcast_arrays(row, other, self.serving)[:2]
        flat = np.stack([part.ravel() for part in pairs], 1)
        replica = np.broadcast_to(self._replicas, self.shape).ravel()
        sums = np.empty((4, len(flat)))
        unique, place = np.unique(flat, axis=0, return_inverse=True)
        for number, (first, second) in enumerate(unique.tolist()):
            chosen = place.ravel() == number
            for part, values in zip(sums, self.history.compare(first, second, window), strict=True):
                part[chosen] = values[replica[chosen]]
        lost, gained, total, squares = (part.reshape(self.shape) for part in sums)
        count = int(self.history.support[window])
        variance = np.maximum(squares / count - (total / count) ** 2, 0) / max(count - 1, 1)
        diverged = np.isnan(total)
        change = np.where(diverged, self.loss(other, window) - self.loss(row, window), total / count)
        return Paired(count, lost, gained, change, np.where(diverged, 0.0, np.sqrt(variance)))

    def _by_row(self, row: Array | int, values: Callable[[int], Array]) -> Array:
        """``(*shape, ...)``: for each replica the values ``(R, ...)`` of its row."""
        rows = np.broadcast_to(row, self.shape)
        unique, place = np.unique(rows, return_inverse=True)
        table = np.stack([values(int(one)) for one in unique])
        return np.asarray(table[place.reshape(self.shape), self._replicas])

    @property
    def cache(self) -> MutableMapping[Hashable, Any]:
        """Results of tests, shared by all policies."""
        return self.history.cache

    def counts(self, kind: Kind, row: int, windows: range) -> Array:
        """Samples of windows by category, ``(R or 1, F, K)``; ``labels`` and ``errors`` where labels have arrived."""
        limit = self.newest if kind in ("labels", "errors") else self.window
        self._check(row, 0)
        if windows.start < 0 or windows.stop > limit:
            raise InputError(
                f"policy: reads {kind} of window {windows.stop - 1}; before window {self.window} those of windows "
                f"below {limit} are known"
            )
        chosen = slice(windows.start, windows.stop)
        if kind == "errors":
            error = np.nan_to_num(self._losses("error")[:, row, chosen], nan=1.0)  # a diverged model is always wrong
            wrong = np.rint(error * self.history.support[chosen]).sum(-1)
            return np.stack([wrong, self.history.support[chosen].sum() - wrong], -1)[:, None]
        if kind == "labels":
            return np.asarray(self.history.part(kind)[chosen].sum(0))[None, None]
        if kind == "inputs":
            total = self.history.part(kind)[..., chosen, :, :].sum(-3)
            return np.asarray(total if total.ndim == 3 else total[None])
        return np.asarray(self.history.part(kind, row)[:, chosen].sum(1))[:, None]

    def _losses(self, metric: str) -> Array:
        if metric not in self.history.losses:
            raise InputError(f"metric={metric!r}: unknown{nearest(metric, self.history.losses)}")
        return self.history.losses[metric]

    def _check(self, row: Array | int, window: int) -> None:
        if not 0 <= window < self.newest:
            raise InputError(
                f"policy: reads the labels of window {window}; before window {self.window} those of windows below "
                f"{self.newest} are known"
            )
        if np.max(row) >= self.newest or np.min(row) < 0:
            raise InputError(
                f"policy: reads row {np.max(row)}; before window {self.window} results of rows 0 to {self.newest - 1} "
                "are known (the newest row has no window with labels that it was not trained on)"
            )
