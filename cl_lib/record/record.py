"""The record of a run on disk: ``record.json``, ``arrays.npz`` and the resolved configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.errors import InputError
from cl_lib.files import plain, read_json, read_npz, replace_file
from cl_lib.record.check import SCHEMA, bytes_of_arrays, check_arrays, check_record
from cl_lib.record.frame import frame
from cl_lib.record.metric import Metric
from cl_lib.record.predictions import PREDICTIONS, Predictions
from cl_lib.record.text import summary

if TYPE_CHECKING:
    import pandas as pd

RECORD, ARRAYS, CONFIG = "record.json", "arrays.npz", "config.yaml"
CHECKPOINT, PARTIAL = "checkpoint.npz", "partial.json"


@dataclass(frozen=True)
class Record:
    """The results of a run; `docs/record.md` describes every key.

    Attributes
    ----------
    metrics : dict of Metric
        Fractions in [0, 1], except NLL (in nats) and Brier (in [0, 2]).
    accuracy_matrix : list of lists
        Mean over replicas. Row 0 is the untrained network, row i the i-th evaluation; columns are the test sets.
    rows : list
        Numbers of experiences and of steps trained, for each row of the matrices; the step is None if replicas differ.
    learned, before : list of int
        For each column, the row where its training was first completed and the last row before its training began; None
        if replicas differ (``arrays`` holds each replica's ``step``, ``learned`` and ``before``).
    grid : list
        For each grid point, if a grid was trained: ``hyper``, ``replicas``, ``metrics``, ``accuracy_matrix``. The
        metrics above are then over all replicas.
    arrays : dict of ndarray
        Stored in ``arrays.npz``, not in the JSON: matrices ``(R, T + 1, E)`` and class and slice sums of each replica.
    arrays_sha256, predictions_sha256 : str or None
        Hashes of ``arrays.npz`` and ``predictions.npz``, set by `save`; None if there is no such file or the record is
        of an earlier version.
    directory : str
        Directory from which the record was loaded; not in the JSON.
    """

    stream: dict[str, Any]
    strategy: str
    seeds: list[int]
    config: dict[str, Any]
    job: dict[str, Any]
    metrics: dict[str, Metric]
    accuracy_matrix: list[list[float | None]]
    rows: list[dict[str, Any]]
    learned: list[int | None]
    before: list[int | None]
    matrices: dict[str, list[list[float | None]]]
    slices: dict[str, dict[str, Any]]
    reliability: dict[str, dict[str, list[float | None]]]
    cost: dict[str, Any]
    replicas: list[dict[str, Any]]
    grid: list[dict[str, Any]]
    environment: dict[str, Any]
    schema: str = SCHEMA
    arrays_sha256: str | None = field(default=None, repr=False, compare=False)
    predictions_sha256: str | None = field(default=None, repr=False, compare=False)
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    directory: str = field(default="", repr=False, compare=False)
    samples: Predictions | None = field(default=None, repr=False, compare=False)

    @cached_property
    def predictions(self) -> Predictions | None:
        """The prediction of every sample, where the run had ``save_predictions=True``, else None; read when first used.

        Raises
        ------
        InputError
            Where ``predictions.npz`` is missing, damaged or another run's.
        """
        if self.samples is not None or self.predictions_sha256 is None or not self.directory:
            return self.samples
        path = Path(self.directory) / PREDICTIONS
        return Predictions.load(path, self.predictions_sha256, len(self.replicas), len(self.rows))

    def frame(self) -> pd.DataFrame:
        """All matrices as one long table of numbers: a line for each replica, evaluation and test set.

        See `cl_lib.record.frame.frame` for the columns.
        """
        return frame(self)

    def to_json(self) -> dict[str, Any]:
        """Contents of ``record.json``."""
        left_out = ("arrays", "directory", "samples")
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        data["metrics"] = {k: asdict(v) for k, v in self.metrics.items()}
        for name in ("arrays_sha256", "predictions_sha256"):
            if data[name] is None:
                del data[name]
        return {"schema": data.pop("schema"), **data}

    def save(self, directory: str | Path) -> Path:
        """Write the record, ``record.json`` last, so that a directory with ``record.json`` is complete."""
        directory = Path(directory)
        content = plain(self.to_json())
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(directory / ARRAYS, lambda file: np.savez_compressed(file, allow_pickle=False, **self.arrays))
        replace_file(directory / CONFIG, lambda file: file.write(as_yaml(self.config).encode()))
        with (directory / ARRAYS).open("rb") as file:
            content["arrays_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        content.pop("predictions_sha256", None)
        if self.predictions is not None:
            content["predictions_sha256"] = self.predictions.save(directory / PREDICTIONS)
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        replace_file(directory / RECORD, lambda file: file.write(text.encode()))
        return directory

    @classmethod
    def load(cls, directory: str | Path) -> Record:
        """Read and check a record.

        Raises
        ------
        InputError
            If there is no record, it does not follow the schema or is inconsistent, or its arrays are those of another
            run; the message names the file and the key.
        """
        path = Path(directory)
        path = path / RECORD if path.is_dir() else path
        try:
            data = read_json(path)
        except FileNotFoundError:
            hint = " (an unfinished run: resume it with resume=true)" if (path.parent / CHECKPOINT).exists() else ""
            raise InputError(f"{path}: there is no record{hint}") from None
        # invalid JSON and invalid UTF-8 raise ValueError
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"{path}: not a readable record ({error})") from error
        check_record(data, str(path))
        arrays = _load_arrays(path.parent / ARRAYS, data)
        data["metrics"] = {k: Metric(**v) for k, v in data["metrics"].items()}
        return cls(**data, arrays=arrays, directory=str(path.parent))

    def __repr__(self) -> str:
        accuracy = self.metrics.get("accuracy")
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) != 1 else ''}"
        return f"Record({self.strategy} on {self.stream['name']}, {seeds}, accuracy {accuracy})"

    def __str__(self) -> str:
        return summary(self)


def _load_arrays(path: Path, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Load and check the arrays of a record; empty if the file does not exist."""
    if not path.exists():
        return {}
    try:
        content = path.read_bytes()
        expected = data.get("arrays_sha256")
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise InputError(
                f"{path}: is damaged or belongs to another run ({RECORD} names an arrays_sha256 of {expected})"
            )
        arrays = read_npz(content, bytes_of_arrays(data))
    except InputError:
        raise
    except Exception as error:  # a damaged zip file or array header can raise almost any exception
        raise InputError(f"{path}: not readable ({error})") from error
    check_arrays(arrays, data, str(path))
    return arrays


def as_yaml(config: Mapping[str, Any]) -> str:
    """Convert a configuration to YAML."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    except OmegaConfBaseException:  # strings that look like interpolations; JSON is valid YAML
        return json.dumps(config, indent=1) + "\n"
