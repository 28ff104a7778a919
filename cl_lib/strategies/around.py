"""Helpers for a strategy that wraps a base strategy: shared memory, and checks that the base can be wrapped."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from cl_lib.errors import InputError
from cl_lib.strategies.strategy import Strategy
from cl_lib.types import Spec


def share_memory(strategy: Strategy, base: Strategy) -> None:
    """Use the memory that was passed to one of the two for both; called in ``__post_init__`` of a wrapping strategy.

    The strategy is vectorised and traced only if its base allows it too.

    Examples
    --------
    >>> from cl_lib.memory import Memory
    >>> from cl_lib.strategies import ER, BiC
    >>> BiC(base=ER(Memory(capacity=100, admission="class_balanced"))).memory.capacity
    100
    """
    for name in ("liftable", "traceable"):
        object.__setattr__(strategy, name, getattr(type(strategy), name) and getattr(base, name))
    if base.memory is None:
        return
    if base.memory == _default_memory(base):
        object.__setattr__(strategy, "base", replace(base, memory=strategy.memory))
    elif strategy.memory == _default_memory(strategy):
        object.__setattr__(strategy, "memory", base.memory)


def check_base(strategy: Strategy, base: Strategy, spec: Spec) -> None:
    """Raise `InputError` if the base is invalid or its logits cannot be corrected with the contents of the memory."""
    outer, name = type(strategy).__name__, type(base).__name__
    try:
        base.check(spec)
    except InputError as error:
        raise InputError(str(error).replace("strategy.", "strategy.base.", 1)) from error
    if base.memory not in (None, strategy.memory):
        raise InputError(
            f"strategy.base.memory={base.memory}: must equal strategy.memory={strategy.memory}, since {outer} and its "
            "base share one memory; pass it to one of them"
        )
    if not base.keeps_inputs:
        raise InputError(
            f"strategy.base: {name} keeps no inputs in memory, which {outer} trains on; choose another base, such as ER"
        )
    sources = [{phase.source for phase in base.phases(e, spec)} for e in range(spec.experiences)]
    if base.fills_memory or any("memory" in used for used in sources):
        raise InputError(f"strategy.base: {name} fills or trains on its memory itself; {outer} cannot share it")
    if not all("experience" in used for used in sources):
        raise InputError(f"strategy.base: {name} does not train on each experience, whose classes {outer} corrects")
    if type(base).readout is not Strategy.readout:
        raise InputError(f"strategy.base: {name} predicts from its memory; there are no logits for {outer} to correct")


def _default_memory(strategy: Strategy) -> Any:
    return next(f.default_factory() for f in fields(strategy) if f.name == "memory" and callable(f.default_factory))
