"""Expectations that a model must meet to serve, read from a YAML file or a dictionary."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_lib.errors import InputError
from cl_lib.record.glossary import METRICS
from cl_lib.service.nodes import Entry, parse
from cl_lib.service.requirements import Bound, Expectations, SliceBound
from cl_lib.validation import as_python

SECTIONS: dict[str, tuple[str, ...]] = {
    "metrics": ("min", "max", "confidence"),
    "change": ("max_drop", "max_rise", "confidence"),
    "slices": ("min_accuracy", "max_drop", "min_support", "alpha"),
    "calibration": ("max_ece", "max_rise", "confidence"),
    "staleness": ("max_windows",),
    "flips": ("max_negative", "confidence"),
}
LIMITS = {"nll": math.inf, "next_nll": math.inf, "brier": 2.0}
"""Largest values of the metrics that are not fractions."""
SIGNED = ("bwt", "fwt", "forgetting")
LOWER = ("class_gap", "negative_flip_rate", "next_nll")
"""Metrics beyond the glossary of which lower values are better."""
LARGEST = 1_000_000
"""Most bytes of a file."""


def read_expectations(given: str | Path | Mapping[str, Any] | Expectations) -> Expectations:
    """Read expectations and check them.

    Parameters
    ----------
    given : str, Path or dict
        A YAML file, or its content as a dictionary; `docs/gate.md` explains every key. Sections, each optional:

        - ``metrics``: ``{name: {min or max, confidence}}``,
        - ``change``: ``{name: {max_drop or max_rise, confidence}}``, in comparison with another model,
        - ``slices``: ``{column: {min_accuracy, max_drop, min_support, alpha}}``,
        - ``calibration``: ``{max_ece, max_rise, confidence}``,
        - ``staleness``: ``{max_windows}``,
        - ``flips``: ``{max_negative, confidence}``;

        and ``windows``, the number of windows of evidence (default 1) or a list of their names. ``confidence`` is
        "mean" (default), "lower" (of ``min``) or "upper" (of ``max``), or "significant".

    Raises
    ------
    InputError
        For a file that cannot be read, and for unknown, repeated or missing keys and values out of range; the message
        names file, line and key.

    Examples
    --------
    >>> expectations = read_expectations({"metrics": {"accuracy": {"min": 0.8, "confidence": "lower"}}})
    >>> expectations.bounds[0].title, expectations.bounds[0].limit
    ('metrics.accuracy.min', 0.8)
    >>> read_expectations({"metrics": {"accuracy": {"mim": 0.8}}})
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: expectations: metrics.accuracy.mim: unknown key; did you mean min?
    """
    if isinstance(given, Expectations):
        return given
    if isinstance(given, Mapping):
        content = as_python(dict(given))
        digest = json.dumps(content, sort_keys=True, default=str).encode()
        source, root = "expectations", parse(content, "expectations")
    else:
        source, digest = str(given), _content(Path(given))
        try:
            root = parse(digest.decode(), source)
        except UnicodeDecodeError:
            raise InputError(f"{source}: is not a text in UTF-8") from None
    parts = root.entries([*SECTIONS, "windows"])
    bounds: list[Bound] = []
    slices: list[SliceBound] = []
    for section, entry in parts.items():
        if section in ("metrics", "change"):
            for name, inner in entry.entries().items():
                bounds += _bounds(section, name, inner)
        elif section == "slices":
            slices += [_slice(column, inner) for column, inner in entry.entries().items()]
        elif section != "windows":
            name = {"calibration": "ece", "flips": "negative", "staleness": "windows"}[section]
            bounds += _bounds(section, name, entry)
    if not bounds and not slices:
        raise InputError(f"{source}: expects nothing; give at least one of {', '.join(SECTIONS)}")
    window = parts.get("windows")
    windows = 1 if window is None else window.names() or window.whole(1)
    where = "" if window is None else window.where
    return Expectations(tuple(bounds), tuple(slices), windows, where, source, hashlib.sha256(digest).hexdigest())


def _bounds(section: str, name: str, entry: Entry) -> list[Bound]:
    parts = entry.entries(SECTIONS[section])
    keys = [key for key in SECTIONS[section] if key in parts and key != "confidence"]
    if not keys or (section in ("metrics", "change") and len(keys) > 1):
        options = [key for key in SECTIONS[section] if key != "confidence"]
        raise entry.fail(
            f"needs {'one' if section in ('metrics', 'change') else 'at least one'} of {', '.join(options)}"
        )
    out = []
    for key in keys:
        wrong = {"max_drop": "max_rise", "max_rise": "max_drop", "min": "max", "max": "min"}
        if section in ("metrics", "change") and lower_is_better(name) is (key in ("min", "max_drop")):
            better = "lower" if lower_is_better(name) else "higher"
            raise parts[key].fail(f"{better} values of {name} are better; use {wrong[key]}")
        high = math.inf if section == "staleness" else LIMITS.get(name, 1.0)
        low = -high if name in SIGNED or key in ("max_drop", "max_rise") else 0.0
        limit = parts[key].whole(0) if section == "staleness" else parts[key].number(low, high)
        end = "upper" if key.startswith("max") else "lower"
        confidence = "mean"
        if "confidence" in parts:
            confidence = parts["confidence"].choice(("mean", "lower", "upper", "significant"))
            if confidence in ("lower", "upper") and confidence != end:
                raise parts["confidence"].fail(f"the worse end of the interval is the {end} one with {key}; use {end}")
        out.append(Bound(section, name, key, limit, confidence, parts[key].where))
    return out


def lower_is_better(name: str) -> bool | None:
    """Whether lower values of a metric are better; None for metrics without a better direction, or unknown ones.

    Examples
    --------
    >>> lower_is_better("nll"), lower_is_better("next_accuracy"), lower_is_better("positive_flip_rate")
    (True, False, None)
    """
    if name in METRICS:
        return METRICS[name].better == "down"
    return True if name in LOWER else False if name in ("next_accuracy", "anytime_accuracy") else None


def _slice(column: str, entry: Entry) -> SliceBound:
    parts = entry.entries(SECTIONS["slices"])
    if "min_accuracy" not in parts and "max_drop" not in parts:
        raise entry.fail("needs at least one of min_accuracy, max_drop")
    if "alpha" in parts and "max_drop" not in parts:
        raise parts["alpha"].fail("is the level of the test of a drop; give max_drop too")
    alpha = parts["alpha"].number(0, 1) if "alpha" in parts else None
    if alpha == 0:
        raise parts["alpha"].fail("must be above 0, or nothing could be refused")
    return SliceBound(
        column,
        parts["min_accuracy"].number(0, 1) if "min_accuracy" in parts else None,
        parts["max_drop"].number(0, 1) if "max_drop" in parts else None,
        parts["min_support"].whole(1) if "min_support" in parts else 30,
        alpha,
        entry.where,
    )


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise InputError(f"{path}: is larger than {LARGEST:,} bytes")
    return content
