"""Where a run's rows go while it is under way: a CSV file, Weights & Biases, any object with ``log`` and ``close``."""

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
    """What ``run(..., loggers=[...])`` calls.

    An exception in either method ends the logging and never the run: it becomes one warning.
    """

    def log(self, row: Row) -> None:
        """Take a row. ``row.step`` rises throughout the run, also where groups of replicas train one after another."""

    def close(self) -> None:
        """Called once, when the run is over, failed or was interrupted."""


class CSVLogger:
    """A line for each replica, test set and evaluation in a CSV file, which holds the rows of one run, each once.

    Columns: replica, experience (trained), step (of the replica), column (tested, 1-based), accuracy, ece, nll, brier.

    Parameters
    ----------
    file : path
        An older file of this kind is replaced when the first row is logged, anything else is left alone.
    directory : path, optional
        The run's directory, in which ``file`` then is a name.

    Raises
    ------
    InputError
        When ``file`` is something else than an older file of this kind.

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
                    f"logger.file={str(file)!r}: must be the name of a .csv file; it goes into the run's directory"
                )
        self.path = Path(directory or "") / file
        self.written: tuple[int, int] | None = None
        """The file's inode and size after the last row: another writer changes them."""
        self.start = 0
        with suppress(OSError):  # said by `log`, as it need not stay so
            self._check()

    def _check(self) -> None:
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise InputError(f"logger.file={self.path}: is not a regular file")
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open(errors="replace") as file:
                first = file.readline(200)
            if first.strip() != ",".join(HEADER):
                raise InputError(f"logger.file={self.path}: holds something else than rows; choose another file")

    def log(self, row: Row) -> None:
        """Append a row."""
        if self.written is None:
            self._begin()
        if row.experience == 0:
            self.start = row.step  # where the row's group of replicas began
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
        # a new file, so that an earlier writer of this path finds out
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            with fresh.open("w", newline="") as file:
                csv.writer(file).writerow(HEADER)
                file.flush()
                now = os.fstat(file.fileno())
            fresh.replace(self.path)
        finally:
            fresh.unlink(missing_ok=True)
        self.written = (now.st_ino, now.st_size)

    def close(self) -> None:
        """The file is closed after each row."""


class WandbLogger:
    """Weights & Biases: `means` of each row, and every replica's accuracy; each logger is a W&B run of its own.

    The W&B run starts with the first row and is finished by ``close``.

    Parameters
    ----------
    project : str
    name : str, optional
        The W&B run's name.
    config : mapping, optional
        Shown with the W&B run.
    entity : str, optional
    mode : {"auto", "online", "offline", "disabled"}
        ``auto``: what ``WANDB_MODE`` says, else offline where nobody is logged in, so a run never waits for a prompt.
    directory : path, optional
        Where W&B keeps its files.

    Raises
    ------
    InputError
        When wandb is not installed, the mode is unknown, or it is ``online`` and nobody is logged in.
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
            raise InputError("logger.mode=online: nobody is logged in to W&B; run wandb login, or use mode=offline")
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
    return bool(wandb.setup().settings.api_key or wandb.api.api_key)  # versions of before 2026


class NoLogger:
    """Logs nothing."""

    def log(self, row: Row) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def means(row: Row) -> dict[str, float]:
    """Accuracy, ECE, NLL and Brier score, means over the row's healthy replicas, and how many these are.

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
        if len(values):  # calibration has no value where some tested classes may not be predicted
            out[name] = float(values.mean())
    return out
