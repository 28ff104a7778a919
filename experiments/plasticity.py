"""Loss of plasticity: does a network still learn its two-hundredth task as well as its first?

Permuted-Digits, 200 experiences, MLP 64-50-50-50-10, SGD, batches of 10, two epochs, ten seeds. Hyper-parameters are
searched on the first three experiences of the stream, a fifth of their training data held out. `study.py` explains the
command line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from cells import chosen, machine, number, row
from every_strategy import best
from study import DOCS, Arrays, Runs, Study, main, merged, render
from table import Run

from cl_lib import Record
from cl_lib.report.canvas import panels, style, svg
from cl_lib.stats import paired_difference

EXPERIENCES, EVERY = 200, 10
PROTOCOL = [
    "stream=permuted_digits",
    f"stream.experiences={EXPERIENCES}",
    "model.hidden=[50,50,50]",
    "epochs=2",
    "batch_size=10",
    "seeds=10",
    f"eval_every={EVERY}",
    "progress=false",
    "engine.threads=1",
]
SEARCH = ["stream.experiences=3", "stream.valid=0.2", "eval_on=valid", "eval_every=1", "seeds=3"]
NAMES = {
    "finetune": "SGD",
    "l2_init": "L2 towards initialisation",
    "shrink_perturb": "shrink and perturb",
    "continual_backprop": "continual back-propagation",
    "redo": "ReDo",
}
GRIDS = {
    "finetune": {"optim.lr": [0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3]},
    "l2_init": {"optim.lr": [0.03, 0.1, 0.2], "strategy.lam": [0.0001, 0.001, 0.01]},
    "shrink_perturb": {"optim.lr": [0.03, 0.1, 0.2], "strategy.shrink": [0.4, 0.6, 0.8]},
    "continual_backprop": {"optim.lr": [0.03, 0.1, 0.2], "strategy.rate": [0.0001, 0.001, 0.01]},
    "redo": {"optim.lr": [0.03, 0.1, 0.2], "strategy.tau": [0.0, 0.025, 0.1]},
}


def options(run: str, runs: Runs) -> list[str]:
    """A search, or ten seeds with the hyper-parameters that are best after the third experience."""
    name, kind = run.split("/")
    if kind == "search":
        points = [f"grid.{k}=[{','.join(f'{v:g}' for v in values)}]" for k, values in GRIDS[name].items()]
        return merged(PROTOCOL, [f"strategy={name}", *SEARCH, *points])
    hyper = best(runs[f"{name}/search"])
    return merged(PROTOCOL, [f"strategy={name}", *(f"{k}={v:g}" for k, v in hyper.items())])


def arrays(run: str, record: Record) -> Arrays:
    """Experience numbers, and the accuracy ``(seeds, rows)`` on each right after it was trained on."""
    if run.endswith("/search"):
        return {}
    matrix, after = record.arrays["matrix.accuracy"], [row["experience"] for row in record.rows]
    kept = [(i, e) for i, e in enumerate(after) if e]
    return {
        "experience": np.array([e for _, e in kept]),
        "current": np.stack([matrix[:, i, e - 1] for i, e in kept], 1),
    }


def figure(runs: dict[str, Run]) -> str:
    """Accuracy on the task just trained, over 200 of them."""
    with panels(1, 1, 3.8) as (drawing, (axes,)):
        for k, (name, run) in enumerate(runs.items()):
            look, x, y = style(k), run.arrays["experience"], run.arrays["current"]
            mean, std = np.nanmean(y, 0), np.nanstd(y, 0, ddof=1)
            axes.plot(x, mean, label=NAMES[name], color=look.colour, marker=look.marker, markersize=4, linewidth=1.5)
            axes.fill_between(x, mean - std, mean + std, color=look.colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("tasks learnt")
        axes.set_ylabel("accuracy on the task just learnt")
        axes.set_ylim(top=1)
        axes.grid(axis="y")
        drawing.legend(loc="outside lower center", ncols=3)
        return svg(drawing, "Accuracy on the task just learnt, over 200 tasks, by strategy")


def page(runs: dict[str, Run], hyper: dict[str, dict[str, float]]) -> str:
    """The results as Markdown."""
    lines, last = [], {}
    for name, run in runs.items():
        y = run.arrays["current"]
        means = [y[:, part].mean(1) for part in np.array_split(np.arange(y.shape[1]), 4)]
        last[name] = means[-1]
        change = paired_difference(means[-1], means[0])
        cell = number(None)
        if change.mean is not None and change.ci95 is not None:
            cell = f"{100 * change.mean:+.1f} ({100 * change.ci95[0]:+.1f} to {100 * change.ci95[1]:+.1f})"
        shown = NAMES[name] + (f" ({run.diverged} diverged)" if run.diverged else "")
        lines.append(row([shown, *(f"{100 * np.nanmean(part):.1f}" for part in means), cell, chosen(hyper[name])]))
    differences = {}
    for name in list(runs)[1:]:
        pair = paired_difference(last[name], last["finetune"])
        if pair.mean is not None and pair.ci95 is not None:
            low, high = (100 * v for v in pair.ci95)
            differences[NAMES[name]] = f"{100 * pair.mean:+.1f} points ({low:+.1f} to {high:+.1f})"
    return render(
        "plasticity",
        experiences=EXPERIENCES,
        lines=lines,
        differences=differences,
        commands={NAMES[name]: run.info["command"] for name, run in runs.items()},
        machine=machine(next(iter(runs.values()))),
    )


def pages(runs: Runs) -> dict[Path, str]:
    """The page and its figure."""
    found = {name: runs[f"{name}/run"] for name in NAMES if f"{name}/run" in runs}
    hyper = {name: best(runs[f"{name}/search"]) for name in found}
    image = DOCS / "images" / "plasticity.svg"
    return {DOCS / "results" / "plasticity.md": page(found, hyper), image: figure(found) + "\n"}


STUDY = Study("plasticity", [f"{n}/{kind}" for n in NAMES for kind in ("search", "run")], options, pages, arrays)

if __name__ == "__main__":
    sys.exit(main(STUDY))
