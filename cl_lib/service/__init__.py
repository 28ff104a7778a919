"""A model in service: backtests of update policies, bounds, audits and gates, all from one record."""

from cl_lib.service.backtest import Backtest, Tuned, table
from cl_lib.service.bounds import best_schedules, random_schedules
from cl_lib.service.expectations import read_expectations
from cl_lib.service.gating import gate
from cl_lib.service.history import history_of
from cl_lib.service.requirements import Expectations
from cl_lib.service.simulation import backtest
from cl_lib.service.tuning import tune
from cl_lib.service.verdict import Check, Verdict

__all__ = [
    "Backtest",
    "Check",
    "Expectations",
    "Tuned",
    "Verdict",
    "backtest",
    "best_schedules",
    "gate",
    "history_of",
    "random_schedules",
    "read_expectations",
    "table",
    "tune",
]
