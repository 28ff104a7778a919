"""From a configuration to objects: each ``_target_`` is called with its checked options."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import types
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cl_lib.errors import InputError, nearest

_data: dict[str, Any] = {}
"""Data sets already read in this process: the jobs of a sweep share them."""


def build(node: Any, where: str) -> Any:
    """Call the node's ``_target_`` with its other entries, built in turn; ``_partial_`` leaves it to be called later.

    Entries named in ``_forwarded_`` exist for interpolation only.

    Raises
    ------
    InputError
        For an option that the target does not know or whose type is wrong, naming it and what would be right.

    Examples
    --------
    >>> build({"_target_": "cl_lib.Memory", "capacity": 200}, "strategy.memory").capacity
    200
    >>> build({"_target_": "cl_lib.Memory", "capacity": "many"}, "strategy.memory")
    Traceback (most recent call last):
        ...
    cl_lib.errors.InputError: strategy.memory.capacity='many': must be a whole number
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    target = _find(node["_target_"], where)
    forwarded = node.get("_forwarded_", ())
    options = {k: v for k, v in node.items() if k not in ("_target_", "_partial_", "_forwarded_", *forwarded)}
    parameters = inspect.signature(target).parameters
    # a data class's fields may be those of a class in another module, whose names only the class itself resolves
    plain = inspect.isclass(target) and "__init__" in vars(target) and not dataclasses.is_dataclass(target)
    hints = get_type_hints(target.__init__ if plain else target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    built = {}
    for name, value in options.items():
        place = f"{where}.{name}"
        if name not in parameters and not open_ended:
            raise InputError(f"{place}: unknown option of {node['_target_']}{nearest(name, parameters)}")
        built[name] = _typed(build(value, place), hints.get(name, Any), place)
    if node.get("_partial_"):
        return partial(target, **built)
    missing = [
        n for n, p in parameters.items() if p.default is p.empty and n not in built and p.kind is not p.VAR_KEYWORD
    ]
    if missing:
        raise InputError(f"{where}: {node['_target_']} needs {', '.join(missing)}")
    if node["_target_"].startswith("cl_lib.datasets."):
        key = json.dumps(node, sort_keys=True, default=str)
        if key not in _data:
            _data[key] = target(**built)
        return _data[key]
    return target(**built)


def _find(path: Any, where: str) -> Any:
    module, _, name = str(path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{where}._target_={path}: cannot be imported ({error})") from error


def _typed(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type that ``hint`` asks for."""
    origin = get_origin(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return value
    if origin in (Union, types.UnionType):
        for option in get_args(hint):
            try:
                return _typed(value, option, where)
            except InputError:
                continue
        raise InputError(f"{where}={value!r}: must be {_words(hint)}")
    if origin is Literal:
        fits = value in get_args(hint)
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        fits = False
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif hint in (bool, str):
        fits = isinstance(value, hint)
    elif hint is type(None):
        fits = value is None
    elif origin in (tuple, list, Sequence) or hint in (tuple, list):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{where}={value!r}: must be {_words(hint)}")
        inner = (*get_args(hint), Any)[0]
        values = [_typed(v, inner, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(values) if origin is tuple else values
    else:
        try:
            fits = isinstance(value, hint)
        except TypeError:  # a hint that cannot be asked, such as a Protocol
            fits = True
    if not fits:
        raise InputError(f"{where}={value!r}: must be {_words(hint)}")
    return value


def _words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(h) for h in get_args(hint))
    if get_origin(hint) in (tuple, list, Sequence):
        return f"a list (of {_words((*get_args(hint), Any)[0])})"
    return getattr(hint, "__name__", "of another kind")
