"""Execution of a sweep by Hydra's launchers, in which a failed run does not end the others, and its comparison."""

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
    """Raised for a failed run of a sweep, with the reason as a string, since other exceptions may not be picklable."""


def reason(error: BaseException) -> str:
    """Reason of a failure in one line; with the file and line of the code unless it is a user error."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    if isinstance(error, InputError):
        return first_line(error)
    summary = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    frames = traceback.extract_tb(error.__traceback__)
    return f"{summary} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else summary


def launch(
    task: Task, overrides: Sequence[str], jobs: Sequence[Sequence[str]], config_dir: str | None
) -> list[str | None]:
    """Run all jobs with Hydra's launcher or a sweeper that searches; return the reason of each failure, or None.

    The basic sweeper itself is not used: it composes every job again, writes ``multirun.yaml``, and stops at the first
    failed job.
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
        except Exception as error:  # nothing has run: a missing launcher or sweeper, or invalid options
            raise InputError(f"cannot start the sweep: {first_line(error)}") from error
        callbacks.on_multirun_start(config=config, config_name="config")
        if searches(overrides):
            if "minimize" in str(config.hydra.sweeper.get("direction")):
                print(
                    "note: hydra.sweeper.direction=minimize searches for the lowest accuracy, since a run "
                    "returns its accuracy; set hydra.sweeper.direction=maximize",
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
    except Exception as error:  # of the launcher: the files of the jobs show which of them are finished
        return [reason(error)] * len(jobs)
    return [_failure(job) for job in done]


def _failure(job: Any) -> str | None:
    from hydra.core.utils import JobStatus

    if job.status == JobStatus.COMPLETED:
        return None
    error = job._return_value  # ``return_value`` would print it
    return str(error) if isinstance(error, Failed) else reason(error)


def _search(sweeper: Any, overrides: list[str]) -> list[str | None]:
    """Run a sweeper that searches; it handles failed jobs itself."""
    try:
        sweeper.sweep(arguments=overrides)
    except Exception as error:
        return [reason(error)]
    return [None]


@contextmanager
def reserved(out: Path) -> Iterator[None]:
    """Lock a directory against other sweeps while this sweep runs."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = Lock(out)
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror})") from error
    with lock:
        with suppress(OSError):
            remove_parts(out, [REPORT])
        yield


# ---------------------------------------------------------------------- results
def finished(directory: Path) -> bool:
    return (directory / RECORD).exists()


def unfinished(directory: Path) -> bool:
    """Whether a directory contains an unfinished run."""
    return not finished(directory) and any((directory / name).exists() for name in (CHECKPOINT, PARTIAL))


def compare(directories: Sequence[Path], target: Path, baseline: str | None, partly: bool = False) -> None:
    """Print a comparison table with notes and write the report; if ``partly``, the baseline may be missing."""
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
            more, baseline = [f"the baseline {baseline} is not finished; the first finished run is used instead"], None
    print(as_text(comparison(records, baseline), columns() or 100))
    for note in [*notes(records, baseline), *more]:
        print(f"note: {note}")
    print(f"report: {write_report(records, target, baseline=baseline)}")


def name_failures(program: str, failures: Sequence[tuple[Path, str]]) -> None:
    """Print one line for each failed run."""
    for directory, why in failures:
        print(f"{program}: {directory.name} failed: {why}", file=sys.stderr)
