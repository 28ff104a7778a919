"""Runs: a stream and a strategy in, rows and a record out."""

from cl_lib.harness.runner import iter_run, run

__all__ = ["iter_run", "run"]
