"""The command line: ``cl-bench`` runs jobs, ``cl-report`` compares records, ``cl-backtest`` tests update policies."""

from cl_lib.cli.backtest import backtest
from cl_lib.cli.main import bench, report, run_config

__all__ = ["backtest", "bench", "report", "run_config"]
