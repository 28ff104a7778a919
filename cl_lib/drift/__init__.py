"""Has the world changed? Two-sample tests with effect sizes, sequential detectors, watches, and explanations.

Detectors need the extra ``drift`` (river), which is imported when they are first used.
"""

from cl_lib.drift.alarms import adjusted, calibrate, signals
from cl_lib.drift.explanation import Explanation, decompose, explain
from cl_lib.drift.sequential import DETECTORS, detect
from cl_lib.drift.two_sample import TwoSample, chi_square, chi_squares, kolmogorov_smirnov, mean_shift, mmd
from cl_lib.drift.watch import Confidence, Errors, Inputs, Labels, PredictedLabels, Watch

__all__ = [
    "DETECTORS",
    "Confidence",
    "Errors",
    "Explanation",
    "Inputs",
    "Labels",
    "PredictedLabels",
    "TwoSample",
    "Watch",
    "adjusted",
    "calibrate",
    "chi_square",
    "chi_squares",
    "decompose",
    "detect",
    "explain",
    "kolmogorov_smirnov",
    "mean_shift",
    "mmd",
    "signals",
]
