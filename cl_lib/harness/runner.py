"""`run` and `iter_run`, which train a strategy on a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cl_lib.engine.optim import Optimiser
from cl_lib.engine.rows import Store
from cl_lib.engine.weights import ModelFactory
from cl_lib.errors import InputError
from cl_lib.files import plain
from cl_lib.harness.dispatch import Logging, check_loggers
from cl_lib.harness.job import Job, LearnerFactory
from cl_lib.harness.reduction import make_record
from cl_lib.harness.session import Session
from cl_lib.loggers import Logger
from cl_lib.policies.policy import Policy
from cl_lib.record import Record, writing
from cl_lib.record.directory import keep
from cl_lib.strategies.strategy import Strategy
from cl_lib.streams.stream import Stream
from cl_lib.types import Learner, Row


def iter_run(
    stream: Stream,
    strategy: Strategy | LearnerFactory | Learner,
    *,
    model: nn.Module | ModelFactory | None = None,
    optim: Optimiser | None = None,
    seeds: int | Sequence[int] = Job.seeds,
    epochs: int | Sequence[int] = Job.epochs,
    batch_size: int = Job.batch_size,
    eval_every: int = Job.eval_every,
    eval_on: Literal["test", "valid"] = Job.eval_on,
    grid: Mapping[str, Sequence[float]] | None = None,
    device: str = Job.device,
    dtype: Literal["float32", "float64"] = Job.dtype,
    lift: Literal["auto", "always", "never"] = Job.lift,
    compile: bool = Job.compile,
    matmul: Literal["float32", "tf32", "bf16"] = Job.matmul,
    store: Store = Job.store,
    save_predictions: bool = Job.save_predictions,
    policy: Policy | None = None,
) -> Iterator[Row]:
    """Run with the options of `run`, yielding a `Row` at each evaluation; for use in a user's loop.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> for row in cl_lib.iter_run(stream, cl_lib.strategies.ER(), seeds=2, eval_every=5):
    ...     print(row.experience, row.step, row.accuracy.shape)
    0 0 (2, 5)
    5 136 (2, 5)
    """
    job = Job(
        stream,
        strategy,
        **_given(model=model, optim=optim, grid=grid),
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        eval_every=eval_every,
        eval_on=eval_on,
        device=device,
        dtype=dtype,
        lift=lift,
        compile=compile,
        matmul=matmul,
        store=store,
        save_predictions=save_predictions,
        policy=policy,
    )
    yield from Session(job)


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None; other options keep the defaults of `Job`."""
    return {name: value for name, value in options.items() if value is not None}


