"""A page for each strategy: its docstring, and what was measured of it, from committed records.

    python benchmarks/published/pages.py

writes ``docs/strategies/``.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cells import accuracy, chosen, number, others, row
from every_strategy import CONF, FAMILIES, TABLES, Result, known

DOCS = Path(__file__).parent.parent.parent / "docs" / "strategies"
GUIDE = """
# Which strategy when

**May samples be kept?** Then begin with `er`: it is hard to beat for its simplicity, and its only choice is how much to
keep. `derpp`, `scr`, `rar` and the read-outs over the memory (`knn`, `hopfield`, `mbpa`) cost more in a step or an
evaluation and may reach further. `gdumb` is the floor that a replay strategy should beat at the same memory.

**A budget of bytes?** `er_compressed` keeps several times the samples in the same bytes, which pays on Fashion-MNIST
and costs on digits of 64 pixels; `latent_replay` keeps what a frozen part of the network makes of them: small where a
layer is narrow, and no inputs have to be stored.

**No samples, but good features that need not change?** `slda` and `ranpac` keep sums only, need one pass and no
gradients, and answer the same whatever the order of the data. They stand and fall with the features (`features=first`,
`identity`, `random`): with plain pixels, as in the tables, `ranpac` is above every strategy that keeps 500 samples on
both streams, and `slda` beside the best of them. `key_value` learns values at learnt places of such features by
gradient descent; on Fashion-MNIST that is far less.

**No samples, and the network must go on learning?** With task labels at test time (`scenario=task`) the regularisers
`ewc`, `si`, `mas`, `rwalk`, `kronecker_laplace` and the projections `gpm`, `ogd` hold what was learnt. Without task
labels the regularisers alone do not keep old classes apart from new ones, here as in the literature. `gpm`, which
keeps what layers answer to past inputs, does: nearly as well as replay on the digits, by far less on Fashion-MNIST.
`fromp`, which regularises answers to a few kept samples, does on the digits and at none of the searched points on
Fashion-MNIST.

**Is it forgetting at all?** A network that no longer learns needs `l2_init`, `shrink_perturb`, `continual_backprop` or
`redo`; they do nothing against forgetting.

**Compute.** `ncm` and `slda` cost less than fine-tuning; strategies that look at the model inside the step (`mir`,
`gss`, `er_tricks`, `gem`, `rar`) and projections (`gpm`, `ogd`) cost several times as much. With many seeds or a grid a
replica costs less than one alone; hardly less where its state is large (`ewc`, `rwalk`, `gpm`, `ogd`,
`kronecker_laplace`), and more with `ranpac`, whose matrices are bound by memory.

**Calibration.** Read the ECE beside the accuracy: least squares (`ranpac`) and nearest means (`icarl`) answer well with
probabilities that do not mean what they say; calibrate them before a threshold is put on a probability. Distillation
of logits (`der`) is well calibrated on Fashion-MNIST and badly on the digits.

**Reference points.** Show `finetune`, `frozen`, `cumulative` or `joint`, and `random_guess` beside whatever you report.
"""
COST = Path(__file__).parent.parent / "speed" / "records" / "cost.json"


def classes() -> dict[str, dict[str, list[str]]]:
    """By family, the classes with the names of their configurations."""
    out: dict[str, dict[str, list[str]]] = {}
    for family, names in FAMILIES.items():
        for name in names:
            target = yaml.safe_load((CONF / f"{name}.yaml").read_text())["_target_"]
            out.setdefault(family, {}).setdefault(target.rsplit(".", 1)[1], []).append(name)
    return out


@cache
def found() -> dict[str, dict[str, Result]]:
    """What has been run of each table."""
    return {name: known(table) for name, table in TABLES.items()}


def accuracy_rows(name: str) -> list[str]:
    """Accuracy, forgetting, calibration and the worst class on each stream."""
    rows = []
    for stream, there in found().items():
        if name in there:
            record, hyper = there[name]
            link = f"[{TABLES[stream].title.partition(',')[0]}](../results/{stream}.md)"
            rows.append(row([f"`{name}`", link, accuracy(record, 1)[0], *others(record), chosen(hyper)]))
    return rows


def cost_row(name: str, rows: dict[str, Any]) -> str:
    """A step beside fine-tuning's, the end of an experience, and the bytes of a replica."""
    one, ten = rows[name]["R=1"], rows[name]["R=10"]
    plain = rows["finetune"]["R=1"]["bytes"]
    cells = [
        f"`{name}`",
        *(number(side["step_ms"]) for side in (one, ten)),
        *(number(side["step_ratio"], 2) for side in (one, ten)),
        f"{one['consolidation_seconds']:.3f}",
        f"{one['evaluation_seconds']:.3f}",
        f"{one['bytes'] / 1e6:.2f}",
        f"{one['bytes'] / plain:.1f}",
    ]
    return row(cells)


