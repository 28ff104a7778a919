"""A model in service: backtests of update policies, bounds, audits and gates, all from one record."""

from cl_lib.service.backtest import Backtest, Tuned, table
from cl_lib.service.bounds import best_schedules, random_schedules
from cl_lib.service.history import history_of
from cl_lib.service.simulation import backtest
from cl_lib.service.tuning import tune

__all__ = ["Backtest", "Tuned", "backtest", "best_schedules", "history_of", "random_schedules", "table", "tune"]
