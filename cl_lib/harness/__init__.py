"""The harness: `run` trains a strategy on a stream and returns its record."""

from cl_lib.harness.job import Job
from cl_lib.harness.runner import iter_run, run, run_job
from cl_lib.harness.session import Interrupted, Session

__all__ = ["Interrupted", "Job", "Session", "iter_run", "run", "run_job"]
