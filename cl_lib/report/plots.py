"""Figures of a report as SVG; colours follow the order of the entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib import metrics as m
from cl_lib.metrics.slices import MINIMUM
from cl_lib.report.canvas import FAINT, GREY, INK, WIDTH, in_legend, numbered, panels, shorten, style, svg
from cl_lib.report.entries import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = 12  # maximum number of rows or columns with numbers in the cells


def accuracy_matrices(lines: Sequence[Entry]) -> str:
    """Draw the accuracy matrix of each entry as a heat map: rows are evaluations, columns test sets.

    Parameters
    ----------
    lines : sequence of Entry

    Returns
    -------
    str
        An ``<svg>`` element.

    Examples
    --------
    >>> import cl_lib
    >>> from cl_lib.report.entries import entries
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> accuracy_matrices(entries([cl_lib.run(stream, cl_lib.strategies.ER())]))[:4]
    '<svg'
    """
    wide = max(len(e.record.stream["columns"]) for e in lines)
    columns = min(len(lines), 2 if 7 < wide <= NUMBERS else 3)
    tallest = min(NUMBERS + 1, max(len(e.accuracy_matrix) for e in lines))
    with panels(len(lines), columns, 1.3 + 0.26 * max(tallest, 4)) as (figure, grid):
        for entry, axes in zip(lines, grid, strict=True):
            mesh = _matrix(entry, axes, columns)
        bar = figure.colorbar(mesh, ax=grid, location="right", fraction=0.03, pad=0.015, aspect=30)
        bar.set_label("accuracy")
        bar.outline.set_visible(False)
        return svg(figure, "Heat maps of the accuracy on every test set after every experience")


def _matrix(entry: Entry, axes: Axes, columns: int) -> Any:
    values = np.array(entry.accuracy_matrix, float)
    rows, wide = values.shape
    small = rows <= NUMBERS + 1 and wide <= NUMBERS
    seam: dict[str, Any] = {"edgecolors": "white", "linewidth": 1} if small else {"rasterized": True}
    axes.set_facecolor(FAINT)  # background of cells that were not measured
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, **seam)
    axes.invert_yaxis()
    axes.set_title(shorten(entry.label, 84 // columns))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    trained = [row["experience"] for row in entry.record.rows]
    names = ["untrained" if e == 0 else f"after {e}" for e in trained]
    step = math.ceil(rows / (NUMBERS + 1))
    axes.set_yticks(np.arange(0, rows, step) + 0.5, names[::step])
    word, sets = numbered(entry.record.stream["columns"])
    skip = math.ceil(wide / 12)
    if not word and max(map(len, sets)) > 3:  # too long for the axis; the slices below show the names
        sets = [str(i + 1) for i in range(wide)]
    axes.set_xticks(np.arange(0, wide, skip) + 0.5, sets[::skip])
    axes.set_xlabel(f"tested on {word or 'test set'} …")
    if not np.isfinite(values[1:]).any():
        axes.text(wide / 2, rows / 2, "no values:\nevery replica diverged", ha="center", va="center")
        return mesh
    if small:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > 0.55 else INK
                text = f"{value:.2f}" if wide * columns <= 24 else f"{100 * value:.0f}"
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=8)
        for column, row in enumerate(entry.record.learned):
            if row is not None and 0 < row < rows:
                frame = np.array([[0.03, 0.04], [0.97, 0.04], [0.97, 0.96], [0.03, 0.96], [0.03, 0.04]]) + [column, row]
                axes.plot(*frame.T, color="#e69f00", linewidth=1.8)
    return mesh


def over_time(lines: Sequence[Entry]) -> str:
    """Draw accuracy on seen experiences, accuracy on the first experience and forgetting over time, shaded ± 1 std.

    Parameters
    ----------
    lines : sequence of Entry

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    with panels(3, 3, 3.4 + 0.22 * math.ceil(len(lines) / 3)) as (figure, grid):
        titles = ("Accuracy on seen experiences", "Accuracy on the first experience", "Forgetting so far")
        for axes, title in zip(grid, titles, strict=True):
            axes.set_title(title)
            axes.set_xlabel("experiences trained on")
            axes.grid(axis="y")
        for entry in lines:
            trained = np.array([row["experience"] for row in entry.record.rows])
            for axes, curve in zip(grid, _curves(entry), strict=True):
                _band(axes, trained, curve, entry)
        for axes in grid[:2]:
            axes.set_ylim(-0.02, 1.02)
        if not grid[2].has_data() or not np.isfinite(grid[2].dataLim.bounds).all():
            reason = "no experience was learned earlier"
            grid[2].text(0.5, 0.5, reason, ha="center", va="center", transform=grid[2].transAxes)
        low, high = grid[2].get_ylim()
        grid[2].set_ylim(min(low, -0.02), max(high, 0.2))  # otherwise small fluctuations would fill the axis
        last = max(entry.record.rows[-1]["experience"] for entry in lines)
        for axes in grid:
            axes.set_xticks(range(0, last + 1, math.ceil(last / NUMBERS)))
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3))
        return svg(figure, "Accuracy and forgetting after each evaluation")


