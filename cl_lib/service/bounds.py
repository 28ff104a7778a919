"""Exact bounds for schedules with k updates: the mean over all of them, and the best."""

from __future__ import annotations

from math import comb

import numpy as np


def random_schedules(losses: np.ndarray) -> np.ndarray:
    r"""Mean loss on each window over all schedules with k updates, for every k.

    Before each of the windows 1 to n an update deploys the newest model. A schedule chooses k of these n times; with
    the loss :math:`\ell_{u, w}` on window w of the model deployed before window u, the mean over all
    :math:`\binom{n}{k}` schedules is

    .. math:: \ell_{0, w} \frac{\binom{n - w}{k}}{\binom{n}{k}}
              + \sum_{u=1}^{w} \ell_{u, w} \frac{\binom{n - 1 - (w - u)}{k - 1}}{\binom{n}{k}}.

    Parameters
    ----------
    losses : ndarray
        ``(R, n + 1, n + 1)``: entry (u, w) is the loss on window w of the model deployed before window u <= w; window 0
        is served by the initial model. Entries with u > w are not used.

    Returns
    -------
    ndarray
        ``(R, n + 1, n + 1)`` for k = 0 to n and each window.

    Examples
    --------
    Two schedules with one update, of mean losses (1 + 0 + 1) / 3 and (1 + 3 + 0) / 3:

    >>> losses = np.array([[[1.0, 3.0, 3.0], [np.nan, 0.0, 1.0], [np.nan, np.nan, 0.0]]])
    >>> random_schedules(losses).mean(-1)[0].round(4)
    array([2.3333, 1.    , 0.3333])
    """
    n = losses.shape[-1] - 1
    gap = np.arange(n + 1) - np.arange(n + 1)[:, None]  # w - u
    out = np.empty_like(losses)
    for k in range(n + 1):
        total = comb(n, k)
        untouched = np.array([comb(n - w, k) / total for w in range(n + 1)])
        updated = np.array([comb(n - 1 - g, k - 1) / total if k and g < n else 0.0 for g in range(n + 1)])
        weight = np.where(gap >= 0, updated[np.maximum(gap, 0)], 0)
        weight[0] = untouched
        out[:, k] = (np.where(weight > 0, losses, 0) * weight).sum(1)  # NaN counts where its weight is not 0
    return out


def best_schedules(losses: np.ndarray) -> np.ndarray:
    """Loss on each window of the schedule with k updates of the smallest mean loss, for every k.

    Dynamic programming over the time of the last update; see `random_schedules`.

    Parameters
    ----------
    losses : ndarray
        ``(R, n + 1, n + 1)``.

    Returns
    -------
    ndarray
        ``(R, n + 1, n + 1)`` for k = 0 to n and each window; NaN where every such schedule meets a NaN.

    Examples
    --------
    >>> losses = np.array([[[1.0, 3.0, 3.0], [np.nan, 0.0, 1.0], [np.nan, np.nan, 0.0]]])
    >>> best_schedules(losses).mean(-1)[0].round(4)
    array([2.3333, 0.6667, 0.3333])
    """
    replicas, size, _ = losses.shape
    # stretch (u, v): loss of windows u to v - 1 under the model deployed before window u
    stretch = np.full((replicas, size, size + 1), np.inf)
    for u in range(size):
        stretch[:, u, u + 1 :] = np.nan_to_num(np.cumsum(losses[:, u, u:], -1), nan=np.inf, posinf=np.inf)
    best = stretch[:, 0]  # (R, v): windows 0 to v - 1 are served, so far without an update
    last = [np.zeros((replicas, size + 1), int)]
    totals = [best[:, size]]
    for _ in range(size - 1):
        through = best[:, :size, None] + stretch  # (R, u, v): the last update is before window u
        last.append(through.argmin(1))
        best = through.min(1)
        totals.append(best[:, size])
    out = np.full_like(losses, np.nan)
    r = np.arange(replicas)
    for k, total in enumerate(totals):
        end = np.full(replicas, size)
        deployed = np.zeros((replicas, size), int)
        for step in range(k, -1, -1):
            begin = last[step][r, end]
            within = (np.arange(size) >= begin[:, None]) & (np.arange(size) < end[:, None])
            deployed = np.where(within, begin[:, None], deployed)
            end = begin
        served = losses[r[:, None], deployed, np.arange(size)]
        out[:, k] = np.where(np.isfinite(total)[:, None], served, np.nan)
    return out
