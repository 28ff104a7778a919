"""`run` and `iter_run`: a stream and a strategy in, rows and a record out."""

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
) -> Iterator[Row]:
    """As `run`, with the same options, but yield a `Row` at each evaluation: a run inside a loop of one's own.

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
    )
    yield from Session(job)


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None: the others keep the defaults of `Job`."""
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
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    name: str | None = None,
    config: dict[str, Any] | None = None,
    command: str | None = None,
    loggers: Sequence[Logger] = (),
    sinks: Sequence[Callable[[Row], None]] = (),
) -> Record:
    """Train on a stream with all seeds at once, evaluate at every experience end, return the record.

    Parameters
    ----------
    stream : Stream
    strategy : Strategy, or Learner, or function from a seed to a Learner
        A `Strategy` runs as a population; a plain `Learner` is looped over the seeds.
    model : nn.Module or callable, default ``MLP.factory()``
        ``model(shape, classes) -> nn.Module``, called once for each seed with torch's random numbers drawn from it. A
        module is taken as it is: all seeds start from its weights, frozen parameters and their statistics stay.
    optim : SGD or Adam, default ``SGD(lr=0.1)``
    seeds : int or sequence of int, default 1
        A count (0, 1, …) or the seeds themselves.
    epochs : int or sequence of int, default 1
        Passes over each experience, or one number for each.
    batch_size : int, default 10
    eval_every : int, default 1
        Evaluate after each so many experiences, and after the last.
    eval_on : {"test", "valid"}, default "test"
        ``"valid"``: what the stream held out, for choosing hyper-parameters.
    grid : dict, optional
        ``{"strategy.lam": [1, 10, 100], "optim.lr": [...]}``: crossed with the seeds, trained as one population.
    device : {"auto", "cpu", "cuda"}
    dtype : {"float32", "float64"}
    lift : {"auto", "always", "never"}
        Whether replicas run as one program; ``auto``: from two on, but for convolutional networks on a CPU.
    compile : bool, default False
        Compile the traced step (seconds of compilation, a faster step).
    matmul : {"float32", "tf32", "bf16"}
        How a training step multiplies matrices: in full, with inputs rounded to ten bits of mantissa (CUDA only), or
        with the network's forward and backward pass in bfloat16. Parameters, losses, updates and evaluations stay
        float32.
    store : {"auto", "resident", "streamed"}
        Where inputs are: all on the device, or where they were, read a block of steps ahead; ``auto``: those that are
        memory-mapped are streamed, others resident. Results are the same.
    out : path, optional
        Directory for the record; must not hold another run.
    resume : bool, default False
        Go on from the checkpoint in ``out``, or return the record that is already there.
    progress : bool, default False
        Show a progress bar.
    name : str, optional
        The strategy's name in the record; default its class's, in lower case.
    loggers : sequence of Logger
        Each gets every `Row`, and is closed at the end, whatever that is (`cl_lib.loggers`). One that raises is warned
        of and gets no more rows; the run goes on.
    sinks : sequence of callables
        Deprecated: functions of a row, as loggers.

    Returns
    -------
    Record

    Raises
    ------
    InputError
        For anything that can be known to fail, before work starts.
    NotWritten
        An `InputError` after the work, when ``out`` cannot be written: its ``record`` is the result, and a checkpoint
        that is there stays.
    Interrupted
        On Ctrl-C, after the state was saved to ``out``.

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
    """As `run`, for a `Job`."""
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
        raise InputError("resume=True: needs out, the directory of the run to go on with")
    job.check()
    texts = {"name": name, "command": command}
    for label, text in texts.items():
        if not isinstance(plain(text, label), str | None):
            raise InputError(f"{label}={text!r}: must be a string")
    config = plain(config, "config")
    if not isinstance(config, dict | None):
        raise InputError(f"config={config!r}: must be a dictionary")
    plain([column.labels for column in job.stream.data.test.columns.values()], "stream.data.test.columns")
    with nullcontext() if directory is None else writing(directory, job.describe(), resume) as there:
        if isinstance(there, Record):
            return there
        session = Session(job, directory, resume, progress)
        session.lock = there
        with session._guard():  # so that Ctrl-C while a row is logged also waits for the end of a step
            for row in session:
                log(row)
        job.check_unchanged()
        record = make_record(session.result(), name or job.name, config, command)
        if directory is not None and there is not None:
            keep(record, directory, there)
    return record
