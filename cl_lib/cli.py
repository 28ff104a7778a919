"""The command line: ``cl-bench`` runs, ``cl-report`` compares. A user's mistake ends with one line and exit code 2."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_lib.errors import InputError, nearest
from cl_lib.overrides import (
    GROUPS,
    compose_config,
    directory_of,
    expand,
    first_line,
    flat,
    split_override,
    value_of,
    with_out,
)

if TYPE_CHECKING:
    from cl_lib.job import Job
    from cl_lib.record import Record

SMALL = 1_000_000
"""Parameters of a population below which a second thread costs more than it brings."""
REQUIRED = {
    *("stream", "strategy", "model", "optim", "logger", "seeds", "epochs", "batch_size", "eval_every", "eval_on"),
    *("device", "dtype", "out", "resume", "baseline", "progress", "engine", "grid", "swept"),
}
ENGINE = ("lift", "compile", "matmul", "store")
INTERNAL = ("swept", "resume", "progress", "out")
"""Options that do not decide the result and are left out of the record's config."""


def bench() -> None:
    """Entry point of ``cl-bench``."""
    sys.exit(_guarded("cl-bench", _bench, sys.argv[1:]))


def report() -> None:
    """Entry point of ``cl-report``."""
    sys.exit(_guarded("cl-report", _report, sys.argv[1:]))


