"""Policies: which trained model serves the next window, decided from what is known by then.

`cl_lib.backtest` runs a policy on a finished record, ``cl_lib.run(policy=...)`` while training.
"""

from cl_lib.policies.check import check_policy
from cl_lib.policies.cost_aware import CostAware
from cl_lib.policies.every import Every
from cl_lib.policies.gated import Gate, Gated, NoSliceDrop, NoWorse
from cl_lib.policies.history import WindowHistory, WindowSamples
from cl_lib.policies.known import Known, Paired
from cl_lib.policies.never import Never
from cl_lib.policies.on_decay import OnDecay
from cl_lib.policies.on_drift import OnDrift
from cl_lib.policies.on_gain import OnGain
from cl_lib.policies.policy import Policy
from cl_lib.policies.random import Random

__all__ = [
    "CostAware",
    "Every",
    "Gate",
    "Gated",
    "Known",
    "Never",
    "NoSliceDrop",
    "NoWorse",
    "OnDecay",
    "OnDrift",
    "OnGain",
    "Paired",
    "Policy",
    "Random",
    "WindowHistory",
    "WindowSamples",
    "check_policy",
]
