"""Curvature of the loss and sensitivity of the output with respect to the parameters."""

from cl_lib.curvature.algebra import inner, quadratic
from cl_lib.curvature.fisher import diagonal_fisher
from cl_lib.curvature.gram import gradient_gram
from cl_lib.curvature.sensitivity import output_sensitivity

__all__ = ["diagonal_fisher", "gradient_gram", "inner", "output_sensitivity", "quadratic"]
