"""Sequential change detectors on a series of errors or measurements, by way of river."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.drift.samples import numbers
from cl_lib.errors import InputError, nearest
from cl_lib.validation import check_whole, typed


class _Detector(NamedTuple):
    names: tuple[str, ...]
    """Of the class in river, whose releases differ."""
    options: dict[str, Any]
    """With the defaults."""
    values: str = "numbers"
    """What it is defined for: numbers, [0, 1] or bits."""


DETECTORS = {
    "adwin": _Detector(
        ("ADWIN",), {"delta": 0.002, "clock": 32, "max_buckets": 5, "min_window_length": 5, "grace_period": 10}
    ),
    "ddm": _Detector(("DDM",), {"warm_start": 300, "drift_threshold": 2.5}, "bits"),
    "eddm": _Detector(("EDDM",), {"warm_start": 30, "alpha": 0.95, "beta": 0.9}, "bits"),
    "hddm_a": _Detector(("HDDMA", "HDDM_A"), {"drift_confidence": 0.001, "two_sided_test": False}, "[0, 1]"),
    "hddm_w": _Detector(
        ("HDDMW", "HDDM_W"), {"drift_confidence": 0.001, "lambda_val": 0.05, "two_sided_test": False}, "[0, 1]"
    ),
    "kswin": _Detector(("KSWIN",), {"alpha": 0.005, "window_size": 100, "stat_size": 30, "seed": 0}),
    "page_hinkley": _Detector(
        ("PageHinkley",), {"min_instances": 30, "delta": 0.02, "threshold": 40.0, "alpha": 0.9999, "mode": "both"}
    ),
}
"""Detectors by name, with their options."""
FRACTIONS = {"alpha", "beta", "drift_confidence", "lambda_val"}
"""Options in (0, 1)."""
