"""Bar charts of the accuracy by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.metrics.slices import MINIMUM
from cl_lib.report.canvas import INK, WIDTH, in_legend, name_axis, numbered, panels, shorten, style, svg
from cl_lib.report.entries import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 60  # maximum number of bars in one panel; with more, each entry has its own panel


def slice_bars(lines: Sequence[Entry], name: str) -> str:
    """Draw the final accuracy of each slice with its number of test samples, and mark the worst slice of each entry.

    Parameters
    ----------
    lines : sequence of Entry
        Entries with the same slices, since they share an axis.
    name : str
        ``"class"``, ``"experience"``, ``"age"`` or a column of the data set.

    Returns
    -------
    str
        An ``<svg>`` element; empty if fewer than two slices have samples.
    """
    parts = [entry.slices()[name] for entry in lines]
    every = list(
        dict.fromkeys(label for part in sorted(parts, key=lambda p: -len(p["labels"])) for label in part["labels"])
    )
    support, accuracies = (np.array([_aligned(part, key, every) for part in parts]) for key in ("support", "accuracy"))
    kept = np.flatnonzero(np.nan_to_num(support).max(0) > 0)
    if kept.size < 2:
        return ""
    support, accuracies = support[:, kept], accuracies[:, kept]
    word, names = numbered([str(every[i]) for i in kept])
    together = len(parts) * len(kept) <= BARS
    width = min(WIDTH, 2.5 + 0.55 * len(lines) * len(kept)) if together else WIDTH
    tilt = 0.3 if max(map(len, names)) > 6 else 0
    with panels(1 if together else len(parts), 1, (2.9 if together else 1.75) + tilt, width=width) as (figure, grid):
        for place, (entry, accuracy) in enumerate(zip(lines, accuracies, strict=True)):
            axes = grid[0] if together else grid[place]
            thick = 0.8 / len(parts) if together else 0.8
            x = np.arange(len(kept)) + (place - (len(parts) - 1) / 2) * thick * together
            axes.bar(
                x,
                np.nan_to_num(accuracy),
                thick * 0.94,
                color=style(entry.number).colour,
                label=in_legend(entry.label),
            )
            eligible = np.where(support[place] >= MINIMUM, accuracy, np.nan)
            if np.isfinite(eligible).any():
                worst = int(np.nanargmin(eligible))
                axes.plot(x[worst], accuracy[worst] + 0.05, marker="v", color=INK, markersize=6, clip_on=False)
            if not together:
                axes.set_title(shorten(entry.label, 90))
        _supports(grid, names, support)
        for axes in grid:
            axes.set(ylim=(0, 1.08), xlim=(-0.6, len(kept) - 0.4), ylabel="accuracy")
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
            axes.grid(axis="y")
            axes.tick_params(axis="x", length=0)
        grid[-1].set_xlabel(shorten(word or name, 90))
        if together and len(parts) > 1:
            figure.legend(loc="outside lower center", ncols=3)
        return svg(figure, f"Accuracy by {name}")


def _aligned(part: dict[str, list[Any]], key: str, labels: Sequence[str]) -> list[float]:
    """Values in the order of the labels; NaN for slices that the entry does not have (ages differ between runs)."""
    known = dict(zip(part["labels"], part[key], strict=True))
    return [math.nan if known.get(label) is None else float(known[label]) for label in labels]


def _supports(grid: Sequence[Axes], names: Sequence[str], support: np.ndarray) -> None:
    """Label the bars with slice names and sample counts, or, with many slices, give only the range of the counts."""
    counts = [_range(support[:, i]) for i in range(support.shape[1])]
    if len(names) <= 12:
        for axes in grid:
            axes.set_xticks(
                range(len(names)),
                [f"{shorten(n, 84 // len(names))}\nn = {c}" for n, c in zip(names, counts, strict=True)],
            )
        return
    for axes in grid:
        name_axis(axes, names, 40)
        axes.text(1, 1.02, f"n = {_range(support)} test samples each", transform=axes.transAxes, ha="right", fontsize=8)


def _range(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    low, high = round(known.min()), round(known.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
