"""Which Fisher information should EWC use? Task-incremental Split-Fashion-MNIST, each variant over a grid of λ.

    python benchmarks/published/fisher_variants.py

The question of van de Ven (ICLR Blogposts 2025) on other images: five experiences of two classes, one head each, MLP
784-50-50-10, Adam, 2,000 steps of 30 samples an experience, Fisher information over all 12,000 training samples of
an experience; fourteen λ times ten seeds for each variant, trained as two populations. Runs what is missing under
``records/fisher_variants/``, then writes ``docs/results/fisher_variants.md`` from the records alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bench import bench, no_options
from cells import machine, number, row
from tqdm import tqdm

from cl_lib import Record
from cl_lib.curvature.fisher import VARIANTS
from cl_lib.report.canvas import GREY, panels, style, svg
from cl_lib.stats import paired_difference

HERE = Path(__file__).parent
RECORDS = HERE / "records" / "fisher_variants"
PAGE = HERE.parent.parent / "docs" / "results" / "fisher_variants.md"
PARTS = {"low": [10.0**k for k in range(-4, 0)], "high": [10.0**k for k in range(10)]}
"""Each part of a variant's grid is one population."""
FIGURE = PAGE.parent.parent / "images" / "fisher_variants.svg"
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
Variant = dict[str, Record]


def options(variant: str, part: str) -> list[str]:
    """What is added to the protocol; ``none`` is fine-tuning."""
    if variant == "none":
        return ["strategy.lam=0"]
    return [f"strategy.fisher={variant}", f"grid.strategy.lam=[{','.join(f'{value:g}' for value in PARTS[part])}]"]


def accuracies(found: Variant) -> np.ndarray:
    """``(λ, seeds)`` accuracy after the last experience; one row for fine-tuning; diverged replicas are NaN."""
    rows = []
    for record in found.values():
        final = record.arrays["matrix.accuracy"][:, -1].mean(1)
        points = [point["replicas"] for point in record.grid] or [slice(None)]
        rows += [final[point] for point in points]
    return np.stack(rows)


def means(found: Variant) -> np.ndarray:
    """Mean accuracy of each λ; one that diverged for a seed counts as 0."""
    return np.nan_to_num(accuracies(found).mean(1), nan=0.0)


def plateau(found: Variant) -> tuple[float, float]:
    """The lowest and highest λ that come within half a point of the best."""
    own = means(found)
    near = [value for value, mean in zip(LAMBDAS, own, strict=True) if mean >= own.max() - WITHIN]
    return near[0], near[-1]


def onset(found: Variant, plain: float) -> float:
    """The smallest λ from which on, up to the best, accuracy is nearer to the best than to fine-tuning."""
    own = means(found)
    top = int(np.argmax(own))
    far = [k for k in range(top) if own[k] < (plain + own[top]) / 2]
    return LAMBDAS[far[-1] + 1 if far else 0]


def claim(found: dict[str, Variant]) -> str:
    """What the records say of "batched needs a λ orders of magnitude larger"."""
    plain = float(means(found["none"])[0])
    best = {v: LAMBDAS[int(np.argmax(means(found[v])))] for v in ("exact", "batched")}
    start = {v: onset(found[v], plain) for v in ("exact", "batched")}
    top, needed = (float(np.log10(d["batched"] / d["exact"])) for d in (best, start))
    verdict = "**confirmed**" if needed >= 1.5 and top >= 1.5 else "**refuted**"
    if (needed >= 1.5) != (top >= 1.5):
        verdict = "**confirmed in part**"
    return (
        f"The claim that *batched* needs a λ orders of magnitude larger is {verdict} here. To come nearer to its best "
        f"than to fine-tuning *batched* needs λ = {start['batched']:.0e}, *exact* {start['exact']:.0e}: {needed:+.0f} "
        f"orders of magnitude. The best λ are {best['batched']:.0e} and {best['exact']:.0e} ({top:+.0f}); but Adam "
        "does not mind a stiff penalty, so that a wide range of large λ does about as well, and which of them is "
        "best is noise."
    )


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