def page(kind: str, names: list[str]) -> str:
    """One strategy's page."""
    rows = json.loads(COST.read_text())["rows"]
    cost = rows[names[0]]
    machine = cost["machine"]
    lines = [
        f"# {kind}",
        "",
        f"`cl-bench strategy={names[0]}`" + "".join(f" · `strategy={name}`" for name in names[1:]),
        "",
        "```{eval-rst}",
        f".. autoclass:: cl_lib.strategies.{kind}",
        "```",
        "",
        "## Measured",
        "",
        "Class-incremental, memories of 500, ten seeds:",
        "",
        "| | stream | accuracy, % | forgetting | ECE | worst class | chosen on validation data |",
        "|---|---|---|---|---|---|---|",
        *(line for name in names for line in accuracy_rows(name)),
        "",
        "Cost on the second work of the [speed benchmark](../performance.md) (MLP 784-100-100-10, 10 new samples a "
        "step, shipped options), beside fine-tuning in the same run:",
        "",
        "| | step, ms, R = 1 | R = 10, a replica | over fine-tuning, R = 1 | R = 10 | after an experience, s | "
        "evaluation, s | MB of a replica | over fine-tuning |",
        "|---|---|---|---|---|---|---|---|---|",
        *(cost_row(name, rows) for name in names),
        "",
        f"{machine['processor']}, {cost['threads']} thread, torch {machine['torch']}; `{cost['command']}`. Bytes are "
        "those of the parameters, the strategy's state and the full memory, samples in their stored type.",
        "",
    ]
    return "\n".join(lines)


def index() -> str:
    """The list of all pages."""
    lines = ["# Strategies", "", "[Which strategy when](which.md) compares them.", ""]
    for family, own in classes().items():
        listed = [names[0] for names in own.values()]
        lines += [f"## {family}", "", "```{toctree}", ":maxdepth: 1", "", *listed, "```", ""]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", "which", "```", ""])


def which() -> str:
    """All strategies beside each other, and what to look at."""
    rows, lines = json.loads(COST.read_text())["rows"], [GUIDE.strip(), ""]
    lines += [
        "| | keeps samples | state, MB | step over fine-tuning, R = 1 | R = 10 | Split-Digits, % | ECE | "
        "Split-Fashion-MNIST, % | ECE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for names in FAMILIES.values():
        for name in names:
            config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
            cost = rows[name]
            cells = [
                f"[`{name}`]({page_of(name)}.md)",
                "yes" if {"memory", "points"} & set(config) else "no",
                f"{cost['R=1']['bytes'] / 1e6:.2f}",
                *(number(cost[side]["step_ratio"], 2) for side in ("R=1", "R=10")),
                *(cell for there in found().values() for cell in accuracy_and_ece(there.get(name))),
            ]
            lines.append(row(cells))
    return "\n".join(
        [
            *lines,
            "",
            "Accuracy and ECE as in [Split-Digits](../results/split_digits.md) and "
            "[Split-Fashion-MNIST](../results/split_fashion_mnist_every.md), cost as on each page.",
            "",
        ]
    )


def accuracy_and_ece(result: Result | None) -> list[str]:
    """Two cells, in per cent and as a share; dashes for what has not been run or has diverged."""
    metrics = {} if result is None else result[0].metrics
    mean = metrics["accuracy"].mean if metrics else None
    return ["–", "–"] if mean is None else [f"{100 * mean:.1f}", number(metrics["ece"].mean)]


def page_of(name: str) -> str:
    """The page that a configuration is on: that of the first of its class."""
    return next(names[0] for own in classes().values() for names in own.values() if name in names)


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    out = {DOCS / "index.md": index(), DOCS / "which.md": which()}
    for own in classes().values():
        out |= {DOCS / f"{names[0]}.md": page(kind, names) for kind, names in own.items()}
    return out


def main() -> None:
    DOCS.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)
    print(f"wrote {len(pages())} pages under {DOCS}")


if __name__ == "__main__":
    main()
