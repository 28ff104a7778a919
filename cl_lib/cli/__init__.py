"""The command line: ``cl-bench`` runs jobs, ``cl-report`` compares records, ``cl-backtest`` simulates update policies,
and ``cl-gate`` decides whether a model may serve."""

from cl_lib.cli.backtest import backtest
from cl_lib.cli.gating import gate
from cl_lib.cli.main import bench, report, run_config

__all__ = ["backtest", "bench", "gate", "report", "run_config"]
