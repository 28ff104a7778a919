"""Options of ``cl-backtest`` and what they name: policies with their fields, watches, gates and grids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from cl_lib import drift, policies
from cl_lib.errors import InputError, nearest
from cl_lib.policies.policy import Policy, float_fields
from cl_lib.validation import is_number, typed

POLICIES: dict[str, Any] = {
    "never": policies.Never,
    "every": policies.Every,
    "random": policies.Random,
    "on_drift": policies.OnDrift,
    "on_decay": policies.OnDecay,
    "on_gain": policies.OnGain,
    "cost_aware": policies.CostAware,
}
WATCHES: dict[str, Any] = {
    "inputs": drift.Inputs,
    "labels": drift.Labels,
    "predicted_labels": drift.PredictedLabels,
    "confidence": drift.Confidence,
    "errors": drift.Errors,
}
GATES: dict[str, Any] = {"no_worse": policies.NoWorse, "no_slice_drop": policies.NoSliceDrop}


class Candidate(NamedTuple):
    """A policy to be tested, its name in tables, and the grid of its fields."""

    name: str
    policy: Policy
    grid: dict[str, list[float]]


def candidates(
    names: Sequence[str],
    fields: Mapping[str, Any],
    grid: Mapping[str, Any],
    gates: Sequence[str],
    of_gates: Mapping[str, Any],
) -> list[Candidate]:
    """Policies of the given names with fields, grids and gates; a field applies to every policy that has it.

    Examples
    --------
    >>> candidates(["every", "on_decay"], {"rise": 0.05}, {"windows": [2, 4]}, [], {})[0]
    Candidate(name='every', policy=Every(windows=1), grid={'windows': [2, 4]})
    """
    kinds = [_named(name, POLICIES, "policy") for name in dict.fromkeys(names)]
    _all_used("policy", [key.partition(".")[0] for key in fields], kinds)
    _all_used("grid.policy", grid, kinds)
    built = _gates(gates, {k: v for k, v in of_gates.items() if k != "staleness"})
    if of_gates and not gates:
        raise InputError(f"gate.{next(iter(of_gates))}: needs a gate, such as gate=no_worse")
    out = []
    for name, kind in zip(dict.fromkeys(names), kinds, strict=True):
        for label, given in _variants(kind, fields):
            policy, title = kind(**given), " ".join([name, *label])
            axes = {k: _numbers(v, f"grid.policy.{k}") for k, v in grid.items() if hasattr(policy, k)}
            free = [] if built else float_fields(policy)
            apart = [k for k in axes if k not in free]
            for values in itertools.product(*(axes[k] for k in apart)):
                one = {k: _typed(kind, k, v, "grid.policy") for k, v in zip(apart, values, strict=True)}
                chosen: Policy = dataclasses.replace(policy, **one)
                chosen.check()
                whole = " ".join([title, *(f"{k}={v:g}" for k, v in one.items())])
                if built:
                    chosen = policies.Gated(chosen, built, **{k: v for k, v in of_gates.items() if k == "staleness"})
                    whole = f"gated {whole}"
                out.append(Candidate(whole, chosen, {k: v for k, v in axes.items() if k in free}))
    return out


def _variants(kind: Any, fields: Mapping[str, Any]) -> list[tuple[list[str], dict[str, Any]]]:
    """Labels and fields of one policy: several watches give several policies."""
    known = {f.name for f in dataclasses.fields(kind)}
    given = {k: _typed(kind, k, v) for k, v in fields.items() if k in known and k != "watch"}
    label = [f"{k}={_short(v)}" for k, v in given.items()]
    of_watch = {k.removeprefix("watch."): v for k, v in fields.items() if k.startswith("watch.")}
    if "watch" not in known or not ("watch" in fields or of_watch):
        return [(label, given)]
    out = []
    for name in words(fields.get("watch", "confidence"), "policy.watch"):
        watch = _named(name, WATCHES, "policy.watch")
        inner = {k: _typed(watch, k, v, "policy.watch") for k, v in of_watch.items()}
        out.append(
            ([f"watch={name}", *(f"{k}={v}" for k, v in inner.items()), *label], {**given, "watch": watch(**inner)})
        )
    return out


def _gates(names: Sequence[str], fields: Mapping[str, Any]) -> tuple[policies.Gate, ...]:
    kinds = [_named(name, GATES, "gate") for name in dict.fromkeys(names)]
    if kinds:
        _all_used("gate", fields, kinds)
    out = []
    for name, kind in zip(dict.fromkeys(names), kinds, strict=True):
        known = {f.name: f for f in dataclasses.fields(kind)}
        given = {k: _typed(kind, k, v, "gate") for k, v in fields.items() if k in known}
        for field in known.values():
            if field.default is dataclasses.MISSING and field.name not in given:
                raise InputError(f"gate={name}: needs gate.{field.name}, such as gate.{field.name}=class")
        out.append(kind(**given))
    return tuple(out)


def _named(name: str, known: Mapping[str, Any], where: str) -> Any:
    if name not in known:
        raise InputError(f"{where}={name}: unknown name{nearest(name, known)}")
    return known[name]


def _all_used(where: str, fields: Sequence[str] | Mapping[str, Any], kinds: Sequence[Any]) -> None:
    """Raise `InputError` for a field that none of the classes has."""
    known = {f.name for kind in kinds for f in dataclasses.fields(kind)}
    for name in fields:
        if name not in known:
            raise InputError(f"{where}.{name}: none of the named {_plural(where)} has this field{nearest(name, known)}")


def _plural(where: str) -> str:
    return "gates" if where == "gate" else "policies"


def _typed(kind: Any, name: str, value: Any, where: str = "policy") -> Any:
    hints, known = get_type_hints(kind), [f.name for f in dataclasses.fields(kind)]  # hints also name class variables
    if name not in known:
        raise InputError(f"{where}.{name}: {kind.__name__} has no such field{nearest(name, known)}")
    if hints[name] is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if where == "policy" and isinstance(value, str) and "," in value and hints[name] in (int, float):
        raise InputError(f"policy.{name}={value}: is one number; for several give grid.policy.{name}=[{value}]")
    return typed(value, hints[name], f"{where}.{name}")


def words(value: Any, where: str) -> list[str]:
    """Names separated by commas, or a list of names."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    names = [str(part).strip() for part in parts]
    if value is None or not all(names) or not names:
        raise InputError(f"{where}={'' if value is None else value}: must be one or several names, separated by commas")
    return names


def _numbers(value: Any, where: str) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(is_number(v) for v in values):
        raise InputError(f"{where}={value!r}: must be a list of numbers, such as [0.05,0.1]")
    return values


def _short(value: Any) -> str:
    return f"{value:g}" if is_number(value) else str(value)
