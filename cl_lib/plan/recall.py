"""Recall from memory: slots drawn without replacement, for many steps at once."""

from __future__ import annotations

import numpy as np

Ints = np.ndarray


def uniform(filled: Ints, batch: int, rng: np.random.Generator) -> Ints:
    """Draw slots ``(S, batch)``: ``min(batch, filled)`` distinct slots below ``filled`` per step, all equally likely.

    The other entries of a row are -1.

    Examples
    --------
    >>> uniform(np.array([0, 2, 100]), 3, np.random.default_rng(0))
    array([[-1, -1, -1],
           [ 1,  0, -1],
           [85, 63, 51]])
    """
    steps, out = len(filled), np.full((len(filled), batch), -1)
    if not steps or not batch:
        return out
    # few slots of many: draw with replacement and repeat the steps that drew a slot twice; conditional on distinct
    # slots, the draw is uniform
    sparse = filled > batch * batch
    rows = np.flatnonzero(sparse)
    while rows.size:
        drawn = rng.integers(0, filled[rows, None], (rows.size, batch))
        ordered = np.sort(drawn, 1)
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(1)
        out[rows[~twice]] = drawn[~twice]
        rows = rows[twice]
    dense = np.flatnonzero(~sparse & (filled > 0))
    if dense.size:
        keys = rng.random((dense.size, int(filled[dense].max())))
        out[dense] = _smallest(keys, filled[dense], batch)
    return out


def class_balanced(labels: Ints, filled: Ints, batch: int, rng: np.random.Generator) -> Ints:
    """Draw as `uniform`, but each slot with probability inversely proportional to the number of slots of its class.

    Parameters
    ----------
    labels : ndarray
        ``(S, M)`` class of the sample in each slot before each step.
    filled : ndarray
        ``(S,)`` number of filled slots before each step.

    Examples
    --------
    >>> class_balanced(np.array([[0, 0, 0, 1]]), np.array([4]), 2, np.random.default_rng(0))
    array([[3, 2]])
    """
    steps, slots = labels.shape
    out = np.full((steps, batch), -1)
    if not slots or not steps:
        return out
    held = np.arange(slots) < filled[:, None]
    classes = int(labels.max(initial=0)) + 1
    flat = np.where(held, labels, classes) + np.arange(steps)[:, None] * (classes + 1)
    share = np.bincount(flat.ravel(), minlength=steps * (classes + 1))[flat]
    # the slots of the smallest exponential keys are a weighted draw without replacement (Efraimidis & Spirakis 2006)
    return _smallest(rng.exponential(size=labels.shape) * share, filled, batch)


def _smallest(keys: Ints, filled: Ints, batch: int) -> Ints:
    """Columns of the ``batch`` smallest keys among the first ``filled`` of each row; -1 where there are fewer."""
    keys = np.where(np.arange(keys.shape[1]) < filled[:, None], keys, np.inf)
    if keys.shape[1] < batch:
        keys = np.pad(keys, ((0, 0), (0, batch - keys.shape[1])), constant_values=np.inf)
    order = np.argsort(keys, 1)[:, :batch]
    return np.where(np.take_along_axis(keys, order, 1) < np.inf, order, -1)
