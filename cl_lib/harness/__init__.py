"""Runs: a stream and a strategy in, rows and a record out."""

from cl_lib.harness.job import Job
from cl_lib.harness.runner import iter_run, run, run_job
from cl_lib.harness.session import Interrupted, Session

__all__ = ["Interrupted", "Job", "Session", "iter_run", "run", "run_job"]
