"""``python -m cl_lib.cli`` runs ``cl-bench``."""

from cl_lib.cli.main import bench

bench()
