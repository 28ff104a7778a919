"""Entry points of ``cl-bench`` and ``cl-report``. A user error ends with a message of one line and exit code 2."""

from __future__ import annotations

import argparse
import errno
import math
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_lib.cli.overrides import (
    as_typed,
    directory_of,
    expand,
    in_full,
    searches,
    split_override,
    swept_keys,
    value_of,
    with_out,
)
from cl_lib.cli.preflight import check, has_policy, make_job, make_logger, resumes
from cl_lib.cli.sweep import REPORT, Failed, compare, finished, launch, name_failures, reason, reserved, unfinished
from cl_lib.cli.terminal import columns, outputs, termination
from cl_lib.errors import InputError
from cl_lib.files import new_directory
from cl_lib.record.record import CHECKPOINT, PARTIAL, RECORD

if TYPE_CHECKING:
    from cl_lib.record import Record

__all__ = ["bench", "make_job", "report", "run_config"]

FAILED, MISTAKE, SIGNALLED = 1, 2, 128
"""Exit codes: a failed run, a user error, and the offset added to the number of the signal that ended the process."""
SMALL = 1_000_000
"""Number of parameters of a population below which a second thread makes training slower."""
INTERNAL = ("swept", "resume", "progress", "out")
"""Options that do not affect the result and are left out of the record's config."""


def bench() -> None:
    """Entry point of ``cl-bench``."""
    sys.exit(_guarded("cl-bench", _bench, sys.argv[1:]))


def report() -> None:
    """Entry point of ``cl-report``."""
    sys.exit(_guarded("cl-report", _report, sys.argv[1:]))


def _guarded(program: str, main: Any, argv: list[str]) -> int:
    with outputs() as out, termination() as terminated:
        try:
            code = int(main(argv))
        except (InputError, _Carrier) as error:
            print(f"{program}: {error}", file=sys.stderr)
            code = MISTAKE
        except KeyboardInterrupt as stop:
            print(f"{program}: {str(stop) or 'stopped'}", file=sys.stderr)
            code = SIGNALLED + (signal.SIGTERM if terminated else signal.SIGINT)
        out.flush()
        # a closed pipe (cl-bench | head) is not reported, a full disk is
        if isinstance(out.error, OSError) and out.error.errno not in (errno.EPIPE, errno.EBADF):
            print(f"{program}: the output cannot be written ({out.error.strerror})", file=sys.stderr)
            code = code or MISTAKE
    return code


# ---------------------------------------------------------------------- cl-bench
def _bench(argv: list[str]) -> int:
    from hydra._internal.utils import get_args_parser

    typed, argv = argv, [in_full(a) for a in argv]
    # options may be anywhere, but argparse requires them together
    options = [a for a in argv if "=" in a and not a.startswith("-")]
    argv = [a for a in argv if a not in options] + options
    parser = get_args_parser()
    parser.prog = "cl-bench"
    args = parser.parse_args(argv)
    if args.config_name or args.config_path:
        raise InputError("--config-name, --config-path: cl-bench has one configuration; add groups with --config-dir")
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        _hydra_main(argv)
        return 0
    several = bool(args.multirun) or value_of(args.overrides, "hydra.mode") == "MULTIRUN"
    given = as_typed(args.overrides)
    overrides = with_out(given, several)
    if overrides is not given and "true" in (value_of(overrides, "resume") or "").lower():
        raise InputError("resume=true: needs out=DIR, the directory of the run to resume")
    created = None
    if overrides is not given:  # another run may start in the same second
        created = new_directory(Path(value_of(overrides, "out") or ""))
        overrides = [*overrides[:-1], f"out={created}"]
    try:
        jobs = expand(overrides, args.config_dir, several)
        searched = several and searches(overrides)
        swept = swept_keys(jobs)
        added = "swept=null" if searched else f"swept=[{','.join(swept)}]"
        configs = check(jobs, [[*job, added] for job in jobs], args.config_dir, several, searched, swept)
    except BaseException:
        if created is not None:
            with suppress(OSError):
                created.rmdir()
                created.parent.rmdir()
        raise
    out = Path(configs[0]["out"])
    try:
        if not several:
            _hydra_main([*(a for a in argv if a not in args.overrides), *overrides, added])
            return 0
        with reserved(out):
            failures, places = _sweep(overrides, jobs, added, args.config_dir, out, swept)
            if directories := [place for place in places if finished(place)]:
                compare(directories, out / REPORT, configs[0]["baseline"], partly=bool(failures))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(_how_to_resume(typed, stop, out, several)) from None
    name_failures("cl-bench", failures)
    return FAILED if failures else 0