def page(found: dict[str, Variant]) -> str:
    """The results as Markdown, from records alone."""
    lines = [
        "# EWC and the variants of the Fisher information",
        "",
        "Generated by `python benchmarks/published/fisher_variants.py` from the records under "
        "`benchmarks/published/records/fisher_variants/`; do not edit.",
        "",
        "Task-incremental Split-Fashion-MNIST, five experiences of two classes, one head each, MLP 784-50-50-10, "
        "Adam with lr 0.001, 2,000 steps of 30 samples an experience, EWC with separate penalties, the Fisher "
        "information over all 12,000 training samples of an experience (*batched*: in batches of 128). Fourteen λ "
        "times ten seeds a variant, trained as two populations. The question is that of van de Ven, *On the "
        "Computation of the Fisher Information in Continual Learning* (ICLR Blogposts 2025), on Split-MNIST with "
        "2 × 400 units; its accuracies (30 seeds) stand beside ours.",
        "",
        "| | best λ | accuracy, % | half-way from λ | within half a point | minus exact, points | 95 % interval | "
        "van de Ven |",
        "|---|---|---|---|---|---|---|---|",
    ]
    reference = accuracies(found["exact"])[int(np.argmax(means(found["exact"])))]
    plain = float(means(found["none"])[0])
    for variant, records in found.items():
        top = int(np.argmax(means(records)))
        own, grid = accuracies(records)[top], variant != "none"
        low, high = plateau(records) if grid else (0.0, 0.0)
        pair = paired_difference(own, reference)
        cells = [
            variant,
            f"{LAMBDAS[top]:.0e}" if grid else "–",
            f"{100 * own.mean():.2f} ± {100 * own.std(ddof=1):.2f}",
            f"{onset(records, plain):.0e}" if grid else "–",
            f"{low:.0e} to {high:.0e}" if grid else "–",
            "–" if variant == "exact" or pair.mean is None else f"{100 * pair.mean:+.2f}",
            "–" if variant == "exact" or pair.ci95 is None else " to ".join(f"{100 * v:+.2f}" for v in pair.ci95),
            f"{PUBLISHED[variant]:.2f}",
        ]
        lines.append(row(cells))
    shown = "![Accuracy over λ by variant; shades are one standard deviation](../images/fisher_variants.svg)"
    lines += [
        "",
        claim(found),
        "",
        shown,
        "",
        "## Every λ",
        "",
        row(["λ", *VARIANTS]),
        "|" + "---|" * (1 + len(VARIANTS)),
    ]
    table = {variant: accuracies(found[variant]) for variant in VARIANTS}
    for k, value in enumerate(LAMBDAS):
        cells = [f"{100 * own[k].mean():.2f} ± {100 * own[k].std(ddof=1):.2f}" for own in table.values()]
        lines.append(row([f"{value:.0e}", *(c if "nan" not in c else "diverged" for c in cells)]))
    seconds = {v: number(sum(r.cost["training_seconds"] for r in found[v].values()), 0) for v in VARIANTS}
    lines += [
        "",
        "The best λ is chosen on the test data that it is shown on: the question is what a variant can reach, not what "
        "a practitioner would get.",
        "",
        *(f"- {name}: `{r.environment['command']}`" for name, own in found.items() for r in own.values()),
        "",
        f"{machine(found['exact']['high'])}. Seconds of training, 140 replicas: "
        f"{', '.join(f'{v} {own}' for v, own in seconds.items())}; other work ran at the same time.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    no_options(__doc__)
    runs = [*((variant, part) for variant in VARIANTS for part in PARTS), ("none", "high")]
    found: dict[str, Variant] = {variant: {} for variant, _ in runs}
    with tqdm(runs, unit="run") as bar:
        for variant, part in bar:
            bar.set_postfix_str(f"{variant} {part}")
            found[variant][part] = bench(RECORDS / variant / part, PROTOCOL, options(variant, part))
    PAGE.write_text(page(found))
    FIGURE.write_text(figure(found) + "\n")
    print(f"wrote {PAGE} and its figure")


if __name__ == "__main__":
    main()
