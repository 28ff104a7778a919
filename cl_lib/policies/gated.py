"""Updates that must first prove themselves on a window that neither model has been trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cl_lib.errors import InputError
from cl_lib.policies.known import DIVERGED, Known
from cl_lib.policies.policy import Policy
from cl_lib.validation import check_whole, is_number, is_whole


class Gate(ABC):
    """A condition that a candidate must meet to replace the serving model."""

    @abstractmethod
    def allows(self, known: Known, candidate: int, windows: Sequence[int]) -> np.ndarray:
        """Whether row ``candidate`` may serve, ``known.shape`` bool, by its results on ``windows``."""

    def check(self) -> None:  # noqa: B027
        """Raise `InputError` for values that cannot be used."""


@dataclass(frozen=True)
class NoWorse(Gate):
    """The mean loss must not exceed that of the serving model by more than a tolerance.

    Parameters
    ----------
    metric : {"nll", "error", "brier"}
    tolerance : float, default 0
        In the unit of the loss.

    Examples
    --------
    >>> NoWorse("nll")
    NoWorse(metric='nll', tolerance=0.0)
    """

    metric: str = "nll"
    tolerance: float = 0.0

    def check(self) -> None:
        if not is_number(self.tolerance) or not self.tolerance >= 0:
            raise InputError(f"policy.gates.tolerance={self.tolerance!r}: must be a number, 0 or more")

    def allows(self, known: Known, candidate: int, windows: Sequence[int]) -> np.ndarray:
        weight = np.array([known.support(w) for w in windows], float)
        excess = [known.loss(candidate, w, self.metric) - known.loss(known.serving, w, self.metric) for w in windows]
        return np.average(excess, axis=0, weights=weight) <= self.tolerance


@dataclass(frozen=True)
class NoSliceDrop(Gate):
    """No slice may lose more accuracy than a given drop.

    Parameters
    ----------
    by : str
        Metadata column, or "class".
    drop : float, default 0.05
        Largest allowed loss of accuracy, in [0, 1].
    alpha : float, default 1
        Level of a one-sided binomial test, at the allowed drop, that a slice must fail to be refused; 1 refuses by the
        estimate alone.
    minimum : int, default 30
        Slices with fewer samples are not counted.

    Examples
    --------
    >>> NoSliceDrop("carrier", 0.05)
    NoSliceDrop(by='carrier', drop=0.05, alpha=1.0, minimum=30)
    """

    by: str
    drop: float = 0.05
    alpha: float = 1.0
    minimum: int = 30

    def check(self) -> None:
        if not is_number(self.drop) or not 0 <= self.drop <= 1:
            raise InputError(f"policy.gates.drop={self.drop!r}: must be a number in [0, 1]")
        if not is_number(self.alpha) or not 0 < self.alpha <= 1:
            raise InputError(f"policy.gates.alpha={self.alpha!r}: must be a number in (0, 1]")
        check_whole("policy.gates.minimum", self.minimum, 0)

    def allows(self, known: Known, candidate: int, windows: Sequence[int]) -> np.ndarray:
        before = [known.slice_counts(self.by, known.serving, w) for w in windows]
        after = [known.slice_counts(self.by, candidate, w) for w in windows]
        diverged = np.any([known.loss(candidate, w, "error") >= DIVERGED for w in windows], axis=0)
        count = np.sum([c for c, _ in before], 0)
        was, now = (np.sum([k for _, k in part], 0) for part in (before, after))
        with np.errstate(invalid="ignore", divide="ignore"):
            dropped = (was - now) / count > self.drop
        if self.alpha < 1:
            from scipy.stats import binom  # slow to import

            # as few correct predictions or fewer, were the accuracy that of the serving model less the allowed drop
            expected = np.clip(was / np.maximum(count, 1) - self.drop, 0, 1)
            dropped &= binom.cdf(now, count, expected) < self.alpha
        return ~(dropped & (count >= self.minimum)).any(-1) & ~diverged


@dataclass(frozen=True)
class Gated(Policy):
    """Carry out the updates of another policy only if the candidate passes every gate.

    The newest row was trained on all labelled windows, so nothing that it has not seen could test it. The row
    ``staleness`` windows before it is tested on the ``staleness`` windows that it was not trained on, and this row is
    deployed.

    Parameters
    ----------
    policy : Policy
    gates : tuple of Gate
    staleness : int, default 1
        At least 1: evidence from windows that the candidate was trained on cannot be used.

    Examples
    --------
    >>> from cl_lib.policies import Every
    >>> Gated(Every(1), (NoWorse("nll"),))
    Gated(policy=Every(windows=1), gates=(NoWorse(metric='nll', tolerance=0.0),), staleness=1)
    """

    policy: Policy
    gates: tuple[Gate, ...]
    staleness: int = 1
    candidates = True

    def check(self) -> None:
        if not isinstance(self.policy, Policy):
            raise InputError(f"policy.policy={self.policy!r}: must be a Policy")
        if not isinstance(self.gates, tuple) or not self.gates:
            raise InputError(f"policy.gates={self.gates!r}: must be a tuple of at least one Gate")
        for gate in self.gates:
            if not isinstance(gate, Gate):
                raise InputError(f"policy.gates={gate!r}: must be a Gate such as NoWorse or NoSliceDrop")
            gate.check()
        if not is_whole(self.staleness) or self.staleness < 1:
            raise InputError(
                f"policy.staleness={self.staleness}: must be at least 1, since a candidate that was trained on a "
                "window cannot be tested on it"
            )
        self.policy.check()

    @property
    def needs_predictions(self) -> bool:
        return self.policy.needs_predictions or any(isinstance(gate, NoSliceDrop) for gate in self.gates)

    def alarms(self, known: Known) -> np.ndarray:
        return (self.policy.choose(known) > known.serving) & (known.newest - self.staleness > known.serving)

    def choose(self, known: Known) -> np.ndarray:
        wanted = self.policy.choose(known)
        candidate = known.newest - self.staleness
        proposed = (wanted > known.serving) & (candidate > known.serving)
        rolled_back = np.where(wanted < known.serving, wanted, known.serving)
        if not proposed.any():
            return rolled_back
        windows = range(candidate, known.newest)
        allowed = np.all([gate.allows(known, candidate, windows) for gate in self.gates], axis=0)
        return np.where(proposed & allowed, candidate, rolled_back)
