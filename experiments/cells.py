"""Cells of the published tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from table import Run

OTHERS = ("forgetting", "ece", "worst_class_accuracy")


def row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def accuracy(run: Run, digits: int = 2) -> list[str]:
    """Mean ± standard deviation and the 95 % interval, in per cent."""
    metric = run.metric("accuracy")
    if metric.mean is None:
        return ["all seeds diverged", "–"]
    spread = f" ± {100 * metric.std:.{digits}f}" if metric.std is not None else ""
    interval = "–" if metric.ci95 is None else f"{100 * metric.ci95[0]:.{digits}f}–{100 * metric.ci95[1]:.{digits}f}"
    return [f"{100 * metric.mean:.{digits}f}{spread}", interval]


def others(run: Run) -> list[str]:
    """Forgetting, ECE and the worst class."""
    return [number(run.metric(name).mean) for name in OTHERS]


def chosen(hyper: Mapping[str, float]) -> str:
    """Hyper-parameters without the part they belong to."""
    return ", ".join(f"{name.split('.')[-1]} {value:g}" for name, value in hyper.items())


def machine(run: Run) -> str:
    """What a run was made on."""
    info = run.info
    return (
        f"{info['device']}, {info['cores']} cores, {info['threads']} thread(s); torch {info['torch']}, Python "
        f"{info['python']}"
    )
