"""Confidence rules: whether values of several seeds meet a bound."""

from __future__ import annotations

import numpy as np

from cl_lib.errors import InputError
from cl_lib.service.requirements import Bound
from cl_lib.stats import paired_difference, summarise

LEVEL = 0.05
"""Level of the one-sided test of ``significant``."""
ROUNDING = 1e-12


def meets(values: np.ndarray, bound: Bound) -> tuple[float, bool, str]:
    r"""Decide whether values meet a bound.

    - ``mean``: the mean must.
    - ``lower``, ``upper``: the worse end of the 95 % bootstrap interval of the mean must; a single seed has none, and
      fails.
    - ``significant``: refused if the mean violates the bound and the exact one-sided sign test of Fisher, over
      :math:`2^n` signs of the differences from the bound, has p < 0.05.

    Parameters
    ----------
    values : ndarray
        ``(n,)``, one of each seed, finite.
    bound : Bound

    Returns
    -------
    tuple
        The mean, whether the bound is met, and why, in one sentence.

    Raises
    ------
    InputError
        For ``significant`` with so few seeds that nothing could be refused.

    Examples
    --------
    >>> bound = Bound("metrics", "accuracy", "min", 0.8, "lower", "")
    >>> meets(np.array([0.79, 0.82, 0.84]), bound)[1:]
    (False, 'the lower end of the 95 % interval over 3 seeds, 0.7900, is below 0.8')
    """
    summary = summarise(values.tolist())
    assert summary.mean is not None
    mean, count = summary.mean, f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    words = ("is above", "is at most") if bound.at_most else ("is below", "is at least")

    def met(value: float) -> bool:
        excess = value - bound.limit if bound.at_most else bound.limit - value
        return excess <= ROUNDING

    if bound.confidence in ("lower", "upper"):
        if summary.ci95 is None:
            return mean, False, "a single seed gives no interval"
        end = summary.ci95[1] if bound.at_most else summary.ci95[0]
        text = f"the {bound.confidence} end of the 95 % interval over {count}, {end:.4f},"
        return mean, met(end), f"{text} {words[met(end)]} {bound.limit:g}"
    text = f"the mean over {count}, {mean:.4f}, {words[met(mean)]} {bound.limit:g}"
    if bound.confidence == "mean":
        return mean, met(mean), text
    smallest = 0.5 ** len(values)
    if smallest >= LEVEL:
        enough = int(np.ceil(-np.log2(LEVEL)))
        raise InputError(
            f"{bound.where}: confidence significant could refuse nothing with {count}, since the smallest p-value is "
            f"{smallest:.3g}; {enough} seeds would do"
        )
    if met(mean):
        return mean, True, text
    p_value = (paired_difference(values, np.full(len(values), bound.limit)).p_value or 0) / 2
    if p_value < LEVEL:
        return mean, False, f"{text}, significantly (p {p_value:.3g})"
    return mean, True, f"{text}, but not significantly (p {p_value:.3g})"
