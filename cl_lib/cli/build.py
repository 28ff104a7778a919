"""Instantiation of a configuration: each ``_target_`` is called with its checked options."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Mapping
from functools import partial
from typing import Any, get_type_hints

from cl_lib.errors import InputError, nearest
from cl_lib.validation import typed

_data: dict[str, Any] = {}
"""Cache of the data sets read in this process, shared by the jobs of a sweep."""


def build(node: Any, where: str) -> Any:
    """Call the node's ``_target_`` with its other entries, which are built first; ``_partial_`` returns a partial.

    Entries named in ``_forwarded_`` are only for interpolation and are not passed on.

    Raises
    ------
    InputError
        For an unknown option or a value of a wrong type; the message names the option and the expected value.

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
    # fields of a dataclass may be inherited from another module, so hints are resolved on the class
    plain = inspect.isclass(target) and "__init__" in vars(target) and not dataclasses.is_dataclass(target)
    hints = get_type_hints(target.__init__ if plain else target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, parameter in parameters.items():
        required, hint = parameter.default is parameter.empty, hints.get(name)
        if name in options and options[name] is None and required and hint is str:
            also = " (data.window)" if node["_target_"] == "cl_lib.streams.by_column" else ""
            raise InputError(f"{where}.{name}{also}: must be given")
    built = {}
    for name, value in options.items():
        place = f"{where}.{name}"
        if name not in parameters and not open_ended:
            raise InputError(f"{place}: unknown option of {node['_target_']}{nearest(name, parameters)}")
        built[name] = typed(build(value, place), hints.get(name, Any), place)
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
