"""A model in service: backtests of update policies, bounds, audits, gates and recalibration, all from one record."""

from cl_lib.service.auditing import Audit, audit
from cl_lib.service.backtest import Backtest, Tuned, table
from cl_lib.service.bounds import best_schedules, random_schedules
from cl_lib.service.expectations import read_expectations
from cl_lib.service.flips import Flips, compare, detectable_drop, mcnemar
from cl_lib.service.gate_curves import GateCurve, gate_curve
from cl_lib.service.gating import gate
from cl_lib.service.history import history_of
from cl_lib.service.recalibration import Recalibration, recalibrate
from cl_lib.service.requirements import Expectations
from cl_lib.service.simulation import backtest
from cl_lib.service.tuning import tune
from cl_lib.service.verdict import Check, Verdict

__all__ = [
    "Audit",
    "Backtest",
    "Check",
    "Expectations",
    "Flips",
    "GateCurve",
    "Recalibration",
    "Tuned",
    "Verdict",
    "audit",
    "backtest",
    "best_schedules",
    "compare",
    "detectable_drop",
    "gate",
    "gate_curve",
    "history_of",
    "mcnemar",
    "random_schedules",
    "read_expectations",
    "recalibrate",
    "table",
    "tune",
]