def _sweep(
    overrides: list[str], jobs: list[list[str]], added: str, config_dir: str | None, out: Path, swept: list[str]
) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Run the jobs of a sweep; return the failed jobs with reasons, and the directories of all records."""
    if added == "swept=null":  # the sweeper chooses the jobs
        (failure,) = launch(_task, [*overrides, added], [], config_dir)
        places = sorted((p for p in out.glob("*") if p.name.isdigit()), key=lambda p: int(p.name))
        failures = [(p, "see above") for p in places if not finished(p)]
        return failures + ([(out, failure)] if failure is not None else []), places
    failed = launch(_task, [*jobs[0], added], [[*job, added] for job in jobs], config_dir)
    places = [directory_of(str(out), job, swept) for job in jobs]
    both = zip(places, failed, strict=True)
    return [(place, why or "left no record") for place, why in both if not finished(place)], places


def _how_to_resume(typed: Sequence[str], stop: KeyboardInterrupt, out: Path, several: bool) -> str:
    """Message after Ctrl-C: what has been saved, and the command that resumes the run."""
    stopped = str(stop) or "stopped"
    places = [p for p in out.glob("*") if p.is_dir()] if several else [out]
    done, begun = sum(map(finished, places)), [p for p in places if unfinished(p)]
    if not done and not begun:
        return f"{stopped}; there is no checkpoint in {out}, so the run cannot be resumed"
    kept = [f"{done} finished run{'s' if done > 1 else ''}"] if done and several else []
    kept += [f"a checkpoint in {' and in '.join(map(str, begun))}"] if begun else []
    options = [a for a in typed if split_override(a)[0] not in ("resume", "out")]
    command = shlex.join(["cl-bench", *options, f"out={out}", "resume=true"])
    return f"{stopped}; there is {' and '.join(kept) or 'the record'}. Resume with: {command}"


def _hydra_main(argv: Sequence[str]) -> None:
    import hydra

    application = hydra.main(config_path="pkg://cl_lib.conf", config_name="config", version_base="1.3")(_task)
    before, sys.argv = sys.argv, [sys.argv[0], *argv]
    try:
        application()
    finally:
        sys.argv = before


def _task(config: Any) -> float:
    """Run one job, called by Hydra's launcher, possibly in another process; return its accuracy, to be maximised."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    plain: Any = OmegaConf.to_container(config, resolve=True)
    several = hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    overrides = list(hydra.overrides.task)
    if not several:
        directory = Path(plain["out"])
    elif plain["swept"] is None:  # a sweeper that searches may repeat values
        directory = Path(plain["out"]) / str(hydra.job.num)
    else:
        directory = directory_of(plain["out"], overrides, plain["swept"])
    with outputs():
        try:
            record = run_config(plain, directory, overrides, hydra.runtime.choices)
            _show(record, directory, several)
            accuracy = record.metrics["accuracy"].mean
            return 0.0 if accuracy is None or math.isnan(accuracy) else accuracy  # every replica diverged
        except KeyboardInterrupt as stop:  # as a string, since a launcher may not be able to pickle `Interrupted`
            raise KeyboardInterrupt(str(stop)) from None
        except (Exception, SystemExit) as error:
            lost = getattr(error, "record", None)  # the record of a finished run that could not be written
            if lost is not None:
                _show(lost, None, several)
            if not several and isinstance(error, InputError):
                raise _Carrier(error) from error
            if not several:
                raise
            why = reason(error)
        # outside the handler, since the frames of the error keep memory that the next runs need
        print(f"{directory.name}: failed, {why}", flush=True)
        raise Failed(why)


def _show(record: Record, directory: Path | None, several: bool) -> None:
    from cl_lib.report.table import summary

    if several and directory is not None:
        accuracy, forgetting = record.metrics["accuracy"], record.metrics["forgetting"]
        print(f"{directory.name}: accuracy {accuracy}, forgetting {forgetting}")
    else:
        print(summary(record, columns()))
    if directory is not None:
        print(f"{'  ' if several else ''}record: {directory}", flush=True)


class _Carrier(BaseException):
    """Carries an `InputError` through Hydra, which handles every `Exception`."""


def run_config(
    config: Mapping[str, Any], directory: Path, overrides: Sequence[str], choices: Mapping[str, Any]
) -> Record:
    """Run a resolved configuration and write its record to ``directory``."""
    import torch

    from cl_lib.harness.runner import run_job

    job = make_job(config)
    threads = config["engine"]["threads"]
    if threads is None and job.parameters * len(job.replicas) < SMALL:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)
    name = choices.get("strategy", job.name)
    recorded = {k: v for k, v in config.items() if k not in INTERNAL and (k != "policy" or has_policy(config))}
    kept = [o for o in overrides if split_override(o)[0] not in INTERNAL]
    return run_job(
        job,
        out=directory,
        resume=resumes(config),
        progress=config["progress"],
        name=name,
        config=recorded,
        command=" ".join(["cl-bench", *kept]),
        loggers=[make_logger(config["logger"], directory, name, recorded)],
    )


# ---------------------------------------------------------------------- comparison
def _report(argv: list[str]) -> int:
    from cl_lib.report.html import check_target

    parser = argparse.ArgumentParser(
        prog="cl-report", description="Compare finished runs: print a comparison table and write report.html."
    )
    parser.add_argument(
        "directories", nargs="+", metavar="DIR", help="directory of a run, or a directory with several runs"
    )
    parser.add_argument("--out", default="report.html", help="file to write the report to (default: report.html)")
    parser.add_argument(
        "--baseline", default=None, help="strategy that the others are compared with (default: the first)"
    )
    args = parser.parse_args(argv)
    check_target(args.out)
    records, begun = _records(args.directories)
    compare(records, Path(args.out), args.baseline)
    for path in begun:
        print(f"note: {path} holds an unfinished run, which is left out; resume it with resume=true")
    return 0


def _records(directories: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Directories of the finished and of the unfinished runs."""
    complete: list[Path] = []
    begun: list[Path] = []
    for name in directories:
        path = Path(name)
        if not path.exists():
            raise InputError(f"{name}: there is no such directory")
        names = (RECORD, CHECKPOINT, PARTIAL)
        places = [path] if finished(path) else sorted({p.parent for n in names for p in path.glob(f"**/{n}")})
        done = [p for p in places if finished(p)]
        other = [p for p in places if unfinished(p)]
        if not done:
            hint = f"; {other[0]} is unfinished, resume it with resume=true" if other else ""
            raise InputError(f"{name}: contains no record.json; give the directory of a finished run{hint}")
        complete += [p for p in done if p not in complete]
        begun += [p for p in other if p not in begun]
    return complete, begun
