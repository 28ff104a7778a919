"""What every policy must fulfil: no look-ahead, the same decision each time, independent replicas, trained rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cl_lib.errors import InputError
from cl_lib.policies.history import WindowHistory, WindowSamples
from cl_lib.policies.policy import Policy
from cl_lib.policies.walk import walk

REPLICAS, WINDOWS, SAMPLES, CLASSES, BINS, FEATURES = 3, 10, 60, 3, 15, 4


class _Parts(dict[str, Callable[..., Any]]):
    """Parts of a history that has slices of any name."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).startswith(("slice.", "correct."))

    def __missing__(self, name: str) -> Callable[..., Any]:
        return self[name.partition(".")[0]]


def check_policy(policy: Policy, seed: int = 0, histories: int = 5) -> None:
    """Run a policy on random histories and raise `InputError` for the first rule that its rows or alarms break.

    1. It returns rows that are trained, as integers of the right shape.
    2. The same history gives the same decisions.
    3. Results that are not known yet, set to NaN, change no decision.
    4. A replica gets the same decisions alone as together with others.

    Parameters
    ----------
    policy : Policy
    seed : int, default 0
    histories : int, default 5
        Number of histories, each with label delays of 0 and 2 windows.

    Examples
    --------
    >>> from cl_lib.policies import OnGain
    >>> check_policy(OnGain())
    """
    if not isinstance(policy, Policy):
        raise InputError(f"policy={policy!r}: must be a cl_lib.policies.Policy")
    policy.check()
    if dataclasses.is_dataclass(policy) and not type(policy).__dataclass_params__.frozen:
        raise InputError(f"policy {type(policy).__name__}: must be a frozen dataclass, so that it keeps no state")
    name = type(policy).__name__
    for number in range(histories):
        for delay in (0, 2):
            arrays = _random(np.random.default_rng([seed, number]))
            everyone = range(REPLICAS)
            found = _walk(policy, arrays, delay, everyone)
            if not np.array_equal(_walk(policy, arrays, delay, everyone), found):
                raise InputError(f"policy {name}: decides differently on the same history; draw from known.seeds")
            for replica in everyone:
                if not np.array_equal(_walk(policy, arrays, delay, [replica])[:, 0], found[:, replica]):
                    raise InputError(f"policy {name}: decides differently for a replica that is alone")
            for window in range(delay + 2, WINDOWS):
                past = _walk(policy, _hidden(arrays, window, delay), delay, everyone, window + 1)
                if not np.array_equal(past, found[..., : window - delay]):
                    raise InputError(f"policy {name}: its decision before window {window} uses later results")


def _walk(
    policy: Policy, arrays: dict[str, np.ndarray], delay: int, replicas: Sequence[int], until: int = WINDOWS
) -> np.ndarray:
    """Rows and alarms, ``(2, R, W)``."""
    chosen = list(replicas)
    return np.stack(walk(_history(arrays, chosen), policy, delay, delay + 1, until, (len(chosen),)))


def _random(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Per-sample results of models that are best right after training and of windows that drift."""
    age = np.abs(np.arange(WINDOWS + 1)[:, None] - 1 - np.arange(WINDOWS))
    difficulty = 0.2 + 0.05 * age + 0.1 * rng.random((REPLICAS, WINDOWS + 1, WINDOWS))
    nll = rng.exponential(difficulty[..., None], (REPLICAS, WINDOWS + 1, WINDOWS, SAMPLES))
    return {
        "nll": nll,
        "correct": (nll < 0.5).astype(float),
        "predicted": rng.integers(0, CLASSES, nll.shape).astype(float),
        "confidence": rng.integers(0, BINS, nll.shape).astype(float),
        "labels": rng.integers(1, 30, (WINDOWS, CLASSES)).astype(float),
        "inputs": rng.integers(1, 30, (WINDOWS, FEATURES, 10)).astype(float),
        "group": rng.integers(0, 2, (WINDOWS, SAMPLES)).astype(float),
    }


def _hidden(arrays: dict[str, np.ndarray], window: int, delay: int) -> dict[str, np.ndarray]:
    """A copy without the results that are not known before a window."""
    newest = window - delay
    out = {name: values.copy() for name, values in arrays.items()}
    for name in ("nll", "correct"):
        out[name][:, newest:] = out[name][:, :, newest:] = np.nan
    for name in ("predicted", "confidence"):
        out[name][:, newest:] = out[name][:, :, window:] = np.nan
    out["labels"][newest:] = out["group"][newest:] = np.nan
    out["inputs"][window:] = np.nan
    return out


def _history(arrays: dict[str, np.ndarray], replicas: list[int]) -> WindowHistory:
    part = {name: v[replicas] if v.ndim == 4 else v for name, v in arrays.items()}
    nll, correct, group = part["nll"], part["correct"], part["group"]

    def by(values: np.ndarray, kinds: int) -> np.ndarray:
        return np.stack([np.where(np.isnan(values).any(-1), np.nan, (values == k).sum(-1)) for k in range(kinds)], -1)

    member = np.stack([group == g for g in range(2)], -2)  # (E, S, N)
    parts = _Parts(
        {
            "labels": lambda: part["labels"],
            "inputs": lambda: part["inputs"],
            "predicted": lambda row: by(part["predicted"][:, row], CLASSES),
            "confidence": lambda row: by(part["confidence"][:, row], BINS),
            "slice": lambda: np.where(np.isnan(group).any(-1)[:, None], np.nan, member.sum(-1)),
            "correct": lambda row: (member * correct[:, row, :, None, :]).sum(-1),
        }
    )
    losses = {"error": 1 - correct.mean(-1), "nll": nll.mean(-1), "brier": nll.mean(-1) / 2}
    support = np.full(WINDOWS, SAMPLES)
    return WindowHistory(
        losses, support, np.array(replicas), parts, lambda i, w: WindowSamples(correct[:, i, w], nll[:, i, w])
    )
