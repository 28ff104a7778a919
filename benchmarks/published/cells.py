"""What stands in the cells of the published tables."""

from __future__ import annotations

from collections.abc import Sequence

from cl_lib import Record

OTHERS = ("forgetting", "ece", "worst_class_accuracy")


def row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def accuracy(record: Record, digits: int = 2, metric: str = "accuracy") -> list[str]:
    """Mean ± standard deviation and the 95 % interval, in per cent."""
    found = record.metrics[metric]
    if found.mean is None:
        return ["all seeds diverged", "–"]
    spread = f" ± {100 * found.std:.{digits}f}" if found.std is not None else ""
    interval = "–" if found.ci95 is None else f"{100 * found.ci95[0]:.{digits}f}–{100 * found.ci95[1]:.{digits}f}"
    return [f"{100 * found.mean:.{digits}f}{spread}", interval]


def others(record: Record) -> list[str]:
    """Forgetting, ECE and the worst class."""
    return [number(record.metrics[name].mean) for name in OTHERS]


def chosen(hyper: dict[str, float]) -> str:
    """Hyper-parameters without the part they belong to."""
    return ", ".join(f"{name.split('.')[-1]} {value:g}" for name, value in hyper.items())


def machine(record: Record) -> str:
    """What a record was made on."""
    found = record.environment
    return (
        f"{found['device']}, {found['cores']} cores, {found['threads']} thread(s); torch {found['torch']}, Python "
        f"{found['python']}"
    )
