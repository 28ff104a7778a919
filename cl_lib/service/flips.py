"""Changed predictions between two models on the same samples: exact tests, as a whole and by slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cl_lib.drift.alarms import adjusted
from cl_lib.errors import InputError
from cl_lib.validation import is_number

POWER = 0.8
"""Probability with which the smallest detectable drop is found."""


@dataclass(frozen=True, eq=False)
class Flips:
    """Changed predictions of one update in groups of samples; arrays have one entry for each group.

    Attributes
    ----------
    count, negative, positive : ndarray
        Samples; correct before and wrong after; wrong before and correct after.
    p_value : ndarray
        Two-sided exact McNemar test.
    adjusted : ndarray
        P-value of a loss (one-sided exact McNemar test), adjusted by Benjamini and Hochberg over the slices; the whole
        is not adjusted.
    detectable : ndarray
        Smallest drop of accuracy that would be found with probability 0.8, at this number of samples and share of
        changed predictions; 1 where no drop would be.
    flagged : ndarray of bool
        Slices with a significant loss of more than twice that of the whole, which hides it.
    """

    count: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    p_value: np.ndarray
    adjusted: np.ndarray
    detectable: np.ndarray
    flagged: np.ndarray

    @property
    def drop(self) -> np.ndarray:
        """Loss of accuracy, NaN without samples."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.negative - self.positive) / self.count)


def mcnemar(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    r"""Two-sided exact p-values of McNemar's test: a fair coin for each changed prediction.

    .. math:: p = \min\Bigl(1, 2 \, 2^{-n} \sum_{i=0}^{\min(b, c)} \binom{n}{i}\Bigr), \qquad n = b + c

    Parameters
    ----------
    negative, positive : ndarray of int
        Numbers b and c of changed predictions in the two directions.

    References
    ----------
    McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 1947.

    Examples
    --------
    >>> mcnemar(np.array([8, 0]), np.array([1, 0])).round(4)
    array([0.0391, 1.    ])
    """
    from scipy.stats import binom

    b, c = np.asarray(negative), np.asarray(positive)
    return np.asarray(np.minimum(1, 2 * binom.cdf(np.minimum(b, c), b + c, 0.5)))


def loss_p_value(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """One-sided exact p-values of McNemar's test for a loss of accuracy: half of `mcnemar`, or near 1 for a gain.

    Examples
    --------
    >>> loss_p_value(np.array([8, 0, 1]), np.array([1, 0, 8])).round(4)
    array([0.0195, 1.    , 0.998 ])
    """
    from scipy.stats import binom

    b, c = np.asarray(negative), np.asarray(positive)
    return np.asarray(binom.cdf(c, b + c, 0.5))


def detectable_drop(count: np.ndarray, changed: np.ndarray, alpha: float) -> np.ndarray:
    r"""Smallest drop of accuracy that McNemar's test finds with probability 0.8.

    The smallest d that solves :math:`d \sqrt{n} = z_{1 - \alpha / 2} \sqrt{\psi} + z_{0.8} \sqrt{\psi - d^2}`
    for n samples of which a share :math:`\psi` changes; where that is less than d, with :math:`\psi = d`.

    Parameters
    ----------
    count, changed : ndarray
        Samples and changed predictions; with no changes, one is assumed.
    alpha : float
        Level of the test.

    Returns
    -------
    ndarray
        In (0, 1]; 1 where none can be found.

    References
    ----------
    Connor, Sample size for testing differences in proportions for the paired-sample design, Biometrics 1987.

    Examples
    --------
    >>> detectable_drop(np.array([400, 1600]), np.array([40, 160]), 0.05).round(3)
    array([0.044, 0.022])
    """
    from scipy.stats import norm

    n, share = np.maximum(np.asarray(count, float), 1), np.maximum(np.asarray(changed, float), 1)
    share, a, b = np.minimum(share / n, 1), norm.ppf(1 - alpha / 2), norm.ppf(POWER)
    # with d = u sqrt(share): u^2 (n + b^2) - 2 a sqrt(n) u + a^2 - b^2 = 0
    square = n - a**2 + b**2
    u = (a * np.sqrt(n) + b * np.sqrt(np.maximum(square, 0))) / (n + b**2)
    drop = u * np.maximum(np.sqrt(share), u)  # at least as many changes as the drop needs
    return np.where((np.asarray(count) > 0) & (square >= 0), np.minimum(drop, 1), 1.0)


def compare(
    before: np.ndarray, after: np.ndarray, slices: Mapping[str, np.ndarray], alpha: float = 0.05
) -> tuple[Flips, dict[str, Flips]]:
    """Compare two models on the same samples, as a whole and by slice.

    Parameters
    ----------
    before, after : ndarray of bool
        ``(N,)`` correct predictions.
    slices : mapping
        ``(N,)`` codes from 0 for each metadata column. P-values are adjusted over the slices of all columns.
    alpha : float, default 0.05
        Share of false discoveries, in (0, 1).

    Returns
    -------
    whole : Flips
    by_slice : dict of Flips

    Examples
    --------
    >>> before, after = np.ones(200, bool), np.ones(200, bool)
    >>> after[:12] = False
    >>> whole, by_slice = compare(before, after, {"site": np.arange(200) // 100})
    >>> by_slice["site"].drop, by_slice["site"].p_value.round(4)
    (array([0.12, 0.  ]), array([5.e-04, 1.e+00]))
    """
    if not is_number(alpha) or not 0 < alpha < 1:
        raise InputError(f"alpha={alpha!r}: must be a number in (0, 1)")
    was, now = (np.asarray(part).astype(bool) for part in (before, after))
    negative, positive = was & ~now, ~was & now
    whole = _flips(np.array([len(was)]), np.array([negative.sum()]), np.array([positive.sum()]), alpha)
    counts = {}
    for name, codes in slices.items():
        groups = int(np.max(codes, initial=-1)) + 1
        counts[name] = [np.bincount(codes[part], minlength=groups) for part in (was | ~was, negative, positive)]
    p = {name: loss_p_value(b, c) for name, (_, b, c) in counts.items()}
    tested = {name: parts[0] > 0 for name, parts in counts.items()}
    every = np.concatenate([p[name][tested[name]] for name in counts]) if counts else np.ones(0)
    corrected = adjusted(every, "bh")
    out, start = {}, 0
    for name, (count, b, c) in counts.items():
        q = np.ones(len(count))
        size = int(tested[name].sum())
        q[tested[name]] = corrected[start : start + size]
        start += size
        with np.errstate(invalid="ignore", divide="ignore"):
            hidden = (b - c) / count > 2 * np.nan_to_num(whole.drop[0])
        level = 2 * alpha / max(len(every), 1)  # of the two-sided test
        detectable = detectable_drop(count, b + c, level)
        out[name] = Flips(count, b, c, mcnemar(b, c), q, detectable, (q < alpha) & (b > c) & hidden)
    return whole, out


def _flips(count: np.ndarray, negative: np.ndarray, positive: np.ndarray, alpha: float) -> Flips:
    p, loss = mcnemar(negative, positive), loss_p_value(negative, positive)
    detectable = detectable_drop(count, negative + positive, 2 * alpha)
    return Flips(count, negative, positive, p, loss, detectable, np.zeros(1, bool))
