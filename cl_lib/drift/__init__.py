"""Has the world changed? Two-sample tests with effect sizes, and sequential detectors."""

from cl_lib.drift.sequential import DETECTORS, detect

__all__ = ["DETECTORS", "detect"]
