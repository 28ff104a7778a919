"""What is watched for drift: inputs, labels, predicted labels, confidence or errors of the model that serves."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from cl_lib.drift.contingency import chi_squares
from cl_lib.drift.samples import TwoSample
from cl_lib.errors import InputError
from cl_lib.validation import is_whole

Kind = Literal["inputs", "labels", "predicted", "confidence", "errors"]


class Observed(Protocol):
    """What a watch reads; implemented by `cl_lib.policies.Known`."""

    @property
    def window(self) -> int: ...

    @property
    def newest(self) -> int: ...

    @property
    def serving(self) -> np.ndarray: ...

    @property
    def cache(self) -> MutableMapping[Hashable, Any]: ...

    def counts(self, kind: Kind, row: int, windows: range) -> np.ndarray:
        """Samples by category, ``(R, F, K)``, summed over windows."""


@dataclass(frozen=True)
class Watch:
    """Comparison of recent windows with a reference by a chi-square test on counts.

    The reference of row i ends with window i - 1, the last that it was trained on; the test part of that window was
    held out. For errors, it begins with window i, the first on which the row is judged without having been trained.

    Parameters
    ----------
    reference : int, default 1
        Number of windows in the reference.
    recent : int, default 1
        Number of the newest windows that are compared with it.
    """

    reference: int = 1
    recent: int = 1
    kind: ClassVar[Kind]
    labelled: ClassVar[bool] = False
    """Whether labels are needed, which arrive after the label delay."""

    def check(self) -> None:
        """Raise `InputError` for values that cannot be used."""
        for name in ("reference", "recent"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise InputError(f"watch.{name}={value!r}: must be a whole number, 1 or more")

    def measure(self, observed: Observed, back: int = 0) -> TwoSample:
        """Test the windows that end ``back`` windows before the last observed one.

        Returns
        -------
        TwoSample
            Arrays of shape ``(*serving.shape, F)`` for F features, 1 except for inputs. Without windows after the
            reference the p-value is 1 and the effect size 0.
        """
        end = (observed.newest if self.labelled else observed.window) - back
        rows = np.unique(observed.serving)
        tests = [self._test(observed, int(row), end) for row in rows]
        place = np.searchsorted(rows, observed.serving)
        replica = np.arange(observed.serving.shape[-1])
        parts = []
        for name in TwoSample._fields:
            values = np.stack(np.broadcast_arrays(*(getattr(test, name) for test in tests)))  # (rows, R or 1, F)
            parts.append(values[place, replica if values.shape[1] > 1 else 0])
        return TwoSample(*parts)

    def _test(self, observed: Observed, row: int, end: int) -> TwoSample:
        key = (self, row, end)
        if key not in observed.cache:
            observed.cache[key] = self._computed(observed, row, end)
        return observed.cache[key]

    def _computed(self, observed: Observed, row: int, end: int) -> TwoSample:
        first = range(row, row + self.reference) if self.kind == "errors" else range(max(0, row - self.reference), row)
        last = range(end - self.recent, end)
        if last.start < first.stop:
            return TwoSample(np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)))
        return chi_squares(observed.counts(self.kind, row, first), observed.counts(self.kind, row, last))


@dataclass(frozen=True)
class Inputs(Watch):
    """Distribution of each input feature, in bins between deciles; needs no labels and no model.

    Examples
    --------
    >>> Inputs()
    Inputs(reference=1, recent=1)
    """

    kind = "inputs"


@dataclass(frozen=True)
class Labels(Watch):
    """Distribution of the labels (label shift).

    Examples
    --------
    >>> Labels(reference=2)
    Labels(reference=2, recent=1)
    """

    kind = "labels"
    labelled = True


@dataclass(frozen=True)
class PredictedLabels(Watch):
    """Distribution of the predicted classes; needs no labels.

    Examples
    --------
    >>> PredictedLabels()
    PredictedLabels(reference=1, recent=1)
    """

    kind = "predicted"


@dataclass(frozen=True)
class Confidence(Watch):
    """Distribution of the confidence, in 15 bins of equal width; needs no labels.

    Examples
    --------
    >>> Confidence()
    Confidence(reference=1, recent=1)
    """

    kind = "confidence"


@dataclass(frozen=True)
class Errors(Watch):
    """Share of wrong predictions.

    Examples
    --------
    >>> Errors()
    Errors(reference=1, recent=1)
    """

    kind = "errors"
    labelled = True
