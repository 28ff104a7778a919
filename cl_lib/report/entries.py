"""Entries of a report: records, or the points of their grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cl_lib.errors import InputError, printable
from cl_lib.files import null
from cl_lib.metrics import age_groups, merge_groups
from cl_lib.metrics.scores import BINS
from cl_lib.record import Metric, Record
from cl_lib.record.slices import reliability_diagrams, slice_means
from cl_lib.validation import flat


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of a report: a record, or a point of its grid.

    Attributes
    ----------
    label : str
        Unique within the report.
    number : int
        Position in the report, which determines the colour.
    record : Record
    members : list of int
        Positions in ``record.replicas``.
    metrics : dict of Metric
        Metrics over the members; ``per_seed`` is in the order of ``members``.
    accuracy_matrix : list of lists
        Mean over the members.
    point : bool
        Whether the entry is a grid point.
    """

    label: str
    number: int
    record: Record
    members: list[int]
    metrics: dict[str, Metric]
    accuracy_matrix: list[list[float | None]]
    point: bool = False

    @property
    def replicas(self) -> list[dict[str, Any]]:
        """Entries of ``record.replicas`` for the members."""
        return [self.record.replicas[i] for i in self.members]

    @property
    def diverged(self) -> list[dict[str, Any]]:
        """Entries of ``record.replicas`` for the members that diverged."""
        return [replica for replica in self.replicas if replica["status"] != "ok"]

    @property
    def share(self) -> float:
        """Fraction of the record's replicas, used to divide the cost of the run among entries."""
        return len(self.members) / max(1, len(self.record.replicas))

    def per_seed(self, metric: str) -> dict[int, float | None]:
        """Value of a metric for each seed."""
        seeds = [replica["seed"] for replica in self.replicas]
        return dict(zip(seeds, self.metrics[metric].per_seed, strict=True))

    def matrices(self) -> np.ndarray:
        """Accuracy matrices of the members, ``(R, T + 1, E)``; their mean if the record has no arrays."""
        matrices = self.record.arrays.get("matrix.accuracy")
        return np.array([self.accuracy_matrix], float) if matrices is None else matrices[self.members]

    def rows(self, name: Literal["learned", "before"]) -> np.ndarray:
        """The record's ``learned`` or ``before`` for each of `matrices`, ``(R, E)``; NaN where it is unknown."""
        rows = self.record.arrays.get(name)  # in records of version 0.1.0 only values common to all replicas
        if rows is not None and len(rows) == len(self.record.replicas) and "matrix.accuracy" in self.record.arrays:
            return rows[self.members].astype(float)
        return np.tile(np.array(getattr(self.record, name), float), (len(self.matrices()), 1))

    def slices(self) -> dict[str, dict[str, list[Any]]]:
        """``labels``, ``support`` and ``accuracy`` of each slice, by name of the slicing."""
        arrays = self.record.arrays
        if not self.point:
            return self.record.slices
        if not {"age", "support", "class.count", "class.correct"} <= arrays.keys():
            return {}
        last = {k: v[self.members, -1] for k, v in arrays.items() if k.startswith(("class.c", "column.", "support"))}
        age, names = age_groups(arrays["age"][:, -1])
        merged = [merge_groups(last[f"class.{k}"], age[self.members], len(names)) for k in ("count", "correct")]
        hits = self.matrices()[:, -1] * last["support"]
        out = {
            "class": slice_means(self.record.slices["class"]["labels"], last["class.count"], last["class.correct"]),
            "experience": slice_means(self.record.stream["columns"], last["support"], hits),
            "age": slice_means(names, *merged),
        }
        for name in sorted(self.record.slices.keys() - out.keys()):
            sums = [last.get(f"column.{name}.{k}") for k in ("count", "correct")]
            if sums[0] is not None and sums[1] is not None:
                out[name] = slice_means(self.record.slices[name]["labels"], sums[0], sums[1])
        return {name: {k: null(v) for k, v in part.items()} for name, part in out.items()}

    def reliability(self) -> dict[str, dict[str, list[float | None]]]:
        """Reliability diagrams ``before`` and ``after`` the stream: ``confidence``, ``accuracy``, ``count``."""
        if not self.point:
            return self.record.reliability
        if "pooled.bins" not in self.record.arrays:
            return {}
        bins = self.record.arrays["pooled.bins"][self.members]
        if bins.shape[-2] > BINS:  # records of version 0.1.0 have a separate bin for a confidence of exactly 1
            bins[..., BINS - 1, :] += bins[..., BINS, :]
            bins = bins[..., :BINS, :]
        diagrams = reliability_diagrams(bins)
        return {name: {k: null(v) for k, v in diagram.items()} for name, diagram in diagrams.items()}


