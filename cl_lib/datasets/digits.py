"""The handwritten digits included in scikit-learn, which need no download."""

from __future__ import annotations

import torch

from cl_lib.datasets.check import check_dataset
from cl_lib.datasets.samples import Dataset, Samples
from cl_lib.datasets.split import stratified_split


def digits(test: float = 0.25, seed: int = 0) -> Dataset:
    """Return the 1,797 handwritten digits of 8x8 pixels of scikit-learn (originally from UCI).

    Parameters
    ----------
    test : float in (0, 1), default 0.25
        Fraction of every class in the test part; the default gives at least 44 test samples per class.
    seed : int, default 0
        Seed of the stratified split.

    Returns
    -------
    Dataset
        `x` uint8 of shape (N, 1, 8, 8) with grey levels 0 to 16, mean 0, std 16; ten classes.

    Raises
    ------
    InputError
        If `test` is not in (0, 1).

    Examples
    --------
    >>> data = digits()
    >>> data
    Dataset(digits: 1,347 train + 450 test, 10 classes, uint8 (1, 8, 8))
    >>> data.test.y.bincount().tolist()
    [44, 46, 44, 46, 45, 46, 45, 45, 44, 45]
    >>> data.fingerprint()
    '5717f0e463b66181'
    """
    from sklearn.datasets import load_digits  # imported here since it is slow and only this loader needs it

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images.astype("uint8")).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels.astype("int64"))
    whole = Samples(x, y)
    train, held_out = stratified_split(y, test, seed)
    classes = tuple(str(digit) for digit in range(10))
    return check_dataset(Dataset("digits", whole.take(train), whole.take(held_out), classes, mean=(0.0,), std=(16.0,)))
