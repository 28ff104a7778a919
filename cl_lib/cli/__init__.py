"""The command line: ``cl-bench`` runs jobs, ``cl-report`` compares records."""

from cl_lib.cli.main import bench, report, run_config

__all__ = ["bench", "report", "run_config"]
