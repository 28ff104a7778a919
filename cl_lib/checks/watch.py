"""Variants of a strategy for its checks: one that runs eagerly, and one that detects changed arguments."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cl_lib.engine.net import FunctionalNet
from cl_lib.strategies.strategy import Strategy

FUNCTIONS = ("parameters", "init", "gradient", "after_step", "admit", "consolidate", "readout", "logits")
"""Methods that the engine calls with a replica's tensors; `loss` and `penalty` are called by `gradient`."""


def as_written(strategy: Strategy, **attributes: Any) -> Strategy:
    """The same strategy, neither traced nor vectorised; ``attributes`` replace attributes of its class."""
    kind = type(strategy)
    variant: Any = type(kind.__name__, (kind,), {"liftable": False, "traceable": False, **attributes})
    copy: Strategy = variant(**{f.name: getattr(strategy, f.name) for f in dataclasses.fields(strategy) if f.init})
    return copy


def watched(strategy: Strategy) -> Strategy:
    """The strategy of `as_written`, whose methods raise `AssertionError` if they change their arguments."""
    kind = type(strategy)
    overridden = [
        name for name in FUNCTIONS if name == "gradient" or getattr(kind, name) is not getattr(Strategy, name)
    ]
    return as_written(strategy, **{name: _watched(getattr(kind, name)) for name in overridden})


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        nets = tuple(f"{name}.buffers" for name, value in given.items() if isinstance(value, FunctionalNet))
        before = [(where, tensor, tensor.clone()) for where, tensor in named_tensors(given)]
        result = function(*args, **kwargs)
        for where, tensor, kept in before:
            assert _same_bits(tensor, kept), f"{function.__name__} changes {where} in place; return a new tensor"
        # only the buffers of a network may be replaced by other tensors
        now = {where: id(tensor) for where, tensor in named_tensors(given)}
        then = {where: id(tensor) for where, tensor, _ in before}
        replaced = [where for where in then | now if then.get(where) != now.get(where) and not where.startswith(nets)]
        assert not replaced, f"{function.__name__} puts another tensor into {replaced[0]}; return a new dict"
        return result

    return call


def named_tensors(value: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in a tree of dicts, tuples, dataclasses and networks, with their paths.

    Examples
    --------
    >>> [name for name, _ in named_tensors({"a": torch.ones(1), "b": (torch.ones(1), None)}, "state")]
    ['state.a', 'state.b.0']
    """
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, FunctionalNet):
        parts = {"module": dict(value.module.named_parameters()), "buffers": value.buffers, "mask": value.mask}
        yield from named_tensors(parts, where)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from named_tensors(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", range(len(value)))
        yield from named_tensors(dict(zip(names, value, strict=True)), where)
    elif dataclasses.is_dataclass(value):
        yield from named_tensors({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, where)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(*(t.detach().reshape(-1).view(torch.uint8) for t in (a, b)))
