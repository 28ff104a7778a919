"""Expectations after reading: bounds of metrics and of slices, and the windows of evidence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """One bound: ``section.name.key`` of the file, such as metrics.accuracy.min; ``where`` begins error messages."""

    section: str
    name: str
    key: str
    limit: float
    confidence: str
    where: str

    @property
    def title(self) -> str:
        """Name of the check."""
        part = [self.name] if self.section in ("metrics", "change") else []
        return ".".join([self.section, *part, self.key])

    @property
    def at_most(self) -> bool:
        """Whether values must not exceed the limit; else they must reach it."""
        return self.key.startswith("max")


@dataclass(frozen=True)
class SliceBound:
    """Bounds for every slice of a column; None where not given."""

    column: str
    min_accuracy: float | None
    max_drop: float | None
    min_support: int
    alpha: float | None
    where: str


@dataclass(frozen=True)
class Expectations:
    """Expectations, as `read_expectations` returns them.

    Attributes
    ----------
    bounds : tuple of Bound
    slices : tuple of SliceBound
    windows : int or tuple of str
        Number of windows of evidence after the last that a model was trained on, or their names.
    where : str
        Where ``windows`` is given; empty where it is not.
    source, sha256 : str
        Name of the file, and hash of its content.
    """

    bounds: tuple[Bound, ...]
    slices: tuple[SliceBound, ...]
    windows: int | tuple[str, ...]
    where: str
    source: str
    sha256: str
