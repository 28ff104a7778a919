"""Reproduce the Split-Fashion-MNIST table of Buzzega et al. 2020 (ICPR), M = 500.

Protocol: class-incremental, 5 experiences of 2 classes in natural order, MLP 784-256-256-10 with ReLU and Xavier
initialisation, SGD, one epoch, batches of 10, pixels in [0, 1], reservoir of 500, argmax over all 10 logits, 10 seeds.
`study.py` explains the command line.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path

import figures
from cells import accuracy, machine, others, row
from study import DOCS, HERE, Arrays, Runs, Study, main, merged, render
from table import Run

from cl_lib import Record
from cl_lib.report import accuracy_matrices, entries, over_time, reliability_diagrams

OPTIONS = [
    "stream=split_fashion_mnist",
    "stream.eval_classes=all",
    "model.hidden=[256,256]",
    "epochs=1",
    "batch_size=10",
    "seeds=10",
    "progress=false",
    "engine.threads=1",
]
FIGURES = {"over_time": over_time, "matrices": accuracy_matrices, "reliability": reliability_diagrams}
DRAWN = {"finetune": "finetune", "er": "er", "icarl": "icarl", "joint": "joint"}
RUNS = {
    "Fine-tuning": ("finetune", ["strategy=finetune", "optim.lr=0.1"]),
    "ER": ("er", ["strategy=er", "strategy.memory.batch=128", "optim.lr=0.1"]),
    "iCaRL": ("icarl", ["strategy=icarl", "stream.train_classes=seen", "optim.lr=0.03", "optim.weight_decay=1e-3"]),
    "SI": ("si", ["strategy=si", "strategy.c=1", "strategy.xi=0.9", "optim.lr=0.03"]),
    "online EWC": ("ewc_online", ["strategy=ewc_online", "strategy.lam=180", "strategy.gamma=1", "optim.lr=0.01"]),
}
BIC = ["strategy=bic", "strategy.passes=50"]
SI = ["strategy.base._target_=cl_lib.strategies.SI", "+strategy.base.c=1", "+strategy.base.xi=0.9", "optim.lr=0.03"]
EWC = ["strategy.base._target_=cl_lib.strategies.EWC", "+strategy.base.mode=online", "+strategy.base.lam=180"]
RUNS |= {
    "SI + BiC": ("si_bic", [*BIC, *SI]),
    "online EWC + BiC": ("ewc_online_bic", [*BIC, *EWC, "+strategy.base.gamma=1", "optim.lr=0.01"]),
}
TRICKS = ["strategy=er_tricks", "optim.lr=0.03"]
DECAY = ["optim.schedule.kind=exponential", "optim.schedule.decay=0.9995"]
"""A step of ten new samples; the authors' 0.99995 is a sample's."""
SLOW = [DECAY[0], "optim.schedule.decay=0.99995"]
PLENTY = ["strategy.memory.batch=128", "optim.lr=0.1"]
CORRECTED = "strategy.bias_epochs=50"
NEITHER = ["strategy.balanced=false", "strategy.loss_aware=false"]
LADDER = {
    "ER, 32 recalled": ("er32", ["strategy=er", "strategy.memory.batch=32", "optim.lr=0.03"]),
    "and a balanced reservoir": ("er32_balanced", [TRICKS[0], "strategy.loss_aware=false", TRICKS[1]]),
    "or a loss-aware one": ("er32_loss_aware", [TRICKS[0], "strategy.balanced=false", TRICKS[1]]),
    "both": ("er32_both", TRICKS),
    "both, and the decay of the learning rate": ("er32_both_decay", [*TRICKS, *DECAY]),
    "and bias correction, 50 epochs": ("er32_all", [*TRICKS, *DECAY, CORRECTED]),
    "both, and a decay of 0.99995 a step in place of a sample": ("er32_both_slow", [*TRICKS, *SLOW]),
    "and bias correction of these": ("er32_slow_all", [*TRICKS, *SLOW, CORRECTED]),
    "bias correction alone": ("er32_bias", [TRICKS[0], *NEITHER, CORRECTED, TRICKS[1]]),
    "both, 128 recalled, lr 0.1 as ER above": ("er128_both", [TRICKS[0], *PLENTY]),
    "and bias correction, no decay": ("er128_both_bias", [TRICKS[0], *PLENTY, CORRECTED]),
}
"""ER + Tricks, rung by rung."""
RUNS["ER + Tricks"] = LADDER["and bias correction of these"]
ICARL = ["strategy=icarl", "stream.train_classes=seen", "optim.lr=0.03"]
DECAYED = "optim.weight_decay=1e-3"
EXEMPLARS = {
    "10 exemplars recalled a step": ("icarl10", [*ICARL, "strategy.memory.batch=10"]),
    "32": ("icarl32", ICARL),
    "32, weight decay 1e-3 (the row above)": ("icarl", [*ICARL, DECAYED]),
    "128, weight decay 1e-3": ("icarl128", [*ICARL, DECAYED, "strategy.memory.batch=128"]),
    "32, weight decay 1e-3, cross-entropy over all ten classes": (
        "icarl32_all",
        [ICARL[0], *ICARL[2:], DECAYED, "stream.train_classes=all"],
    ),
    "32, weight decay 1e-3, lr 0.1": ("icarl32_fast", [*ICARL[:2], "optim.lr=0.1", DECAYED]),
    "128, weight decay 1e-3, lr 0.1": ("icarl128_fast", [*ICARL[:2], *PLENTY, DECAYED]),
}
"""iCaRL, rung by rung."""
SEARCH = ["strategy=joint", "stream.valid=0.1", "eval_on=valid", "grid.optim.lr=[0.03,0.1,0.2]", "seeds=3"]
PLANNED = {**RUNS, **LADDER, **EXEMPLARS}


def best_lr(search: Run) -> float:
    """The learning rate with the highest mean accuracy on validation data."""
    return max(search.points(), key=lambda point: search.metric("accuracy", point[1]).mean or 0.0)[0]["optim.lr"]


def options(run: str, runs: Runs) -> list[str]:
    if run == "joint_search":
        return merged(OPTIONS, SEARCH)
    if run == "joint":
        return merged(OPTIONS, ["strategy=joint", f"optim.lr={best_lr(runs['joint_search']):g}"])
    return merged(OPTIONS, dict(PLANNED.values())[run])


def targets() -> dict[str, dict[str, str]]:
    """Published accuracies and the bars within which ours must lie, by name."""
    with (HERE / "targets.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file) if row["benchmark"] == "split_fashion_mnist"}


def results(runs: Runs) -> dict[str, Run]:
    """The rows of the first table."""
    rows = {name: runs[run] for name, (run, _) in RUNS.items() if run in runs}
    return rows | ({"Joint": runs["joint"]} if "joint" in runs else {})


def line(name: str, run: Run, target: Mapping[str, str]) -> str:
    """A result beside the published one."""
    mean = run.metric("accuracy").mean
    assert mean is not None
    published, difference, bar = "–", "–", "shown only"
    if target["target"]:
        published, difference = f"{100 * float(target['target']):.2f}", f"{100 * (mean - float(target['target'])):+.2f}"
    if target["low"]:
        low, high = float(target["low"]), float(target["high"])
        bar = f"{100 * low:.2f}–{100 * high:.2f}: {'met' if low <= mean <= high else '**missed**'}"
    seconds = f"{run.info['training_seconds']:.0f}"
    return row([name, *accuracy(run), published, difference, bar, *others(run), seconds])


def page(runs: Runs) -> str:
    """The results as Markdown."""
    found, published, search = results(runs), targets(), runs["joint_search"]

    def ladder(rungs: Mapping[str, tuple[str, list[str]]]) -> list[str]:
        there = {name: runs[run] for name, (run, _) in rungs.items() if run in runs}
        return [row([name, *accuracy(run), *others(run)]) for name, run in there.items()]

    points = []
    for hyper, members in search.points():
        metric = search.metric("accuracy", members)
        assert metric.mean is not None
        assert metric.std is not None
        points.append(row([f"{hyper['optim.lr']:g}", f"{100 * metric.mean:.2f} ± {100 * metric.std:.2f}"]))
    first = next(iter(found.values()))
    return render(
        "split_fashion_mnist",
        results=[line(name, run, published[name]) for name, run in found.items()],
        missing="; ".join(name for name, (run, _) in PLANNED.items() if run not in runs),
        targets={name: f"{100 * float(t['target']):.2f}" for name, t in published.items() if t["target"]},
        tricks=ladder(LADDER),
        exemplars=ladder(EXEMPLARS),
        commands={name: run.info["command"] for name, run in found.items()},
        lr=f"{best_lr(search):g}",
        points=points,
        machine=machine(first),
        data_hash=first.info["data_hash"],
    )


def pages(runs: Runs) -> dict[Path, str]:
    """The page and its figures."""
    lines = entries([figures.drawable(runs[run], strategy) for run, strategy in DRAWN.items()])
    images = {DOCS / "images" / f"split_fashion_mnist_{n}.svg": draw(lines) + "\n" for n, draw in FIGURES.items()}
    return {DOCS / "results" / "split_fashion_mnist.md": page(runs), **images}


def arrays(run: str, record: Record) -> Arrays:
    return figures.arrays(record) if run in DRAWN else {}


NAMES = [*dict.fromkeys(run for run, _ in PLANNED.values()), "joint_search", "joint"]
STUDY = Study("split_fashion_mnist", NAMES, options, pages, arrays)

if __name__ == "__main__":
    sys.exit(main(STUDY))
