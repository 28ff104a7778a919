"""Loggers for the rows of a run: a CSV file, Weights & Biases, or any object with ``log`` and ``close``."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cl_lib.errors import InputError
from cl_lib.validation import check_choice

if TYPE_CHECKING:
    from cl_lib.types import Row

METRICS = ("accuracy", "ece", "nll", "brier")
HEADER = ("replica", "experience", "step", "column", *METRICS)


class Logger(Protocol):
    """Interface of the objects passed as ``run(..., loggers=[...])``.

    An exception in either method ends the logging with a warning; the run continues.
    """

    def log(self, row: Row) -> None:
        """Log a row. ``row.step`` increases throughout the run, even if groups of replicas are trained in sequence."""

    def close(self) -> None:
        """Called once, when the run has finished, failed or been interrupted."""


class CSVLogger:
    """Write a CSV file with one line for each replica, test set and evaluation of a run.

    Columns: replica, experience (trained), step (of the replica), column (tested, 1-based), accuracy, ece, nll, brier.

    Parameters
    ----------
    file : path
        An existing file of this logger is replaced when the first row is logged; other files are never replaced.
    directory : path, optional
        Directory of the run; ``file`` is then the name of a file in it.

    Raises
    ------
    InputError
        If ``file`` exists and was not written by this logger.

    Examples
    --------
    >>> import cl_lib, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> _ = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2, loggers=[CSVLogger(path)])
    >>> path.read_text().splitlines()[0]
    'replica,experience,step,column,accuracy,ece,nll,brier'
    >>> len(path.read_text().splitlines())
    61
    """

    def __init__(self, file: str | Path, directory: str | Path | None = None) -> None:
        if directory is not None:
            name = Path(file).name
            if name != str(file) or Path(name).suffix != ".csv":
                raise InputError(
                    f"logger.file={str(file)!r}: must be the name of a .csv file; it is written to the run's directory"
                )
        self.path = Path(directory or "") / file
        self.written: tuple[int, int] | None = None
        """Inode and size of the file after the last row, to detect other writers."""
        self.start = 0
        with suppress(OSError):  # reported by `log`, since the error may be temporary
            self._check()

    def _check(self) -> None:
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise InputError(f"logger.file={self.path}: is not a regular file")
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open(errors="replace") as file:
                first = file.readline(200)
            if first.strip() != ",".join(HEADER):
                raise InputError(f"logger.file={self.path}: was not written by this logger; choose another file")

    def log(self, row: Row) -> None:
        """Append the lines of a row."""
        if self.written is None:
            self._begin()
        if row.experience == 0:
            self.start = row.step  # first step of the row's group of replicas
        with self.path.open("r+", newline="") as file:
            now = os.fstat(file.fileno())
            if self.written != (now.st_ino, now.st_size):
                raise RuntimeError(f"{self.path} was changed by another writer")
            file.seek(0, os.SEEK_END)
            writer = csv.writer(file)
            for r, replica in enumerate(row.replicas):
                for column in range(row.accuracy.shape[1]):
                    values = [f"{row.arrays[name][r, column]:.6g}" for name in METRICS]
                    writer.writerow([replica, row.experience, row.step - self.start, column + 1, *values])
            file.flush()
            now = os.fstat(file.fileno())
        self.written = (now.st_ino, now.st_size)

    def _begin(self) -> None:
        self._check()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # a new file, so that another logger with the same path detects the change
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            with temporary.open("w", newline="") as file:
                csv.writer(file).writerow(HEADER)
                file.flush()
                now = os.fstat(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self.written = (now.st_ino, now.st_size)

    def close(self) -> None:
        """Do nothing, since the file is closed after each row."""


class WandbLogger:
    """Log the `means` of each row and the accuracy of every replica to Weights & Biases, each logger as a W&B run.

    The W&B run starts with the first row and is finished by ``close``.

    Parameters
    ----------
    project : str
    name : str, optional
        Name of the W&B run.
    config : mapping, optional
        Configuration of the W&B run.
    entity : str, optional
    mode : {"auto", "online", "offline", "disabled"}
        ``auto``: the value of ``WANDB_MODE`` if set, else online if the user is logged in and offline otherwise, so
        that a run never waits for a prompt.
    directory : path, optional
        Directory for the files of W&B.

    Raises
    ------
    InputError
        If wandb is not installed, the mode is unknown, or it is ``online`` and the user is not logged in.
    """

    def __init__(
        self,
        project: str,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        entity: str | None = None,
        mode: str = "auto",
        directory: str | Path | None = None,
    ) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("logger=wandb: wandb is not installed; pip install 'cl-lib[wandb]'") from None
        check_choice("logger.mode", mode, ("auto", "online", "offline", "disabled"))
        logged_in = mode in ("auto", "online") and _logged_in(wandb)
        if mode == "online" and not logged_in:
            raise InputError("logger.mode=online: no W&B login found; run wandb login, or use mode=offline")
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if logged_in else "offline")
        self.options: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "name": name,
            "config": dict(config or {}),
            "mode": mode,
            "dir": directory,
        }
        self.run: Any = None

    def log(self, row: Row) -> None:
        """Log a row's means and the accuracy of each of its replicas at the row's step."""
        if self.run is None:
            import wandb

            if self.options["dir"] is not None:
                Path(self.options["dir"]).mkdir(parents=True, exist_ok=True)
            self.run = wandb.init(**self.options, reinit="create_new")
        values: dict[str, Any] = {"experience": row.experience, **means(row)}
        for replica, accuracy in zip(row.replicas, row.arrays["pooled.accuracy"], strict=True):
            if np.isfinite(accuracy):
                values[f"replica_{replica}/accuracy"] = float(accuracy)
        self.run.log(values, step=row.step)

    def close(self) -> None:
        """Finish the W&B run."""
        run, self.run = self.run, None
        if run is not None:
            run.finish()


def _logged_in(wandb: Any) -> bool:
    if "prompt" in signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=False))
    return bool(wandb.setup().settings.api_key or wandb.api.api_key)  # wandb versions before 2026


class NoLogger:
    """Logger that does nothing."""

    def log(self, row: Row) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def means(row: Row) -> dict[str, float]:
    """Mean accuracy, ECE, NLL and Brier score over the replicas of a row that did not diverge, and their number.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> *_, last = cl_lib.iter_run(stream, cl_lib.strategies.ER(), seeds=3, eval_every=5)
    >>> sorted(means(last))
    ['accuracy', 'brier', 'ece', 'nll', 'replicas']
    >>> means(last)["replicas"]
    3
    """
    healthy = row.arrays["diverged"] < 0
    out: dict[str, float] = {"replicas": int(healthy.sum())}
    for name in METRICS:
        values = row.arrays[f"pooled.{name}"][healthy]
        values = values[np.isfinite(values)]
        if len(values):  # calibration is undefined if some tested classes may not be predicted
            out[name] = float(values.mean())
    return out
