"""Evidence for a gate: results of a trained model on windows that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cl_lib.errors import InputError, nearest
from cl_lib.service.history import history_of

if TYPE_CHECKING:
    from cl_lib.record import Record

CELLS = ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")
"""Metrics of one row on one window."""
NEXT = ("next_accuracy", "next_nll")
"""Metrics of all rows so far, each on the window after it."""
SAME = ("data_hash", "column_hash", "columns", "scenario", "eval_classes")
"""What two records that are compared have in common, beside seeds and numbers of test samples."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Results of one row in R replicas.

    Attributes
    ----------
    record : Record
    row : int
    windows : list of int or None
        Positions of the windows of a stream by time; None for other records, whose final results are used.
    """

    record: Record
    row: int
    windows: list[int] | None

    @property
    def healthy(self) -> np.ndarray:
        """``(R,)`` whether the results of each replica are finite."""
        if self.windows is None:
            return np.array([replica["status"] == "ok" for replica in self.record.replicas])
        cells = self.record.arrays["matrix.nll"][:, self.row, self.windows]
        return np.asarray(np.isfinite(cells).all(-1))

    def used(self, name: str = "") -> list[int] | None:
        """Positions of the windows that a metric is computed on."""
        if self.windows is not None and name in NEXT:
            return list(range(1, self.row + 1))
        return self.windows

    def count(self, name: str = "") -> int:
        """Number of test samples in these windows, of the first replica."""
        support = self._support
        windows = self.used(name)
        return int(support.sum() if windows is None else support[windows].sum())

    @property
    def _support(self) -> np.ndarray:
        if "support" not in self.record.arrays:
            raise InputError(f"record {self.record.strategy}: has no arrays.npz; copy it together with its record")
        return np.asarray(self.record.arrays["support"][0, -1])

    def values(self, name: str, where: str) -> np.ndarray:
        """``(R,)`` values of a metric; NaN for diverged replicas.

        Windows count by their numbers of samples. In streams by time only metrics of windows that the row was not
        trained on are given.
        """
        metrics = self.record.metrics
        if self.windows is None:
            if name not in metrics:
                raise InputError(f"{where}: the record has no such metric{nearest(name, metrics)}")
            metric = metrics[name]
            if metric.mean is None and self.healthy.any():
                raise InputError(f"{where}: is undefined in the record ({metric.reason})")
            return np.array([np.nan if value is None else value for value in metric.per_seed], float)
        if name in CELLS:
            cells = self.record.arrays[f"matrix.{name}"][:, self.row, self.windows]
            return np.asarray(np.average(cells, axis=1, weights=self._support[self.windows]))
        if name in NEXT:
            rows = np.arange(1, self.row + 1)
            return np.asarray(self.record.arrays[f"matrix.{name.removeprefix('next_')}"][:, rows, rows].mean(-1))
        if name in metrics:
            raise InputError(
                f"{where}: includes results on windows that row {self.row} was trained on, which say little of windows "
                f"to come; use {', '.join((*CELLS, *NEXT))}, slices or flips"
            )
        raise InputError(f"{where}: unknown metric{nearest(name, (*CELLS, *NEXT))}")

    def correct(self, where: str) -> np.ndarray:
        """``(R, N)`` correct predictions on the windows."""
        predictions = self.record.predictions
        if predictions is None:
            raise InputError(
                f"{where}: the record {self.record.strategy} has no predictions; run with save_predictions=true"
            )
        return np.asarray(predictions.correct(self.row)[:, self.place])

    @property
    def place(self) -> np.ndarray:
        """Positions of the predictions on the windows."""
        predictions = self.record.predictions
        assert predictions is not None
        if self.windows is None:
            return np.arange(predictions.shape[2])
        return np.concatenate([predictions.positions[window] for window in self.windows])


def in_service(record: Record) -> bool:
    """Whether the record is of a stream by time, whose models are tested on later windows.

    All domain-incremental streams are, and must fulfil what `history_of` asks for; in class- and task-incremental
    streams the experiences are no windows in time.
    """
    if record.stream["scenario"] != "domain" or record.stream["eval_classes"] == "seen":
        return False
    history_of(record)
    return True


def same_data(record: Record, against: Record) -> None:
    """Raise `InputError` if two records cannot be compared; the message names what differs."""
    for name in SAME:
        if record.stream.get(name) != against.stream.get(name):
            raise InputError(_differ(name, record.stream.get(name), against.stream.get(name)))
    if record.seeds != against.seeds:
        raise InputError(_differ("seeds", record.seeds, against.seeds))
    if record.job.get("eval_on", "test") != against.job.get("eval_on", "test"):
        raise InputError(_differ("eval_on", record.job.get("eval_on"), against.job.get("eval_on")))
    ours, theirs = (r.arrays.get("support", np.zeros(0))[:, -1:] for r in (record, against))
    if not np.array_equal(ours, theirs):
        raise InputError("against: the records cannot be compared, since their numbers of test samples differ")
    if record.predictions is not None and against.predictions is not None:
        for name in ("index", "column", "label"):
            if not np.array_equal(record.predictions.arrays[name], against.predictions.arrays[name]):
                raise InputError("against: the records cannot be compared, since their test samples differ")


def _differ(name: str, ours: object, theirs: object) -> str:
    hint = "; rows of one record are compared with row and against_row" if name in ("data_hash", "columns") else ""
    texts = (text if len(text := str(value)) < 60 else f"{text[:59]}…" for value in (ours, theirs))
    return f"against: the records cannot be compared, since their {name} differ: {' and '.join(texts)}{hint}"
