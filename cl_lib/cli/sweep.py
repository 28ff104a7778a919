"""The runs of a sweep: sent out by Hydra's launchers, none of which ends the others, and compared."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cl_lib.cli.overrides import first_line, searches, start_hydra
from cl_lib.cli.terminal import columns
from cl_lib.errors import InputError
from cl_lib.files import Lock, remove_parts
from cl_lib.record.record import CHECKPOINT, PARTIAL, RECORD

REPORT = "report.html"
Task = Callable[[Any], float]


class Failed(RuntimeError):
    """A run of a sweep that failed, with the reason in words: exceptions of others may not survive a launcher."""


def reason(error: BaseException) -> str:
    """Why a run failed, in a line; for what is not the user's mistake, with the place in the code."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    if isinstance(error, InputError):
        return first_line(error)
    said = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    frames = traceback.extract_tb(error.__traceback__)
    return f"{said} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else said


def launch(
    task: Task, overrides: Sequence[str], jobs: Sequence[Sequence[str]], config_dir: str | None
) -> list[str | None]:
    """Run all jobs through Hydra's launcher, or let a sweeper that searches choose them; why each failed, if it did.

    The basic sweeper itself is left out: it composes every job once more, writes ``multirun.yaml``, and ends at the
    first job that failed.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    hydra = start_hydra(config_dir)
    try:
        try:
            config = hydra.compose_config("config", [*overrides, "hydra.mode=MULTIRUN"], run_mode=RunMode.MULTIRUN)
            callbacks = Callbacks(config)
            context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
            sweeper: Any = Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=task, config=config
            )
        except Exception as error:  # no work has started: a launcher or sweeper that is not there, or its options
            raise InputError(f"cannot start the sweep: {first_line(error)}") from error
        callbacks.on_multirun_start(config=config, config_name="config")
        if searches(overrides):
            if "minimize" in str(config.hydra.sweeper.get("direction")):
                print(
                    "note: hydra.sweeper.direction=minimize looks for the lowest accuracy, as a run returns its own; "
                    "set hydra.sweeper.direction=maximize",
                    file=sys.stderr,
                )
            failed = _search(sweeper, list(config.hydra.overrides.task))
        else:
            if sweeper.params or sweeper.max_batch_size is not None:
                raise InputError("hydra.sweeper: the basic sweeper has no options here; give values as name=a,b")
            failed = _launch(sweeper.launcher, jobs)
        callbacks.on_multirun_end(config=config, config_name="config")
        return failed
    finally:
        GlobalHydra.instance().clear()


def _launch(launcher: Any, jobs: Sequence[Sequence[str]]) -> list[str | None]:
    try:
        done = launcher.launch([list(job) for job in jobs], initial_job_idx=0)
    except Exception as error:  # of the launcher: what its jobs left on disk says which of them are finished
        return [reason(error)] * len(jobs)
    return [_failure(job) for job in done]


def _failure(job: Any) -> str | None:
    from hydra.core.utils import JobStatus

    if job.status == JobStatus.COMPLETED:
        return None
    error = job._return_value  # ``return_value`` would print it
    return str(error) if isinstance(error, Failed) else reason(error)


def _search(sweeper: Any, overrides: list[str]) -> list[str | None]:
    """A sweeper decides itself what it makes of jobs that fail."""
    try:
        sweeper.sweep(arguments=overrides)
    except Exception as error:
        return [reason(error)]
    return [None]


@contextmanager
def reserved(out: Path) -> Iterator[None]:
    """Keep other sweeps from writing to a directory as long as this one runs."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = Lock(out)
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror})") from error
    with lock:
        with suppress(OSError):
            remove_parts(out, [REPORT])
        yield


# ---------------------------------------------------------------------- what they left
def finished(directory: Path) -> bool:
    return (directory / RECORD).exists()


def unfinished(directory: Path) -> bool:
    """Whether there is something to go on from."""
    return not finished(directory) and any((directory / name).exists() for name in (CHECKPOINT, PARTIAL))


def compare(directories: Sequence[Path], target: Path, baseline: str | None, partly: bool = False) -> None:
    """Print one table with its notes and write the report; where runs failed ``partly``, the baseline may lack."""
    from cl_lib.record import Record
    from cl_lib.report.compare import find_baseline
    from cl_lib.report.entries import entries
    from cl_lib.report.html import write_report
    from cl_lib.report.table import as_text, comparison, notes

    records = [Record.load(directory) for directory in directories]
    more: list[str] = []
    if partly:
        try:
            find_baseline(entries(records), baseline)
        except InputError:
            more, baseline = [f"the baseline {baseline} is not finished; the first that is takes its place"], None
    print(as_text(comparison(records, baseline), columns() or 100))
    for note in [*notes(records, baseline), *more]:
        print(f"note: {note}")
    print(f"report: {write_report(records, target, baseline=baseline)}")


def name_failures(program: str, failures: Sequence[tuple[Path, str]]) -> None:
    """One line for each run that failed."""
    for directory, why in failures:
        print(f"{program}: {directory.name} failed: {why}", file=sys.stderr)