def entries(records: Sequence[Record]) -> list[Entry]:
    """Make one entry for each record, or for each grid point of a record with a grid.

    The label is the name of the strategy. If several entries have the same strategy, the options in which they differ
    are appended, or the name of the directory if the record has one, or a number.

    Raises
    ------
    InputError
        If there are no records.
    """
    if not records:
        raise InputError("a report needs at least one record")
    raw: list[tuple[Record, Any]] = [(record, point) for record in records for point in record.grid or (None,)]
    out: list[Entry] = []
    for number, ((record, point), label) in enumerate(zip(raw, _labels(raw), strict=True)):
        if point is None:
            members = list(range(len(record.replicas)))
            out.append(Entry(label, number, record, members, record.metrics, record.accuracy_matrix))
        else:
            metrics = {k: Metric(**v) for k, v in point["metrics"].items()}
            out.append(Entry(label, number, record, point["replicas"], metrics, point["accuracy_matrix"], True))
    return out


def _labels(raw: Sequence[tuple[Record, Any]]) -> list[str]:
    labels = [""] * len(raw)
    for name in {record.strategy for record, _ in raw}:
        positions = [i for i, (record, _) in enumerate(raw) if record.strategy == name]
        for i, options in zip(positions, _distinctions([raw[i] for i in positions]), strict=True):
            labels[i] = f"{name} {options}".strip()
    for label, count in Counter(labels).items():
        if count > 1:
            for number, i in enumerate([i for i, other in enumerate(labels) if other == label], 1):
                labels[i] = f"{label} #{number}"
    return [printable(label, one_line=True) for label in labels]


def _distinctions(raw: Sequence[tuple[Record, Any]]) -> list[str]:
    """Descriptions that distinguish entries of one strategy: differing options, or else directory and grid point."""
    settings = [_settings(record, point) for record, point in raw]
    varied = {key for record, _ in raw for key in record.job.get("grid", {})}
    # options that only some records have, such as those of a later version, are not used
    common = [k for k in settings[0] if all(k in options for options in settings)]
    keys = [k for k in common if k not in varied and len({repr(options[k]) for options in settings}) > 1]
    for subset in (subset for size in range(4) for subset in combinations(keys, size)):
        phrases = [_phrase(options, [*sorted(varied), *subset]) for options in settings]
        if len(set(phrases)) == len(phrases) and max(map(len, phrases)) <= 60:
            return phrases
    places = [Path(record.directory).name for record, _ in raw]
    grids = [_options(point["hyper"] if point else {}) for _, point in raw]
    return [f"{place} {grid}".strip() for place, grid in zip(places, grids, strict=True)]


def _phrase(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    text = _options({k: settings[k] for k in keys if k in settings and k != "stream"})
    return f"{text} on {settings['stream']}".strip() if "stream" in keys else text


def _settings(record: Record, point: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options that may distinguish two entries of the same strategy, most likely first."""
    names = ("strategy", "stream", "epochs", "batch_size", "eval_on", "optim")
    settings = flat({**{k: record.job.get(k) for k in names}, "stream": record.stream["name"]})
    return settings | (point["hyper"] if point else {})


def _options(values: Mapping[str, Any]) -> str:
    """Format options as ``lr=0.1, lam=3``; with the full name if the last part is ambiguous."""
    ends = Counter(name.split(".")[-1] for name in values)
    short = {name: name.split(".")[-1] if ends[name.split(".")[-1]] == 1 else name for name in values}
    return ", ".join(f"{short[k]}={v:g}" if isinstance(v, float) else f"{short[k]}={v}" for k, v in values.items())
