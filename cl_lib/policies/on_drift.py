"""Update on an alarm of a drift test."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cl_lib.drift.alarms import Adjust, check_alarms, repeated, signals
from cl_lib.drift.watch import Confidence, Watch
from cl_lib.errors import InputError
from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy, keep_or_update


@dataclass(frozen=True)
class OnDrift(Policy):
    """Update when a watched distribution differs from what it was when the serving model was trained.

    A significant difference need not matter: with thousands of samples a test alarms in nearly every window, so there
    is always a smallest effect size. Whether acting on alarms helps is the skill in the backtest.

    Parameters
    ----------
    watch : Watch, default Confidence()
        `cl_lib.drift.Inputs`, `Labels`, `PredictedLabels`, `Confidence` or `Errors`.
    alpha : float, default 0.01
        Significance level in (0, 1); `cl_lib.drift.calibrate` finds it for a stated rate of false alarms.
    effect : float, default 0.1
        Smallest effect size (Cramér's V) that counts, 0 or more.
    m, n : int, default 1
        An alarm needs a signal in at least m of the last n windows.
    rest : float, default 0
        Windows after an update without alarms.
    adjust : {"holm", "bh", "none"}
        Correction for several features.

    Examples
    --------
    >>> OnDrift(effect=0.2)
    OnDrift(watch=Confidence(reference=1, recent=1), alpha=0.01, effect=0.2, m=1, n=1, rest=0, adjust='holm')
    """

    watch: Watch = field(default_factory=Confidence)
    alpha: float = 0.01
    effect: float = 0.1
    m: int = 1
    n: int = 1
    rest: float = 0
    adjust: Adjust = "holm"

    def check(self) -> None:
        if not isinstance(self.watch, Watch):
            raise InputError(f"policy.watch={self.watch!r}: must be a Watch such as cl_lib.drift.Confidence()")
        self.watch.check()
        check_alarms(self.alpha, self.effect, self.m, self.n, self.rest, self.adjust)

    @property
    def reads_labels(self) -> bool:
        return self.watch.labelled

    @property
    def needs_predictions(self) -> bool:
        return self.watch.kind != "errors"

    def choose(self, known: Known) -> np.ndarray:
        history = [
            signals(self.watch.measure(known, back), self.alpha, self.effect, self.adjust) for back in range(self.n)
        ]
        return keep_or_update(known, repeated(np.stack(history), self.m) & (known.since > self.rest))
