"""A model in service: backtests of update policies, bounds, audits and recalibration, all from one record."""

from cl_lib.service.auditing import Audit, Flips, audit, compare, detectable_drop, mcnemar
from cl_lib.service.backtest import Backtest, Tuned, table
from cl_lib.service.bounds import best_schedules, random_schedules
from cl_lib.service.history import history_of
from cl_lib.service.recalibration import Recalibration, recalibrate
from cl_lib.service.simulation import backtest
from cl_lib.service.tuning import tune

__all__ = [
    "Audit",
    "Backtest",
    "Flips",
    "Recalibration",
    "Tuned",
    "audit",
    "backtest",
    "best_schedules",
    "compare",
    "detectable_drop",
    "history_of",
    "mcnemar",
    "random_schedules",
    "recalibrate",
    "table",
    "tune",
]
