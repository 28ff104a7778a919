"""The walk of a policy through a history, window by window."""

from __future__ import annotations

from typing import Any

import numpy as np

from cl_lib.errors import InputError
from cl_lib.policies.history import WindowHistory
from cl_lib.policies.known import Known
from cl_lib.policies.policy import Policy


def walk(
    history: WindowHistory, policy: Policy, delay: int, first: int, last: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that serve windows ``first`` to ``last - 1``, and whether an update was asked for; ``(*shape, W)``."""
    serving = np.full(shape, first - delay)
    since = np.zeros(shape, int)
    path, alarms = [serving], [np.zeros(shape, bool)]
    for window in range(first + 1, last):
        since = since + 1
        serving.flags.writeable = since.flags.writeable = False  # a policy that changed them would change the past
        known = Known(window, window - delay, serving, since, history)
        row = checked(policy, policy.choose(known), known)
        own = type(policy).alarms is not Policy.alarms
        alarms.append(np.broadcast_to(policy.alarms(known) if own else row > serving, shape))
        since = np.where(row == serving, since, 0)
        serving = row
        path.append(row)
    return np.stack(path, -1), np.stack(alarms, -1)


def checked(policy: Policy, row: Any, known: Known) -> np.ndarray:
    """The decision of a policy; `InputError` if it is not an array of trained rows."""
    name = type(policy).__name__
    if not isinstance(row, np.ndarray) or row.dtype.kind not in "iu":
        kind = f"an array of {row.dtype}" if isinstance(row, np.ndarray) else f"a {type(row).__name__}"
        raise InputError(f"policy {name}: choose returned {kind}; must be an integer array of shape {known.shape}")
    if row.shape != known.shape:
        raise InputError(f"policy {name}: choose returned the shape {row.shape}; must be {known.shape}")
    if row.min() < 1 or row.max() > known.newest:
        bad = int(row.max() if row.max() > known.newest else row.min())
        raise InputError(
            f"policy {name}: choose returned row {bad} before window {known.window}; rows 1 to {known.newest} are "
            "trained"
        )
    return row.astype(np.int64)
