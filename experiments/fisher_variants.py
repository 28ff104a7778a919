"""Which Fisher information should EWC use? Task-incremental Split-Fashion-MNIST, each variant over a grid of λ.

The question of van de Ven (ICLR Blogposts 2025) on other images: five experiences of two classes, one head each, MLP
784-50-50-10, Adam, 2,000 steps of 30 samples an experience, Fisher information over all 12,000 training samples of
an experience; fourteen λ times ten seeds for each variant, trained as two populations. `study.py` explains the command
line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from cells import machine, number, row
from study import DOCS, Runs, Study, main, merged, render
from table import Run

from cl_lib.curvature.fisher import VARIANTS
from cl_lib.report.canvas import GREY, panels, style, svg
from cl_lib.stats import paired_difference

PARTS = {"low": [10.0**k for k in range(-4, 0)], "high": [10.0**k for k in range(10)]}
"""Each part of a variant's grid is one population."""
LAMBDAS = [value for part in PARTS.values() for value in part]
PROTOCOL = [
    "stream=split_fashion_mnist",
    "stream.scenario=task",
    "strategy=ewc",
    "strategy.samples=12000",
    "model.hidden=[50,50]",
    "optim=adam",
    "optim.lr=0.001",
    "epochs=5",
    "batch_size=30",
    "seeds=10",
    "progress=false",
    "engine.threads=1",
    "engine.compile=true",
]
PUBLISHED = {"exact": 99.12, "sample": 99.12, "empirical": 99.12, "batched": 99.11, "none": 85.41}
WITHIN = 0.005
"""λ whose mean accuracy is at most this below the best belong to the plateau."""
NAMES = [*(f"{variant}/{part}" for variant in VARIANTS for part in PARTS), "none/high"]
Variant = list[Run]


def options(run: str, runs: Runs) -> list[str]:
    """``none`` is fine-tuning."""
    variant, part = run.split("/")
    if variant == "none":
        return merged(PROTOCOL, ["strategy.lam=0"])
    values = ",".join(f"{value:g}" for value in PARTS[part])
    return merged(PROTOCOL, [f"strategy.fisher={variant}", f"grid.strategy.lam=[{values}]"])


def accuracies(found: Variant) -> np.ndarray:
    """``(λ, seeds)`` accuracy after the last experience; one row for fine-tuning; diverged replicas are NaN."""
    return np.array(
        [[run.metrics["accuracy"][i] for i in members] for run in found for _, members in run.points()], float
    )


def means(found: Variant) -> np.ndarray:
    """Mean accuracy of each λ; one that diverged for a seed counts as 0."""
    return np.nan_to_num(accuracies(found).mean(1), nan=0.0)


def plateau(found: Variant) -> tuple[float, float]:
    """The lowest and highest λ that come within half a point of the best."""
    mean = means(found)
    near = [value for value, reached in zip(LAMBDAS, mean, strict=True) if reached >= mean.max() - WITHIN]
    return near[0], near[-1]


def onset(found: Variant, plain: float) -> float:
    """The smallest λ from which on, up to the best, accuracy is nearer to the best than to fine-tuning."""
    mean = means(found)
    top = int(np.argmax(mean))
    far = [k for k in range(top) if mean[k] < (plain + mean[top]) / 2]
    return LAMBDAS[far[-1] + 1 if far else 0]


def claim(found: dict[str, Variant]) -> dict[str, str]:
    """What the table says of "batched needs a λ orders of magnitude larger"."""
    plain = float(means(found["none"])[0])
    best = {v: LAMBDAS[int(np.argmax(means(found[v])))] for v in ("exact", "batched")}
    start = {v: onset(found[v], plain) for v in ("exact", "batched")}
    top, needed = (float(np.log10(d["batched"] / d["exact"])) for d in (best, start))
    verdict = "**confirmed**" if needed >= 1.5 and top >= 1.5 else "**refuted**"
    if (needed >= 1.5) != (top >= 1.5):
        verdict = "**confirmed in part**"
    numbers = {f"{v}_{what}": f"{d[v]:.0e}" for v in best for what, d in (("best", best), ("start", start))}
    return {"verdict": verdict, "top": f"{top:+.0f}", "needed": f"{needed:+.0f}", **numbers}


