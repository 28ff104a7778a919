"""Continual learning, planned and traced: whole populations of seeds in one run, one honest report.

>>> import cl_lib
>>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
>>> record = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=3)
>>> sorted(record.metrics)[:3]
['accuracy', 'adaptive_ece', 'anytime_accuracy']
"""

from cl_lib import (
    checks,
    datasets,
    drift,
    loggers,
    metrics,
    models,
    policies,
    report,
    service,
    sinks,
    stats,
    strategies,
    streams,
)
from cl_lib._version import __version__
from cl_lib.checks import check_strategy, check_stream
from cl_lib.engine.optim import SGD, Adam, Schedule
from cl_lib.errors import InputError
from cl_lib.harness import Interrupted, Job, Session, iter_run, run
from cl_lib.memory.store import Memory
from cl_lib.policies import check_policy
from cl_lib.record import Metric, Record
from cl_lib.service import audit, backtest, recalibrate
from cl_lib.types import Row

__all__ = [
    "SGD",
    "Adam",
    "InputError",
    "Interrupted",
    "Job",
    "Memory",
    "Metric",
    "Record",
    "Row",
    "Schedule",
    "Session",
    "__version__",
    "audit",
    "backtest",
    "check_policy",
    "check_strategy",
    "check_stream",
    "checks",
    "datasets",
    "drift",
    "iter_run",
    "loggers",
    "metrics",
    "models",
    "policies",
    "recalibrate",
    "report",
    "run",
    "service",
    "sinks",
    "stats",
    "strategies",
    "streams",
]
