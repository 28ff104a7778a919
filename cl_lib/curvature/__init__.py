"""Curvature: the diagonal Fisher information."""

from cl_lib.curvature.fisher import diagonal_fisher

__all__ = ["diagonal_fisher"]
