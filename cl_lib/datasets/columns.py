"""Metadata by which results are sliced: one category per sample."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
    values : Column, optional
        If the categories are ranges of integers: the integers themselves, for `by_column`.

    Examples
    --------
    >>> Column.of(["night", "day", "day"])
    Column(3 samples: day 2, night 1)
    """

    codes: Tensor
    labels: tuple[str, ...]
    values: Column | None = None

    @classmethod
    def of(cls, values: Iterable[object]) -> Column:
        """Make a column of one value per sample; the categories are the distinct values, sorted.

        Parameters
        ----------
        values : iterable, or 1-d tensor or array
            Hashable values, none missing. Strings that are all numbers are sorted as numbers.

        Raises
        ------
        InputError
            If a value is missing (None, NaN, NA) or cannot be hashed, or two values have the same name (1 and "1").

        Examples
        --------
        >>> column = Column.of([10, 9, 10])
        >>> column.labels, column.codes.tolist()
        (('9', '10'), [1, 0, 1])
        """
        listed = as_list(values)
        for i, value in enumerate(listed):
            if value is None or type(value).__name__ in ("NAType", "NaTType") or _is_nan(value):
                raise InputError(f"column value {i} is missing ({value}): fill it in or drop the sample")
            if not isinstance(value, Hashable):
                raise InputError(f"column value {i} is a {type(value).__name__}, {value!r}: give numbers or strings")
        try:
            distinct = in_order(list(dict.fromkeys(listed)))
        except TypeError as error:  # a tuple that contains a list
            raise InputError(f"column values must be numbers or strings ({error})") from error
        code = {value: c for c, value in enumerate(distinct)}
        codes = torch.tensor([code[value] for value in listed], dtype=torch.int64)
        return cls(codes, names_of(distinct))

    def take(self, index: Tensor | slice) -> Column:
        """Return the column of the samples at `index`, with the same labels."""
        return Column(self.codes[index], self.labels, None if self.values is None else self.values.take(index))

    def __repr__(self) -> str:
        counts = self.codes.bincount(minlength=len(self.labels)).tolist()
        parts = ", ".join(f"{label} {count:,}" for label, count in zip(self.labels, counts, strict=False))
        return f"Column({len(self.codes):,} samples: {parts})"


def as_list(values: Iterable[object]) -> list[Any]:
    """Values as Python objects; dates and times as ISO strings rather than numbers of nanoseconds.

    Examples
    --------
    >>> as_list(np.array(["2024-03-01", "2024-02-29"], dtype="datetime64[ns]"))
    ['2024-03-01', '2024-02-29']
    """
    array = values if isinstance(values, np.ndarray) else getattr(values, "to_numpy", lambda: None)()
    if isinstance(array, np.ndarray) and array.dtype.kind == "M" and not np.isnat(array).any():
        days = bool((array == array.astype("datetime64[D]")).all())
        return [str(v) for v in np.datetime_as_string(array, unit="D" if days else "auto")]
    return list(getattr(values, "tolist", lambda: values)())


def in_order(distinct: list[Any]) -> list[Any]:
    """Sort values: strings that are all numbers as numbers, values that cannot be compared as strings.

    Examples
    --------
    >>> in_order(["10", "9", "1"]), in_order(["b10", "b9"])
    (['1', '9', '10'], ['b10', 'b9'])
    """
    if distinct and all(isinstance(v, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?", v.strip()) for v in distinct):
        return sorted(distinct, key=lambda v: (float(v), v))
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=str)


def names_of(distinct: Sequence[Any]) -> tuple[str, ...]:
    """Names of categories; raises `InputError` if two are the same."""
    first: dict[str, Any] = {}
    for value in distinct:
        if (name := str(value)) in first:
            raise InputError(
                f"values {first[name]!r} and {value!r} have the same name {name!r}: give all values the same type"
            )
        first[name] = value
    return tuple(first)


def _is_nan(value: object) -> bool:
    return isinstance(value, (float, np.floating)) and value != value
