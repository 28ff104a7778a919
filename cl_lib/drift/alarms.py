"""From tests to alarms: adjustment for several features, smallest effect, repetition, and calibrated thresholds."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from cl_lib.drift.contingency import checked_counts, chi_squares
from cl_lib.drift.samples import TwoSample
from cl_lib.errors import InputError
from cl_lib.validation import check_choice, check_whole, is_number

Adjust = Literal["holm", "bh", "none"]


def signals(test: TwoSample, alpha: Any = 0.01, effect: Any = 0.1, adjust: Adjust = "holm") -> np.ndarray:
    """Whether any of F features has changed significantly and by enough.

    Parameters
    ----------
    test : TwoSample
        Arrays ``(..., F)``.
    alpha : float or array, default 0.01
        Significance level over all features together, in (0, 1); broadcast to the leading shape.
    effect : float or array, default 0.1
        Smallest effect size that counts, in the unit of the test.
    adjust : {"holm", "bh", "none"}
        Holm's correction (probability of any false signal) or that of Benjamini and Hochberg (share of false signals).

    Returns
    -------
    ndarray of bool, the leading shape

    Examples
    --------
    >>> p, effects = np.array([[0.004, 0.2], [0.006, 0.2]]), np.array([[0.3, 0.0], [0.3, 0.0]])
    >>> signals(TwoSample(p, p, effects))
    array([ True, False])
    """
    p = adjusted(np.asarray(test.p_value, dtype=np.float64), adjust)
    alpha, effect = (np.asarray(v)[..., None] for v in (alpha, effect))
    return np.asarray(((p < alpha) & (np.asarray(test.effect_size) >= effect)).any(-1))


def adjusted(p: np.ndarray, adjust: Adjust) -> np.ndarray:
    """P-values ``(..., F)`` adjusted over the last axis.

    Examples
    --------
    >>> adjusted(np.array([0.01, 0.04]), "holm"), adjusted(np.array([0.01, 0.04]), "bh")
    (array([0.02, 0.04]), array([0.02, 0.04]))
    """
    count = p.shape[-1]
    if adjust == "none" or count == 1:
        return p
    if adjust == "bh":
        from scipy.stats import false_discovery_control  # slow to import

        return np.asarray(false_discovery_control(p, axis=-1, method="bh"))
    order = np.argsort(p, -1)
    ranked = np.take_along_axis(p, order, -1) * (count - np.arange(count))
    out = np.empty_like(p)
    np.put_along_axis(out, order, np.minimum(np.maximum.accumulate(ranked, -1), 1), -1)
    return out


def repeated(history: np.ndarray, m: int) -> np.ndarray:
    """Whether at least ``m`` of the last n windows gave a signal; ``history`` is ``(n, ...)``."""
    return np.asarray(history.sum(0) >= m)


def check_alarms(alpha: Any, effect: Any, m: Any, n: Any, rest: Any, adjust: Any) -> None:
    """Raise `InputError` for options that cannot be used."""
    for value in np.ravel(alpha).tolist():
        if not is_number(value) or not 0 < value < 1:
            raise InputError(f"alpha={value!r}: must be a number in (0, 1)")
    for value in np.ravel(effect).tolist():
        if not is_number(value) or value < 0:
            raise InputError(f"effect={value!r}: must be a number, 0 or more")
    check_whole("n", n, 1)
    check_whole("m", m, 1)
    if m > n:
        raise InputError(f"m={m}, n={n}: an alarm after m of n windows needs m <= n")
    if not is_number(rest) or rest < 0:
        raise InputError(f"rest={rest!r}: must be a number of windows, 0 or more")
    check_choice("adjust", adjust, ("holm", "bh", "none"))


def calibrate(
    counts: np.ndarray,
    rate: float = 0.05,
    *,
    effect: float = 0.1,
    m: int = 1,
    n: int = 1,
    adjust: Adjust = "holm",
    draws: int = 200,
    seed: int = 0,
) -> float:
    """Significance level at which a stretch without drift gives alarms at a stated rate.

    The samples of the stretch are dealt out to its windows anew, at random and without replacement; the first window
    is the reference of all others. The result is the largest level at which the share of windows with an alarm, over
    all draws, is at most ``rate``.

    Parameters
    ----------
    counts : ndarray
        ``(W, F, K)`` samples of each window of the stretch by category; features are permuted independently of each
        other.
    rate : float, default 0.05
        Alarms per window, in (0, 1).
    effect, m, n, adjust
        As in `cl_lib.policies.OnDrift`.
    draws : int, default 200
        Permutations; the standard error of the rate is ``sqrt(rate / (draws * (W - 1)))`` or more (up to twice that in
        simulations), since the windows of a permutation share their reference.
    seed : int, default 0

    Returns
    -------
    float
        In (0, 1); 1 - 1e-9 where even then there are fewer alarms, because of ``effect``, ``m`` and ``n``.

    Raises
    ------
    InputError
        For fewer than two windows or options out of range.

    References
    ----------
    Westfall & Young, Resampling-Based Multiple Testing, 1993.

    Examples
    --------
    >>> counts = np.random.default_rng(0).multinomial(500, [0.25] * 4, size=(20, 1))
    >>> round(calibrate(counts, 0.05, effect=0.0), 2)
    0.05
    """
    table = checked_counts("counts", counts).astype(np.int64)
    check_alarms(0.5, effect, m, n, 0, adjust)
    check_whole("draws", draws, 1)
    if not is_number(rate) or not 0 < rate < 1:
        raise InputError(f"rate={rate!r}: must be a number in (0, 1)")
    if table.ndim != 3 or len(table) < max(2, n + 1):
        raise InputError(f"counts: expected (W, F, K) with at least {max(2, n + 1)} windows, got {table.shape}")
    rng = np.random.default_rng(seed)
    p, large = [], []
    for _ in range(draws):
        dealt = _dealt(table, rng)
        test = chi_squares(np.broadcast_to(dealt[:1], dealt[1:].shape), dealt[1:])
        p.append(adjusted(np.asarray(test.p_value), adjust))
        large.append(np.asarray(test.effect_size) >= effect)
    # the smallest level at which each window gives a signal
    levels = np.where(large, p, np.inf).min(-1)
    # that of an alarm: the m-th smallest of the last n windows
    span = np.lib.stride_tricks.sliding_window_view(levels, n, axis=1)
    needed = np.sort(np.partition(span, m - 1, axis=-1)[..., m - 1].ravel())
    allowed = math.floor(rate * len(needed))
    return float(min(max(needed[allowed], 1e-300), 1 - 1e-9))


def _dealt(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random assignment of the samples of all windows to the windows, which keep their sizes."""
    out = np.empty_like(counts)
    for feature in range(counts.shape[1]):
        rest = counts[:, feature].sum(0)
        for window, size in enumerate(counts[:, feature].sum(-1)):
            out[window, feature] = rng.multivariate_hypergeometric(rest, size, method="marginals")
            rest = rest - out[window, feature]
    return out
