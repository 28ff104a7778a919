"""A page for each strategy: its docstring, its results in the tables, and its cost.

python experiments/strategies.py     write docs/strategies/
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import split_digits
import split_fashion_mnist_every
import yaml
from cells import accuracy, chosen, number, others, row
from every_strategy import CONF, FAMILIES, best
from study import DOCS, HERE, render
from table import Run

COST = HERE.parent / "benchmarks" / "speed" / "records" / "cost.json"
TITLES = {"split_digits": "Split-Digits", "split_fashion_mnist_every": "Split-Fashion-MNIST"}
STUDIES = (split_digits.STUDY, split_fashion_mnist_every.STUDY)


@cache
def results() -> dict[str, dict[str, tuple[Run, dict[str, float]]]]:
    """By study and strategy, ten seeds and the hyper-parameters that were chosen."""
    out: dict[str, dict[str, tuple[Run, dict[str, float]]]] = {}
    for study in STUDIES:
        runs = study.known()
        names = [run.removesuffix("/run") for run in runs if run.endswith("/run")]
        out[study.name] = {name: (runs[f"{name}/run"], best(runs[f"{name}/search"])) for name in names}
    return out


@cache
def costs() -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(COST.read_text())["rows"]
    return rows


def classes() -> dict[str, dict[str, list[str]]]:
    """By family, the classes with the names of their configurations."""
    out: dict[str, dict[str, list[str]]] = {}
    for family, names in FAMILIES.items():
        for name in names:
            target = yaml.safe_load((CONF / f"{name}.yaml").read_text())["_target_"]
            out.setdefault(family, {}).setdefault(target.rsplit(".", 1)[1], []).append(name)
    return out


def accuracy_rows(name: str) -> list[str]:
    """Accuracy, forgetting, calibration and the worst class on each stream."""
    rows = []
    for stream, found in results().items():
        if name in found:
            run, hyper = found[name]
            link = f"[{TITLES[stream]}](../results/{stream}.md)"
            rows.append(row([f"`{name}`", link, accuracy(run, 1)[0], *others(run), chosen(hyper)]))
    return rows


def cost_row(name: str) -> str:
    """A step beside fine-tuning's, the end of an experience, and the bytes of a replica."""
    single, ten = costs()[name]["R=1"], costs()[name]["R=10"]
    plain = costs()["finetune"]["R=1"]["bytes"]
    cells = [
        f"`{name}`",
        *(number(side["step_ms"]) for side in (single, ten)),
        *(number(side["step_ratio"], 2) for side in (single, ten)),
        f"{single['consolidation_seconds']:.3f}",
        f"{single['evaluation_seconds']:.3f}",
        f"{single['bytes'] / 1e6:.2f}",
        f"{single['bytes'] / plain:.1f}",
    ]
    return row(cells)


def page(kind: str, names: list[str]) -> str:
    """One strategy's page."""
    return render(
        "strategy",
        kind=kind,
        names=names,
        results=[line for name in names for line in accuracy_rows(name)],
        costs=[cost_row(name) for name in names],
        cost=costs()[names[0]],
    )


def which() -> str:
    """All strategies in one table."""
    lines = []
    for names in FAMILIES.values():
        for name in names:
            config, cost = yaml.safe_load((CONF / f"{name}.yaml").read_text()), costs()[name]
            cells = [
                f"[`{name}`]({page_of(name)}.md)",
                "yes" if {"memory", "points"} & set(config) else "no",
                f"{cost['R=1']['bytes'] / 1e6:.2f}",
                *(number(cost[side]["step_ratio"], 2) for side in ("R=1", "R=10")),
                *(cell for found in results().values() for cell in accuracy_and_ece(found.get(name))),
            ]
            lines.append(row(cells))
    return render("which", lines=lines)


def accuracy_and_ece(result: tuple[Run, dict[str, float]] | None) -> list[str]:
    """Two cells, in per cent and as a share; dashes for what has not been run or has diverged."""
    mean = None if result is None else result[0].metric("accuracy").mean
    if result is None or mean is None:
        return ["–", "–"]
    return [f"{100 * mean:.1f}", number(result[0].metric("ece").mean)]


def page_of(name: str) -> str:
    """The page that a configuration is on: that of the first of its class."""
    return next(names[0] for family in classes().values() for names in family.values() if name in names)


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    folder = DOCS / "strategies"
    families = {family: [names[0] for names in kinds.values()] for family, kinds in classes().items()}
    out = {folder / "index.md": render("strategies", families=families), folder / "which.md": which()}
    for kinds in classes().values():
        out |= {folder / f"{names[0]}.md": page(kind, names) for kind, names in kinds.items()}
    return out


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=raw).parse_args()
    for path, text in pages().items():
        path.write_text(text)
    print(f"wrote {len(pages())} pages under docs/strategies")


if __name__ == "__main__":
    main()
