"""``python -m cl_lib.cli``: as ``cl-bench``."""

from cl_lib.cli.main import bench

bench()