def _curves(entry: Entry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy on seen experiences, accuracy on the first experience and forgetting, each ``(R, T + 1)``."""
    values = entry.matrices()
    so_far, forgotten = np.full(values.shape[:2], np.nan), np.full(values.shape[:2], np.nan)
    for r, (learned, before) in enumerate(zip(entry.rows("learned"), entry.rows("before"), strict=True)):
        for row in range(1, values.shape[1]):
            begun, finished = before < row, learned <= row
            if begun.any():
                so_far[r, row] = values[r, row, begun].mean(-1)
            if finished.any():
                forgotten[r, row] = m.forgetting(values[r, : row + 1, finished].T, learned[finished].astype(int))
    return so_far, values[:, :, 0], forgotten


def _band(axes: Axes, x: np.ndarray, curves: np.ndarray, entry: Entry) -> None:
    """Draw mean and standard deviation over the replicas that did not diverge."""
    healthy = curves[np.isfinite(curves[:, -1])]
    if not len(healthy) and len(entry.diverged) < len(entry.members):
        return  # not measured, but not diverged either
    look = style(entry.number)
    few = len(x) <= 25
    mean = healthy.mean(0) if len(healthy) else np.full(len(x), np.nan)
    shown: dict[str, Any] = {"marker": look.marker, "markersize": 4.5} if few else {}
    name = entry.label if len(healthy) else f"{entry.label} (diverged)"
    axes.plot(x, mean, color=look.colour, linestyle=look.dash, linewidth=1.8, label=in_legend(name), **shown)
    if len(healthy) > 1:
        std = healthy.std(0, ddof=1)
        axes.fill_between(x, mean - std, mean + std, color=look.colour, alpha=0.18, linewidth=0)


def reliability_diagrams(lines: Sequence[Entry]) -> str:
    """Draw accuracy against confidence before and after training, with histograms of the confidence below.

    Parameters
    ----------
    lines : sequence of Entry

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    columns = 4 if len(lines) > 3 else 3
    width = WIDTH * min(len(lines), columns) / columns
    with panels(len(lines), columns, 3.5, width=width, ratios=(3, 1)) as (figure, grid):
        for place, (entry, axes, below) in enumerate(zip(lines, grid[::2], grid[1::2], strict=True)):
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
            axes.set(xlim=(0, 1), ylim=(-0.03, 1.03), title=shorten(entry.label, 100 // columns))
            axes.tick_params(labelbottom=False)
            axes.grid()
            below.set(xlim=(0, 1), xlabel="confidence of the prediction")
            if place % columns == 0:
                axes.set_ylabel("accuracy")
                below.set_ylabel("samples")
            for name, diagram in entry.reliability().items():
                _reliability(axes, below, name, diagram, style(entry.number).colour)
            if not axes.get_legend_handles_labels()[0]:
                axes.text(0.5, 0.5, "no values", ha="center", va="center")
            elif place == 0:
                axes.legend(loc="best", borderaxespad=0.2, handletextpad=0.4)
        return svg(figure, "Reliability diagrams: accuracy at each confidence, before and after the stream")


def _reliability(axes: Axes, below: Axes, name: str, diagram: dict[str, list[Any]], colour: str) -> None:
    count = np.array(diagram["count"], float)
    if not count.any():
        return
    before = name == "before"
    colour = GREY if before else colour
    confidence, accuracy = (np.array(diagram[k], float) for k in ("confidence", "accuracy"))
    firm, faint = count >= MINIMUM, (count > 0) & (count < MINIMUM)
    look: dict[str, Any] = {"marker": "o", "color": colour, "markerfacecolor": "white" if before else colour}
    axes.plot(
        confidence[firm], accuracy[firm], linewidth=1.4, markersize=5, label=shorten(f"{name} the stream", 44), **look
    )
    axes.plot(confidence[faint], accuracy[faint], linewidth=0, markersize=3, alpha=0.5, **look)
    edges = np.linspace(0, 1, len(count) + 1)
    below.stairs(count, edges, fill=not before, color=colour, alpha=1 if before else 0.75)
    below.locator_params(axis="y", nbins=3)
    below.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
