"""Construction and validation of jobs from configurations, before any training starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_lib.cli.overrides import compose_all, directory_of, first_line, value_of
from cl_lib.cli.sweep import finished, unfinished
from cl_lib.errors import InputError, nearest
from cl_lib.validation import check_flag, check_whole, flat

if TYPE_CHECKING:
    from cl_lib.harness.job import Job
    from cl_lib.loggers import Logger

REQUIRED = {
    *("stream", "strategy", "model", "optim", "logger", "seeds", "epochs", "batch_size", "eval_every", "eval_on"),
    *("device", "dtype", "out", "resume", "baseline", "progress", "engine", "grid", "swept"),
    *("save_predictions", "policy"),
}
OPTIONS = ("seeds", "epochs", "batch_size", "eval_every", "eval_on", "device", "dtype", "save_predictions")
ENGINE = ("lift", "compile", "matmul", "store")


def check(
    jobs: Sequence[Sequence[str]],
    completed: Sequence[Sequence[str]],
    config_dir: str | None,
    several: bool,
    searched: bool,
    swept: Sequence[str],
) -> list[dict[str, Any]]:
    """Compose, build and check all jobs before the first starts; return their configurations."""
    if "out" in swept:
        raise InputError("out: must be one directory for the whole sweep; each run has a subdirectory in it")
    names = [directory_of("", job, swept).name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{twice[0]}: the sweep contains this run twice")
    try:
        configs = compose_all(completed, config_dir)
        loggers: list[Any] = []
        for config, name in zip(configs, names, strict=True):
            job = make_job(config)
            directory = Path(config["out"]) / name if several else Path(config["out"])
            if config["logger"] not in loggers:
                make_logger(config["logger"], directory, job.name, config).close()
                loggers.append(config["logger"])
            if not searched:
                _claimable(job, config, directory)
        if several:
            _check_sweep(configs[0], searched)
            baseline = configs[0]["baseline"]
            strategies = [value_of(job, "strategy") or "er" for job in jobs]
            if baseline is not None and not searched and baseline not in names and strategies.count(baseline) != 1:
                raise InputError(f"baseline={baseline}: must be one of the runs: {'; '.join(names)}")
    except InputError:
        raise
    except Exception as error:  # nothing has run: errors of the configured objects are configuration errors
        raise InputError(f"cannot build the run: {type(error).__name__}: {first_line(error)}") from error
    return configs


def make_logger(options: Any, directory: Path, name: str, config: Mapping[str, Any]) -> Logger:
    """Build a logger from its configuration; a partial is called with the arguments of the run that it accepts."""
    from inspect import signature

    from cl_lib.cli.build import build
    from cl_lib.harness.dispatch import check_loggers

    logger = build(options, "logger")
    if isinstance(options, Mapping) and options.get("_partial_"):
        known = {"directory": directory, "name": name, "config": config}
        logger = logger(**{k: v for k, v in known.items() if k in signature(logger).parameters and k not in options})
    return check_loggers([logger])[0]


def resumes(config: Mapping[str, Any]) -> bool:
    """Whether to resume the run in ``out``: with ``resume=true``, or if Slurm has restarted this job."""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return config["resume"] or (restarts.isdigit() and int(restarts) > 0)


def has_policy(config: Mapping[str, Any]) -> bool:
    """Whether the configuration names a policy; with ``policy=none`` every window is trained."""
    policy = config["policy"]
    return not isinstance(policy, Mapping) or policy.get("_target_") is not None


def make_job(config: Mapping[str, Any]) -> Job:
    """Build and check the job of a resolved configuration."""
    from cl_lib.cli.build import build
    from cl_lib.harness.job import Job

    missing = sorted(REQUIRED - set(config))
    if missing:
        raise InputError(f"{missing[0]}: is missing from the configuration; do not delete the defaults of options")
    unknown = sorted(set(config) - REQUIRED)
    if unknown:
        raise InputError(f"{unknown[0]}: unknown option{nearest(unknown[0], REQUIRED, more=False)}")
    if not isinstance(config["grid"], Mapping):
        raise InputError(f"grid={config['grid']!r}: must name hyper-parameters, such as grid.optim.lr=[0.03,0.1]")
    engine = config["engine"]
    if not isinstance(engine, Mapping) or set(engine) != {*ENGINE, "threads"}:
        raise InputError(
            f"engine={engine!r}: must contain {', '.join(ENGINE)} and threads; set options such as engine.{ENGINE[0]}=…"
        )
    for name in ("out", "baseline"):
        if config[name] is not None and not isinstance(config[name], str):
            raise InputError(f"{name}={config[name]!r}: must be a string")
        if config[name] is not None and not config[name].strip():
            raise InputError(f"{name}={config[name]!r}: must not be blank")
    for name in ("resume", "progress"):
        check_flag(name, config[name])
    threads = engine["threads"]
    if threads is not None:
        check_whole("engine.threads", threads, 1)
    if threads is not None and threads > 4 * (os.cpu_count() or 1):
        raise InputError(f"engine.threads={threads}: this machine has {os.cpu_count()} cores")
    parts = {name: build(config[name], name) for name in ("stream", "strategy", "model", "optim")}
    options = {k: config[k] for k in OPTIONS}
    if has_policy(config):
        parts["policy"] = build(config["policy"], "policy")
    job = Job(**parts, **options, grid=flat(config["grid"]), **{k: engine[k] for k in ENGINE})
    job.check()
    assert job.parameters
    return job


def _claimable(job: Job, config: Mapping[str, Any], directory: Path) -> None:
    """Raise `InputError` if a directory contains another run, before any job starts."""
    from cl_lib.record import claim

    try:
        there = directory.exists()
    except OSError as error:
        raise InputError(f"out={_short(config['out'])}: cannot be a directory ({error.strerror})") from error
    if there:
        claim(directory, job.describe(), resumes(config))


def _check_sweep(config: Mapping[str, Any], searched: bool) -> None:
    """Create the directory of a sweep; raise `InputError` if it contains a run or cannot be created."""
    from cl_lib.report.html import check_target

    out = Path(config["out"])
    directories = [out, *(p for p in out.glob("*") if searched)]
    if not resumes(config) and any(finished(p) or unfinished(p) for p in directories):
        raise InputError(f"out={out}: already holds a run; choose another directory")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={_short(out)}: cannot be created as a directory ({error.strerror})") from error
    check_target(out / "report.html")


def _short(name: object) -> str:
    string = str(name)
    return string if len(string) <= 80 else f"{string[:80]}…"
