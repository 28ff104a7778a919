"""Stratified split into a train and a test part."""

from __future__ import annotations

import torch
from torch import Tensor

from cl_lib.errors import InputError
from cl_lib.validation import is_number, is_whole


def stratified_split(y: Tensor, test: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw a fraction of every class for the test part.

    Parameters
    ----------
    y : Tensor of shape (N,), int64
        Labels.
    test : float in (0, 1)
        Fraction of every class that goes to the test part, rounded; a class with at least two samples has at least
        one in each part, a class with a single sample stays in train.
    seed : int
        Seed of the split; the same seed gives the same split.

    Returns
    -------
    train, test : Tensor, int64
        Indices in ascending order; together, every index in [0, N) once.

    Raises
    ------
    InputError
        If `test` is not in (0, 1).

    Examples
    --------
    >>> train, test = stratified_split(torch.tensor([0, 1] * 4), test=0.25, seed=0)
    >>> train.tolist(), test.tolist()
    ([2, 3, 4, 5, 6, 7], [0, 1])
    """
    if not is_number(test) or not 0 < test < 1:
        raise InputError(f"test is {test!r}: give the fraction of samples in the test part, between 0 and 1 (say 0.25)")
    if not is_whole(seed) or not -(2**63) <= seed < 2**63:
        raise InputError(f"seed is {seed!r}: must be a whole number of at most 64 bits")
    generator = torch.Generator().manual_seed(int(seed))
    held_out = torch.zeros(len(y), dtype=torch.bool)
    for members in y.argsort(stable=True).split(y.unique(return_counts=True)[1].tolist()):
        count = min(max(round(float(test) * len(members)), 1), len(members) - 1)
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
