"""The verdict of a gate, its checks, and their table."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from cl_lib.errors import printable
from cl_lib.record.text import NULL

COUNT = "count"
"""Rule of whole numbers."""


@dataclass(frozen=True)
class Check:
    """One expectation and whether it is met.

    Attributes
    ----------
    name : str
        As in the file, such as metrics.accuracy.min.
    value : float or None
        Mean over seeds, of the worst slice for slices; None where it is undefined, as for diverged replicas.
    bound : float
    rule : str
        How the value is compared with the bound.
    windows : tuple of str
        Names of the windows of evidence; empty for the final results of a stream that is not by time.
    n : int
        Test samples of the evidence.
    passed : bool
    reason : str
        One sentence.
    """

    name: str
    value: float | None
    bound: float
    rule: str
    windows: tuple[str, ...]
    n: int
    passed: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Whether a trained model may serve; prints as a table.

    Attributes
    ----------
    accepted : bool
        Whether every check passed.
    checks : tuple of Check
    strategy : str
    row : int
        The row that would serve; row i is the model after i windows.
    against : str or None
        Strategy of the model that it was compared with.
    against_row : int or None
    seeds : int
        Number of seeds.
    """

    accepted: bool
    checks: tuple[Check, ...]
    strategy: str
    row: int
    against: str | None
    against_row: int | None
    seeds: int

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that were not passed."""
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """The verdict as a dictionary of JSON types."""
        data = asdict(self)
        data["checks"] = [{**check, "windows": list(check["windows"])} for check in data["checks"]]
        return data

    def __str__(self) -> str:
        return printable("\n".join(_lines(self)))


def _lines(verdict: Verdict) -> list[str]:
    word = "accepted" if verdict.accepted else "refused"
    compared = "" if verdict.against is None else f", compared with {verdict.against} row {verdict.against_row}"
    many = "" if verdict.seeds == 1 else "s"
    lines = [f"{word}: {verdict.strategy} row {verdict.row}{compared}, {verdict.seeds} seed{many}", ""]
    rows = [("check", "value", "bound", "rule", "windows", "samples", "result")]
    for check in verdict.checks:
        value = NULL if check.value is None else f"{check.value:.0f}" if check.rule == COUNT else f"{check.value:.4f}"
        result = "passed" if check.passed else "failed"
        rows.append((check.name, value, f"{check.bound:g}", check.rule, _span(check.windows), f"{check.n:,}", result))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = (1, 2, 5)
    for row in rows:
        cells = (f"{c:>{w}}" if i in right else f"{c:<{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    lines += [""] * bool(verdict.failed)
    for check in verdict.failed:
        lines += [*textwrap.wrap(f"{check.name}: {check.reason}.", 118, subsequent_indent="  ")]
    return lines


def _span(windows: tuple[str, ...]) -> str:
    if not windows:
        return "final"
    return ", ".join(windows) if len(windows) <= 2 else f"{windows[0]} … {windows[-1]} ({len(windows)})"
