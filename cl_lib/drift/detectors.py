"""The sequential detectors of river: their options, and how they are built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from cl_lib.errors import InputError, nearest
from cl_lib.validation import check_choice, check_flag, check_whole, typed


class Detector(NamedTuple):
    """One detector of river."""

    classes: tuple[str, ...]
    """Name in river; it differs between releases."""
    options: dict[str, Any]
    """With their defaults."""
    values: str = "numbers"
    """What it is defined for: numbers, [0, 1], or bits."""


DETECTORS = {
    "adwin": Detector(
        ("ADWIN",), {"delta": 0.002, "clock": 32, "max_buckets": 5, "min_window_length": 5, "grace_period": 10}
    ),
    "ddm": Detector(("DDM",), {"warm_start": 300, "drift_threshold": 2.5}, "bits"),
    "eddm": Detector(("EDDM",), {"warm_start": 30, "alpha": 0.95, "beta": 0.9}, "bits"),
    "hddm_a": Detector(("HDDMA", "HDDM_A"), {"drift_confidence": 0.001, "two_sided_test": False}, "[0, 1]"),
    "hddm_w": Detector(
        ("HDDMW", "HDDM_W"), {"drift_confidence": 0.001, "lambda_val": 0.05, "two_sided_test": False}, "[0, 1]"
    ),
    "kswin": Detector(("KSWIN",), {"alpha": 0.005, "window_size": 100, "stat_size": 30, "seed": 0}),
    "page_hinkley": Detector(
        ("PageHinkley",), {"min_instances": 30, "delta": 0.02, "threshold": 40.0, "alpha": 0.9999, "mode": "both"}
    ),
}
"""Detectors by name. Defaults of ddm and page_hinkley were chosen from measurements, the others are river's."""
UNBOUNDED = {("ddm", "drift_threshold"), ("page_hinkley", "delta"), ("page_hinkley", "threshold")}
"""Options in [0, inf); other real options lie in (0, 1]."""


def check_options(detector: str, given: Mapping[str, Any]) -> None:
    """Raise `InputError` for options that a detector does not have, and for values out of range."""
    known = DETECTORS[detector].options
    for name, value in given.items():
        if name not in known:
            hint = nearest(name, known, more=False)
            raise InputError(f"{name}={value!r}: {detector} has the options {', '.join(known)}{hint}")
        if name == "mode":
            check_choice(name, value, ("up", "down", "both"))
        elif isinstance(known[name], float):
            number = typed(value, float, name)
            if (detector, name) in UNBOUNDED:
                if not 0 <= number < math.inf:
                    raise InputError(f"{name}={value!r}: must be 0 or more")
            elif not 0 < number <= 1:
                raise InputError(f"{name}={value!r}: must lie above 0 and be at most 1")
        elif isinstance(known[name], bool):
            check_flag(name, value)
        else:
            check_whole(name, value, 0 if name == "seed" else 1)


def build(detector: str, options: Mapping[str, Any]) -> Any:
    """A detector of river with ``options`` in place of its defaults."""
    module = _river()
    for name in DETECTORS[detector].classes:
        kind = getattr(module, name, None) or getattr(module.binary, name, None)
        if kind is not None:
            break
    else:
        raise InputError(f"detector={detector!r}: this version of river does not have it; pip install 'cl-lib[drift]'")
    try:
        return kind(**(DETECTORS[detector].options | dict(options)))
    except ValueError as error:  # options that contradict each other
        raise InputError(f"{detector}: {error}") from None


def _river() -> ModuleType:
    try:
        from river import drift  # takes seconds to import
    except ImportError:
        raise InputError("drift: river is not installed; pip install 'cl-lib[drift]'") from None
    return drift
