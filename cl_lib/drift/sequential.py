"""Sequential change detectors on a series of errors or measurements, by way of river."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_lib.drift.samples import Floats, numbers
from cl_lib.errors import InputError, nearest
from cl_lib.validation import check_choice, check_whole, typed


class _Detector(NamedTuple):
    classes: tuple[str, ...]
    """Name in river; it differs between releases."""
    options: dict[str, Any]
    """With their defaults."""
    values: str = "numbers"
    """What it is defined for: numbers, [0, 1], or bits."""


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
"""Detectors by name. Defaults of ddm and page_hinkley were chosen from measurements, the others are river's."""
UNBOUNDED = {("ddm", "drift_threshold"), ("page_hinkley", "delta"), ("page_hinkley", "threshold")}
"""Options in [0, inf); other real options lie in (0, 1]."""


def detect(values: ArrayLike, detector: str = "adwin", rest: int = 0, **options: Any) -> NDArray[np.int64]:
    """Positions at which a sequential detector raises an alarm."""
    check_choice("detector", detector, sorted(DETECTORS))
    check_whole("rest", rest, 0)
    known = DETECTORS[detector]
    series = _series(values, known.values)
    model = _build(detector, _options(detector, options))
    alarms: list[int] = []
    for position, value in enumerate(series.tolist()):
        model.update(value)
        if model.drift_detected and (not alarms or position > alarms[-1] + rest):
            alarms.append(position)
    return np.array(alarms, dtype=np.int64)


def _series(values: ArrayLike, kind: str) -> Floats:
    series = numbers("values", values)
    if kind == "bits":
        wrong, right = (series != 0) & (series != 1), "0 or 1 (an error)"
    elif kind == "[0, 1]":
        wrong, right = (series < 0) | (series > 1), "in [0, 1]"
    else:
        return series
    if wrong.any():
        raise InputError(f"values[{wrong.argmax()}]={series[wrong.argmax()]:g}: must be {right} for this detector")
    return series


def _options(detector: str, given: dict[str, Any]) -> dict[str, Any]:
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
                if not 0 <= number < np.inf:
                    raise InputError(f"{name}={value!r}: must be 0 or more")
            elif not 0 < number <= 1:
                raise InputError(f"{name}={value!r}: must lie above 0 and be at most 1")
        elif isinstance(known[name], bool):
            typed(value, bool, name)
        else:
            check_whole(name, value, 0 if name == "seed" else 1)
    return known | given


def _build(detector: str, options: dict[str, Any]) -> Any:
    module = _river()
    for name in DETECTORS[detector].classes:
        kind = getattr(module, name, None) or getattr(module.binary, name, None)
        if kind is not None:
            break
    else:
        raise InputError(f"detector={detector!r}: this version of river does not have it; pip install 'cl-lib[drift]'")
    try:
        return kind(**options)
    except ValueError as error:  # options that contradict each other
        raise InputError(f"{detector}: {error}") from None


def _river() -> ModuleType:
    try:
        from river import drift  # takes seconds to import
    except ImportError:
        raise InputError("drift: river is not installed; pip install 'cl-lib[drift]'") from None
    return drift
