"""Metadata by which results are sliced: one category per sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cl_lib.errors import InputError


@dataclass(frozen=True, eq=False)
class Column:
    """One metadata column, by which results are sliced.

    Parameters
    ----------
    codes : Tensor of shape (N,), int64
        Category of each sample, in [0, len(labels)).
    labels : tuple of str
        Readable name of each category.

    Examples
    --------
    >>> Column.of(["night", "day", "day"])
    Column(3 samples: day 2, night 1)
    """

    codes: Tensor
    labels: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[object]) -> Column:
        """Make a column of one value per sample; the categories are the distinct values, sorted.

        Parameters
        ----------
        values : iterable, or 1-d tensor or array
            Hashable values, none missing.

        Raises
        ------
        InputError
            If a value is missing (None or NaN).

        Examples
        --------
        >>> column = Column.of([10, 9, 10])
        >>> column.labels, column.codes.tolist()
        (('9', '10'), [1, 0, 1])
        """
        listed = list(getattr(values, "tolist", lambda: values)())
        for i, value in enumerate(listed):
            if value is None or value != value:
                raise InputError(f"column value {i} is missing ({value}): fill it in or drop the sample")
        distinct = list(dict.fromkeys(listed))
        try:
            distinct.sort()
        except TypeError:
            distinct.sort(key=str)
        code = {value: c for c, value in enumerate(distinct)}
        codes = torch.tensor([code[value] for value in listed], dtype=torch.int64)
        return cls(codes, tuple(str(value) for value in distinct))

    def take(self, index: Tensor | slice) -> Column:
        """Return the column of the samples at `index`; the labels stay."""
        return Column(self.codes[index], self.labels)

    def __repr__(self) -> str:
        counts = self.codes.bincount(minlength=len(self.labels)).tolist()
        parts = ", ".join(f"{label} {count:,}" for label, count in zip(self.labels, counts, strict=False))
        return f"Column({len(self.codes):,} samples: {parts})"
