"""Validation of values, and conversion to the types with which options and fields are declared."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from cl_lib.errors import InputError

LARGEST = 1.7e308
"""Integers beyond this limit are not representable as floats."""


def as_python(value: Any, arrays: bool = True) -> Any:
    """Convert NumPy scalars and, with ``arrays``, arrays to Python numbers and lists, also within containers.

    Examples
    --------
    >>> as_python({"lr": np.float32(0.5), "hidden": np.array([100, 100])})
    {'lr': 0.5, 'hidden': [100, 100]}
    """
    if isinstance(value, np.generic) or (arrays and isinstance(value, np.ndarray)):
        return value.tolist()
    old: Any
    if isinstance(value, Mapping):
        old, new = list(value.values()), [as_python(v, arrays) for v in value.values()]
        converted: Any = dict(zip(map(as_python, value), new, strict=True))
    elif type(value) in (list, tuple):
        old, new = value, [as_python(v, arrays) for v in value]
        converted = type(value)(new)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.init]
        old = [getattr(value, name) for name in names]
        new = [as_python(v, arrays) for v in old]
        changed = {name: b for name, a, b in zip(names, old, new, strict=True) if a is not b}
        return dataclasses.replace(value, **changed) if changed else value
    else:
        return value
    return value if all(a is b for a, b in zip(old, new, strict=True)) else converted


def is_whole(value: Any) -> bool:
    """Whether ``value`` is a whole number of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a real number of Python or NumPy."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int | None = None) -> None:
    """Raise `InputError` if ``value`` is not a whole number or is below ``least``.

    Examples
    --------
    >>> check_whole("batch_size", 0, 1)
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: batch_size=0: must be a whole number, 1 or more
    """
    if not is_whole(value) or (least is not None and value < least):
        more = "" if least is None else f", {least} or more"
        raise InputError(f"{name}={value!r}: must be a whole number{more}")


def check_choice(name: str, value: Any, known: Sequence[Any]) -> None:
    """Raise `InputError` if ``value`` is not one of ``known``.

    Examples
    --------
    >>> check_choice("eval_on", "train", ("test", "valid"))
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: eval_on='train': must be one of test, valid
    """
    if isinstance(value, bool) or not any(isinstance(value, type(choice)) and value == choice for choice in known):
        raise InputError(f"{name}={value!r}: must be one of {', '.join(map(str, known))}")


def check_flag(name: str, value: Any) -> None:
    """Raise `InputError` if ``value`` is neither True nor False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}={value!r}: must be true or false")


def flat(tree: Mapping[str, Any], join: str = ".", prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to their leaves, with joined keys.

    Examples
    --------
    >>> flat({"optim": {"lr": 0.1}, "seeds": 3})
    {'optim.lr': 0.1, 'seeds': 3}
    """
    out: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        out |= flat(value, join, f"{name}{join}") if isinstance(value, Mapping) else {name: value}
    return out


def typed(value: Any, hint: Any, where: str) -> Any:
    """Convert ``value`` to the type of the annotation ``hint``.

    Raises
    ------
    InputError
        If the value has another type; the message names ``where``, the value and what would be right.

    Examples
    --------
    >>> typed(1, float, "strategy.lam")
    1.0
    >>> typed(2.5, int, "strategy.k")
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: strategy.k=2.5: must be a whole number
    """
    origin = get_origin(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if origin in (Union, types.UnionType):
        for option in get_args(hint):
            try:
                return typed(value, option, where)
            except InputError:
                continue
        raise InputError(f"{where}={value!r}: must be {_words(hint)}")
    if origin is Literal:
        fits = value in get_args(hint)
    elif hint is float:
        if is_number(value):
            return math.inf if abs(value) > LARGEST else float(value)
        fits = False
    elif hint is int:
        if is_whole(value):
            return int(value)
        fits = False
    elif hint in (bool, str):
        fits = isinstance(value, hint)
    elif hint is type(None):
        fits = value is None
    elif origin in (tuple, list, Sequence) or hint in (tuple, list):
        if isinstance(value, np.ndarray) and value.ndim:
            value = value.tolist()
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{where}={value!r}: must be {_words(hint)}")
        inner = (*get_args(hint), Any)[0]
        values = [typed(v, inner, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(values) if origin is tuple else values
    else:
        try:
            fits = isinstance(value, hint)
        except TypeError:  # a hint that isinstance does not support, such as a Protocol
            fits = True
    if not fits:
        needs = f" (select a class with {where}._target_)" if isinstance(value, Mapping) else ""
        raise InputError(f"{where}={value!r}: must be {_words(hint)}{needs}")
    return value


def _words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(h) for h in get_args(hint))
    if get_origin(hint) in (tuple, list, Sequence):
        return f"a list (of {_words((*get_args(hint), Any)[0])})"
    return getattr(hint, "__name__", "of another type")