def figure(found: dict[str, Variant]) -> str:
    """Accuracy over λ, a line for each variant."""
    with panels(1, 1, 3.8) as (drawing, (axes,)):
        for k, variant in enumerate(VARIANTS):
            look, y = style(k), 100 * accuracies(found[variant])
            mean, std = y.mean(1), y.std(1, ddof=1)
            axes.plot(LAMBDAS, mean, label=variant, color=look.colour, marker=look.marker, markersize=4, linewidth=1.5)
            axes.fill_between(LAMBDAS, mean - std, mean + std, color=look.colour, alpha=0.12, linewidth=0)
        axes.axhline(100 * float(means(found["none"])[0]), color=GREY, linestyle=":", label="fine-tuning")
        axes.set_xscale("log")
        axes.set_xticks(LAMBDAS[::2], [f"{value:.0e}" for value in LAMBDAS[::2]])
        axes.set_xlabel("λ")
        axes.set_ylabel("accuracy, %")
        axes.set_ylim(top=100)
        axes.grid(axis="y")
        drawing.legend(loc="outside lower center", ncols=5)
        return svg(drawing, "Accuracy over the strength of the penalty, by variant of the Fisher information")


def line(variant: str, runs: Variant, reference: np.ndarray, plain: float) -> str:
    """The best λ of a variant."""
    top = int(np.argmax(means(runs)))
    reached, grid = accuracies(runs)[top], variant != "none"
    low, high = plateau(runs) if grid else (0.0, 0.0)
    pair = paired_difference(reached, reference)
    return row(
        [
            variant,
            f"{LAMBDAS[top]:.0e}" if grid else "–",
            f"{100 * reached.mean():.2f} ± {100 * reached.std(ddof=1):.2f}",
            f"{onset(runs, plain):.0e}" if grid else "–",
            f"{low:.0e} to {high:.0e}" if grid else "–",
            "–" if variant == "exact" or pair.mean is None else f"{100 * pair.mean:+.2f}",
            "–" if variant == "exact" or pair.ci95 is None else " to ".join(f"{100 * v:+.2f}" for v in pair.ci95),
            f"{PUBLISHED[variant]:.2f}",
        ]
    )


def page(found: dict[str, Variant]) -> str:
    """The results as Markdown."""
    reference = accuracies(found["exact"])[int(np.argmax(means(found["exact"])))]
    plain = float(means(found["none"])[0])
    every = []
    table = {variant: accuracies(found[variant]) for variant in VARIANTS}
    for k, value in enumerate(LAMBDAS):
        cells = [f"{100 * t[k].mean():.2f} ± {100 * t[k].std(ddof=1):.2f}" for t in table.values()]
        every.append(row([f"{value:.0e}", *(c if "nan" not in c else "diverged" for c in cells)]))
    seconds = {v: number(sum(r.info["training_seconds"] for r in found[v]), 0) for v in VARIANTS}
    return render(
        "fisher_variants",
        lines=[line(variant, runs, reference, plain) for variant, runs in found.items()],
        claim=claim(found),
        head=[row(["λ", *VARIANTS]), "|" + "---|" * (1 + len(VARIANTS))],
        every=every,
        commands=[(name, run.info["command"]) for name, runs in found.items() for run in runs],
        machine=machine(found["exact"][1]),
        seconds=", ".join(f"{variant} {value}" for variant, value in seconds.items()),
    )


def pages(runs: Runs) -> dict[Path, str]:
    """The page and its figure."""
    found = {v: [runs[n] for n in NAMES if n.startswith(f"{v}/")] for v in (*VARIANTS, "none")}
    image = DOCS / "images" / "fisher_variants.svg"
    return {DOCS / "results" / "fisher_variants.md": page(found), image: figure(found) + "\n"}


STUDY = Study("fisher_variants", NAMES, options, pages)

if __name__ == "__main__":
    sys.exit(main(STUDY))
