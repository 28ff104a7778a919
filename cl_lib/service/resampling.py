"""Resampling of windows in time."""

from __future__ import annotations

import numpy as np

from cl_lib.validation import check_whole


def block_samples(windows: int, block: int, resamples: int, seed: int) -> np.ndarray:
    """``(resamples, windows)`` positions of blocks of consecutive windows, drawn with replacement.

    References
    ----------
    Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 1989.

    Examples
    --------
    >>> block_samples(6, block=3, resamples=2, seed=0).shape
    (2, 6)
    """
    check_whole("block", block, 1)
    check_whole("resamples", resamples, 1)
    block = min(block, windows)
    starts = np.random.default_rng(seed).integers(0, windows - block + 1, (resamples, -(-windows // block)))
    return (starts[..., None] + np.arange(block)).reshape(resamples, -1)[:, :windows]
