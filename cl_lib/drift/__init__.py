"""Has the world changed? Two-sample tests with effect sizes, and sequential detectors."""

from cl_lib.drift.detectors import DETECTORS
from cl_lib.drift.sequential import detect
from cl_lib.drift.two_sample import TwoSample, chi_square, chi_squares, kolmogorov_smirnov, mean_shift, mmd

__all__ = ["DETECTORS", "TwoSample", "chi_square", "chi_squares", "detect", "kolmogorov_smirnov", "mean_shift", "mmd"]
