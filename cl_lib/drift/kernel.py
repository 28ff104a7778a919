"""Maximum mean discrepancy: a kernel test on two multivariate samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cl_lib.drift.samples import SAME, Floats, TwoSample, numbers
from cl_lib.errors import InputError
from cl_lib.validation import check_whole, is_number

BATCH = 256
"""Permutations in one matrix product."""
WIDEST = 1e100
"""The largest bandwidth, and the reciprocal of the smallest."""
ROUNDING = 1e-12
"""Statistics that differ by less are tied; the kernel is at most 1."""


def mmd(
    x: ArrayLike,
    y: ArrayLike,
    permutations: int = 200,
    seed: int = 0,
    bandwidth: float | None = None,
    most: int = 2000,
) -> TwoSample:
    r"""Maximum mean discrepancy with a Gaussian kernel, and a permutation test.

    .. math:: \text{MMD}^2 = \frac{\sum_{i \ne j} k(x_i, x_j)}{m (m - 1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{n (n - 1)}
              - \frac{2}{m n} \sum_{i, j} k(x_i, y_j), \qquad k(u, v) = e^{-\lVert u - v \rVert^2 / 2 h^2}

    .. math:: p = \frac{1 + |\{\pi : \text{MMD}^2_\pi \ge \text{MMD}^2\}|}{1 + \text{permutations}}, \qquad
              H = \frac{\max(0, \text{MMD}^2)}{2 (1 - \frac{1}{m n} \sum_{i, j} k(x_i, y_j))}

    MMD² is unbiased, so it may be negative. The effect size H is the energy coefficient of inhomogeneity for the
    distance 1 - k that the kernel induces: the share of the distances between the samples that is not found within
    them. Unlike MMD² over its standard deviation, it does not grow with the samples.

    Parameters
    ----------
    x, y : array_like, shape (m, d) and (n, d), or (m,) and (n,)
        Reference and new sample, at least two rows each. Features should be of similar scale.
    permutations : int, default 200
        The p-value is at least 1 / (1 + permutations).
    seed : int, default 0
        Of the permutations and of the subsample.
    bandwidth : float, optional
        h, above 0. By default h² is the median of the squared distances between the rows of the pooled sample; where
        ties make that 0, of those that are not 0.
    most : int, default 2000
        Larger samples are replaced by that many rows drawn without replacement: the kernel matrix takes 8 (m + n)^2
        bytes.

    Returns
    -------
    TwoSample
        MMD² in [-2, 2], the p-value, and H in [0, 1]. For constant and equal samples 0, 1 and 0.

    Raises
    ------
    InputError
        If a sample is too small, or holds NaN or infinite values; if the features differ; if an option is out of range.

    References
    ----------
    Gretton et al., A Kernel Two-Sample Test, JMLR 2012; Phipson & Smyth, Permutation P-values Should Never Be Zero,
    2010; Szekely & Rizzo, Energy statistics, Journal of Statistical Planning and Inference 2013, for H; Sejdinovic et
    al., Equivalence of distance-based and RKHS-based statistics in hypothesis testing, Annals of Statistics 2013.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 3))
    >>> result = mmd(x, rng.normal(size=(100, 3)) + 0.5)
    >>> round(result.statistic, 3), round(result.p_value, 4), round(result.effect_size, 3)
    (0.074, 0.005, 0.087)
    """
    from scipy import spatial  # takes longer to import than all of cl_lib

    first, second = numbers("x", x, 2, 2), numbers("y", y, 2, 2)
    if first.shape[1] != second.shape[1]:
        raise InputError(f"x, y: must have the same features; they have {first.shape[1]} and {second.shape[1]}")
    check_whole("permutations", permutations, 1)
    check_whole("seed", seed, 0)
    check_whole("most", most, 2)
    if bandwidth is not None and not (is_number(bandwidth) and 1 / WIDEST <= bandwidth <= WIDEST):
        raise InputError(f"bandwidth={bandwidth!r}: must be a number above 0, or None for the median distance")
    rng = np.random.default_rng(seed)
    first, second = (s if len(s) <= most else s[rng.choice(len(s), most, replace=False)] for s in (first, second))
    pooled = np.concatenate([first, second])
    distances = spatial.distance.pdist(pooled, "sqeuclidean")
    if not distances.any():
        return SAME
    kernel, m = _kernel(distances, bandwidth), len(first)
    (observed,), (cross,) = _discrepancy(kernel, (np.arange(len(pooled)) < m)[:, None])
    larger = 0
    for start in range(0, permutations, BATCH):
        members = np.zeros((min(BATCH, permutations - start), len(pooled)), dtype=bool)
        members[:, :m] = True
        null, _ = _discrepancy(kernel, rng.permuted(members, axis=1).T)
        larger += int((null >= observed - ROUNDING).sum())
    effect = max(0.0, observed) / (2 * (1 - cross)) if cross < 1 else 0.0
    return TwoSample(float(observed), (1 + larger) / (1 + permutations), min(1.0, float(effect)))


def _kernel(distances: Floats, bandwidth: float | None) -> Floats:
    """Kernel matrix with a diagonal of 0, from squared distances, which are overwritten."""
    from scipy import spatial

    square = np.median(distances) or np.median(distances[distances > 0]) if bandwidth is None else bandwidth**2
    with np.errstate(over="ignore"):
        distances /= -2 * square
    return spatial.distance.squareform(np.exp(distances, out=distances), checks=False)


def _discrepancy(kernel: Floats, members: np.ndarray) -> tuple[Floats, Floats]:
    """MMD² and the mean kernel between the samples, for columns (N, P) of indicators of the first sample."""
    z = members.astype(np.float64)
    m = z.sum(0)
    n = len(z) - m
    rows = kernel.sum(1)
    within = (z * (kernel @ z)).sum(0)
    across = rows @ z - within
    other = rows.sum() - within - 2 * across
    return within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * across / (m * n), across / (m * n)