def run(
    stream: Stream,
    strategy: Strategy | LearnerFactory | Learner,
    *,
    model: nn.Module | ModelFactory | None = None,
    optim: Optimiser | None = None,
    seeds: int | Sequence[int] = Job.seeds,
    epochs: int | Sequence[int] = Job.epochs,
    batch_size: int = Job.batch_size,
    eval_every: int = Job.eval_every,
    eval_on: Literal["test", "valid"] = Job.eval_on,
    grid: Mapping[str, Sequence[float]] | None = None,
    device: str = Job.device,
    dtype: Literal["float32", "float64"] = Job.dtype,
    lift: Literal["auto", "always", "never"] = Job.lift,
    compile: bool = Job.compile,
    matmul: Literal["float32", "tf32", "bf16"] = Job.matmul,
    store: Store = Job.store,
    save_predictions: bool = Job.save_predictions,
    policy: Policy | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    name: str | None = None,
    config: dict[str, Any] | None = None,
    command: str | None = None,
    loggers: Sequence[Logger] = (),
    sinks: Sequence[Callable[[Row], None]] = (),
) -> Record:
    """Train on a stream with all seeds at once, evaluate after every experience, and return the record.

    Parameters
    ----------
    stream : Stream
    strategy : Strategy, or Learner, or function from a seed to a Learner
        A `Strategy` runs as a population; a plain `Learner` is looped over the seeds.
    model : nn.Module or callable, default ``MLP.factory()``
        ``model(shape, classes) -> nn.Module``, called once for each seed with torch's random numbers drawn from it. A
        module is copied: all seeds start from its weights; frozen parameters and their statistics do not change.
    optim : SGD or Adam, default ``SGD(lr=0.1)``
    seeds : int or sequence of int, default 1
        A number of seeds (0, 1, …) or the seeds themselves.
    epochs : int or sequence of int, default 1
        Passes over each experience, or one number for each experience.
    batch_size : int, default 10
    eval_every : int, default 1
        Evaluate after every ``eval_every`` experiences, and after the last.
    eval_on : {"test", "valid"}, default "test"
        ``"valid"``: the samples that the stream held out, for choosing hyper-parameters.
    grid : dict, optional
        ``{"strategy.lam": [1, 10, 100], "optim.lr": [...]}``: crossed with the seeds, trained as one population.
    device : {"auto", "cpu", "cuda"}
    dtype : {"float32", "float64"}
    lift : {"auto", "always", "never"}
        Whether replicas run as one program; ``auto``: from two replicas on, except convolutional networks on a CPU.
    compile : bool, default False
        Compile the traced step (takes seconds, and makes steps faster).
    matmul : {"float32", "tf32", "bf16"}
        Precision of matrix products in a training step: full, with inputs rounded to ten bits of mantissa (CUDA only),
        or with the network's forward and backward pass in bfloat16. Parameters, losses, updates and evaluations stay
        float32.
    store : {"auto", "resident", "streamed"}
        Where inputs are stored: all on the device, or in their original place, read a block of steps ahead; ``auto``:
        memory-mapped inputs are streamed, others are resident. Results are the same.
    save_predictions : bool, default False
        Keep the prediction of every test sample at every evaluation, as ``record.predictions`` and in
        ``predictions.npz``: 5 bytes per replica, evaluation and sample before compression.
    policy : Policy, optional
        Train only the windows for which a policy asks (`cl_lib.policies`): replicas that decline an update get their
        state back. Row i of the matrices then is the model that serves after window i. For streams by time.
    out : path, optional
        Directory for the record; must not hold another run.
    resume : bool, default False
        Continue from the checkpoint in ``out``, or return the record if it is there already.
    progress : bool, default False
        Show a progress bar.
    name : str, optional
        The strategy's name in the record; default: the name of its class in lower case.
    loggers : sequence of Logger
        Each logger gets every `Row` and is closed when the run ends or raises (`cl_lib.loggers`). If a logger raises, a
        warning is issued and it gets no more rows; the run continues.
    sinks : sequence of callables
        Deprecated: functions that are called with each row; use ``loggers``.

    Returns
    -------
    Record

    Raises
    ------
    InputError
        Before training starts, for every error that can be detected then.
    NotWritten
        After training, if ``out`` cannot be written: an `InputError` whose ``record`` is the result; an existing
        checkpoint is kept.
    Interrupted
        On Ctrl-C, after the state has been saved to ``out``.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=3)
    >>> len(record.metrics["accuracy"].per_seed)
    3
    """
    with Logging(check_loggers(loggers, sinks)) as logging:
        job = Job(
            stream,
            strategy,
            **_given(model=model, optim=optim, grid=grid),
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,
            eval_every=eval_every,
            eval_on=eval_on,
            device=device,
            dtype=dtype,
            lift=lift,
            compile=compile,
            matmul=matmul,
            store=store,
            save_predictions=save_predictions,
            policy=policy,
        )
        directory = Path(out) if out is not None else None
        return _run(job, directory, resume, progress, name, config, command, logging.log)


def run_job(
    job: Job,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: bool = False,
    name: str | None = None,
    config: dict[str, Any] | None = None,
    command: str | None = None,
    loggers: Sequence[Logger] = (),
) -> Record:
    """Run a `Job` and return its record; the options are those of `run`."""
    with Logging(check_loggers(loggers)) as logging:
        return _run(job, out, resume, progress, name, config, command, logging.log)


def _run(
    job: Job,
    directory: Path | None,
    resume: bool,
    progress: bool,
    name: str | None,
    config: dict[str, Any] | None,
    command: str | None,
    log: Callable[[Row], None],
) -> Record:
    if resume and directory is None:
        raise InputError("resume=True: needs out, the directory of the run to resume")
    job.check()
    strings = {"name": name, "command": command}
    for label, string in strings.items():
        if not isinstance(plain(string, label), str | None):
            raise InputError(f"{label}={string!r}: must be a string")
    config = plain(config, "config")
    if not isinstance(config, dict | None):
        raise InputError(f"config={config!r}: must be a dictionary")
    plain([column.labels for column in job.stream.data.test.columns.values()], "stream.data.test.columns")
    with nullcontext() if directory is None else writing(directory, job.describe(), resume) as there:
        if isinstance(there, Record):
            return there
        session = Session(job, directory, resume, progress)
        session.lock = there
        with session._guard():  # so that Ctrl-C while a row is logged also waits until the state is consistent
            for row in session:
                log(row)
        job.check_unchanged()
        record = make_record(session.result(), name or job.name, config, command)
        if directory is not None and there is not None:
            keep(record, directory, there)
    return record