def _guarded(program: str, main: Any, argv: list[str]) -> int:
    try:
        return int(main(argv))
    except (InputError, _Carrier) as error:
        print(f"{program}: {error}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        print(f"{program}: {_how_to_go_on(program, argv, stop)}", file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has gone (cl-bench | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 2


def _how_to_go_on(program: str, argv: Sequence[str], stop: KeyboardInterrupt) -> str:
    """After Ctrl-C: where what is done lies, and the command that goes on, ready to be pasted."""
    out: Path | None = getattr(stop, "out", None)
    if out is None or not (out / "checkpoint.npz").exists():
        return str(stop) or "stopped"
    several = "-m" in argv or "--multirun" in argv
    base = value_of(argv, "out") or str(out.parent if several else out)
    kept = [a for a in argv if split_override(a)[0] not in ("resume", "out")]
    again = shlex.join([program, *kept, f"out={base}", "resume=true"])
    return f"{stop}; what is done lies in {out}. Go on with: {again}"


# ---------------------------------------------------------------------- cl-bench
def _bench(argv: list[str]) -> int:
    import hydra
    from hydra._internal.utils import get_args_parser

    argv = [re.sub(r"^(?=grid\.)", "++", a) for a in argv]
    # options may stand anywhere; argparse wants them together
    options = [a for a in argv if "=" in a and not a.startswith("-")]
    argv = [a for a in argv if a not in options] + options
    parser = get_args_parser()
    parser.prog = "cl-bench"
    args = parser.parse_args(argv)
    asked = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    if args.config_name or args.config_path:
        raise InputError("--config-name, --config-path: cl-bench has one configuration; add groups with --config-dir")
    if not asked:
        overrides = with_out(args.overrides, bool(args.multirun))
        argv = [a for a in argv if a not in args.overrides] + overrides
        jobs = expand(overrides, args.config_dir, bool(args.multirun))
        keys = {key for job in jobs for key, _ in map(split_override, job) if len({value_of(j, key) for j in jobs}) > 1}
        swept = [g for g in reversed(GROUPS[:2]) if g in keys] + sorted(keys - set(GROUPS[:2]))
        argv.append(f"swept=[{','.join(swept)}]")
        places = [directory_of("", job, swept).name for job in jobs]
        twice = sorted({name for name in places if places.count(name) > 1})
        if twice:
            raise InputError(f"{twice[0]}: the sweep holds this run twice")
        if "out" in swept:
            raise InputError("out: one directory for the whole sweep; each of its runs gets a folder there")
        try:
            for job in jobs:  # every job is built and checked before the first one starts
                config = compose_config([*job, f"swept=[{','.join(swept)}]"], args.config_dir)
                _claimable(make_job(config), config, bool(args.multirun), job)
            _check_baseline(jobs, args.config_dir, swept)
        except InputError:
            raise
        except Exception as error:  # no work has started: whatever a configuration's own objects raise is its mistake
            raise InputError(f"cannot build the run: {type(error).__name__}: {first_line(error)}") from error

    application = hydra.main(config_path="pkg://cl_lib.conf", config_name="config", version_base="1.3")(_task)
    before, sys.argv = sys.argv, [sys.argv[0], *argv]
    try:
        application()
    finally:
        sys.argv = before
    if not asked and args.multirun:
        config = compose_config([o for o in jobs[0] if split_override(o)[0] not in swept], args.config_dir)
        directories = [directory_of(config["out"], job, swept) for job in jobs]
        _compare(directories, Path(config["out"]) / "report.html", config["baseline"])
    return 0


def _task(config: Any) -> None:
    """One job, called by Hydra (in this process, or wherever its launcher sends it)."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    plain: Any = OmegaConf.to_container(config, resolve=True)
    several = hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    directory = (
        directory_of(plain["out"], list(hydra.overrides.task), plain["swept"]) if several else Path(plain["out"])
    )
    # Hydra would print a traceback and exit with 1: errors leave it untouched, as what is no Exception
    with _unhandled():
        record = run_config(plain, directory, list(hydra.overrides.task), hydra.runtime.choices)
    accuracy, forgetting = record.metrics["accuracy"], record.metrics["forgetting"]
    print(f"{directory.name}: accuracy {accuracy}, forgetting {forgetting}" if several else record, flush=True)
    print(f"record: {directory}" if not several else f"  record: {directory}", flush=True)


class _Carrier(BaseException):
    """Takes an `InputError` through Hydra, which handles every Exception itself."""


@contextmanager
def _unhandled() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise _Carrier(error) from error


def run_config(
    config: Mapping[str, Any], directory: Path, overrides: Sequence[str], choices: Mapping[str, Any]
) -> Record:
    """Run a resolved configuration and leave its record in ``directory``."""
    import torch

    from cl_lib.harness import run
    from cl_lib.sinks import make_sink

    job = make_job(config)
    threads = config["engine"]["threads"]
    if threads is None and job.parameters * len(job.replicas) < SMALL:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)
    name = choices.get("strategy", job.name)
    own = {k: v for k, v in config.items() if k not in INTERNAL}
    kept = [o for o in overrides if split_override(o)[0] not in INTERNAL]
    sinks = make_sink(config["logger"], directory, name, own) if not (directory / "record.json").exists() else []
    record = run(
        job.stream,
        job.strategy,
        model=job.model,
        optim=job.optim,
        seeds=job.seeds,
        epochs=job.epochs,
        batch_size=job.batch_size,
        eval_every=job.eval_every,
        eval_on=job.eval_on,
        grid=dict(job.grid),
        device=job.device,
        dtype=job.dtype,
        lift=job.lift,
        compile=job.compile,
        matmul=job.matmul,
        store=job.store,
        out=directory,
        resume=config["resume"],
        progress=config["progress"],
        name=name,
        config=own,
        command=" ".join(["cl-bench", *kept]),
        sinks=sinks,
    )
    for sink in sinks:
        getattr(sink, "finish", lambda: None)()
    return record


def make_job(config: Mapping[str, Any]) -> Job:
    """The checked job that a resolved configuration describes."""
    from cl_lib.config import build
    from cl_lib.job import Job

    missing = sorted(REQUIRED - set(config))
    if missing:
        raise InputError(f"{missing[0]}: is missing from the configuration; every option has a default, leave it there")
    unknown = sorted(set(config) - REQUIRED)
    if unknown:
        raise InputError(f"{unknown[0]}: unknown option{nearest(unknown[0], REQUIRED, more=False)}")
    if not isinstance(config["grid"], Mapping):
        raise InputError(f"grid={config['grid']!r}: name what varies, as in grid.optim.lr=[0.03,0.1]")
    engine = config["engine"]
    if not isinstance(engine, Mapping) or set(engine) != {*ENGINE, "threads"}:
        raise InputError(
            f"engine={engine!r}: must hold {', '.join(ENGINE)} and threads; set engine.{ENGINE[0]}=… and the like"
        )
    for name in ("out", "baseline"):
        if config[name] is not None and not isinstance(config[name], str):
            raise InputError(f"{name}={config[name]!r}: must be a text")
    for name in ("resume", "progress"):
        if not isinstance(config[name], bool):
            raise InputError(f"{name}={config[name]!r}: must be true or false")
    threads = engine["threads"]
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"engine.threads={threads!r}: must be a whole number, 1 or more, or null")
    if threads is not None and threads > 4 * (os.cpu_count() or 1):
        raise InputError(f"engine.threads={threads}: this machine has {os.cpu_count()} cores")
    parts = {name: build(config[name], name) for name in ("stream", "strategy", "model", "optim")}
    options = {k: config[k] for k in ("seeds", "epochs", "batch_size", "eval_every", "eval_on", "device", "dtype")}
    job = Job(**parts, **options, grid=flat(config["grid"]), **{k: engine[k] for k in ENGINE})
    job.check()
    assert job.parameters
    return job


def _claimable(job: Job, config: Mapping[str, Any], several: bool, overrides: Sequence[str]) -> None:
    """Refuse a directory that holds another run before any job starts."""
    from cl_lib.record import CHECKPOINT, RECORD, claim

    directory = directory_of(config["out"], overrides, config["swept"]) if several else Path(config["out"])
    if several and not config["resume"] and any((Path(config["out"]) / n).exists() for n in (RECORD, CHECKPOINT)):
        raise InputError(f"out={config['out']}: already holds a run; choose another directory")
    if directory.exists():
        claim(directory, job.describe(), config["resume"])


def _check_baseline(jobs: Sequence[Sequence[str]], config_dir: str | None, swept: Sequence[str]) -> None:
    """The baseline must be one of the directories, or a strategy that runs once."""
    baseline = compose_config(jobs[0], config_dir)["baseline"]
    directories = [directory_of("", job, swept).name for job in jobs]
    strategies = [value_of(job, "strategy") or "er" for job in jobs]
    if baseline is not None and baseline not in directories and strategies.count(baseline) != 1:
        raise InputError(f"baseline={baseline}: names none of the runs; there are {'; '.join(directories)}")


# ---------------------------------------------------------------------- comparison
def _report(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cl-report", description="One comparison table and one report.html from records made at different times."
    )
    parser.add_argument("directories", nargs="+", metavar="DIR", help="a run's directory, or one that holds several")
    parser.add_argument("--out", default="report.html", help="where the report goes (default: report.html)")
    parser.add_argument(
        "--baseline", default=None, help="strategy that the others are compared with (default: the first)"
    )
    args = parser.parse_args(argv)
    _compare(_records(args.directories), Path(args.out), args.baseline)
    return 0


def _records(directories: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for name in directories:
        path = Path(name)
        if not path.exists():
            raise InputError(f"{name}: there is no such directory")
        own = [path] if (path / "record.json").exists() else sorted(p.parent for p in path.glob("**/record.json"))
        if not own:
            raise InputError(f"{name}: holds no record.json; give the directory of a finished run")
        found += [p for p in own if p not in found]
    return found


def _compare(directories: Sequence[Path], target: Path, baseline: str | None) -> None:
    from cl_lib.record import Record
    from cl_lib.report.html import write_report
    from cl_lib.report.table import as_text, comparison, notes

    records = [Record.load(directory) for directory in directories]
    print(as_text(comparison(records, baseline)))
    for note in notes(records, baseline):
        print(f"note: {note}")
    print(f"report: {write_report(records, target, baseline=baseline)}")
