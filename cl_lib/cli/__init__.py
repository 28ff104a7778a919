"""The command line: ``cl-bench`` runs jobs, ``cl-report`` compares records, ``cl-gate`` decides which may serve."""

from cl_lib.cli.gating import gate
from cl_lib.cli.main import bench, report, run_config

__all__ = ["bench", "gate", "report", "run_config"]
