"""The command line: ``cl-bench`` runs, ``cl-report`` compares."""

from cl_lib.cli.main import bench, report, run_config

__all__ = ["bench", "report", "run_config"]
