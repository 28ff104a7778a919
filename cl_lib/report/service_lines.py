"""Lines of a service report: loss by window, with the updates of each policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.errors import printable
from cl_lib.report.canvas import FAINT, GREY, INK, name_axis, panels, shorten, style, svg
from cl_lib.report.service_entries import METRICS, Served, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def service_lines(lines: Sequence[Served]) -> str:
    """Draw the loss by window of each policy between the references, with its updates and refused alarms below.

    Parameters
    ----------
    lines : sequence of Served

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    from matplotlib.patches import Patch

    columns = 1 if len(lines) == 1 else 2
    refused = any(line.of("refused").any() for line in lines)
    with panels(len(lines), columns, 2.9, ratios=(4, 1)) as (figure, grid):
        handles: dict[str, Any] = {}
        for place, (line, axes, below) in enumerate(zip(lines, grid[::2], grid[1::2], strict=True)):
            _losses(line, axes)
            _ticks(line, below)
            if place % columns == 0:
                axes.set_ylabel(METRICS[line.result.metric][0])
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        low, high = _limits(lines)
        for axes in grid[::2]:
            axes.set_ylim(low, high)
        handles["updates (share of replicas)"] = Patch(color=style(lines[0].number).colour)
        if refused:
            handles["refused updates"] = Patch(color=GREY)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
        return svg(
            figure, "Loss by window of every policy, of no update, of an update before every window and of the best"
        )


def _losses(line: Served, axes: Axes) -> None:
    result, x = line.result, np.arange(len(line.result.windows))
    loss, best = mean(line.of("loss"), 0), mean(_best(line), 0)
    axes.plot(x, mean(result.never, 0), color=GREY, linewidth=1.2, linestyle=(0, (1.5, 1.5)), label="never updated")
    axes.plot(x, mean(result.always, 0), color=INK, linewidth=1, linestyle=(0, (5, 2)), label="always updated")
    axes.plot(x, best, color=GREY, linewidth=1, label="best schedule")
    axes.fill_between(x, best, loss, color=FAINT, linewidth=0)
    axes.plot(x, loss, color=style(line.number).colour, linewidth=1.8)
    axes.set_title(shorten(line.title, 52))
    axes.set_xlim(-0.6, len(x) - 0.4)
    axes.tick_params(labelbottom=False)
    axes.grid(axis="y")


def _best(line: Served) -> np.ndarray:
    """``(R, W)`` loss of the best schedule with as many updates."""
    table = line.result.oracle_loss
    return np.asarray(table[np.arange(len(table)), np.minimum(line.of("updates"), table.shape[1] - 1)])


def _ticks(line: Served, axes: Axes) -> None:
    """Shares of replicas that were updated before each window (up), and whose updates were refused (down)."""
    x = np.arange(len(line.result.windows))
    axes.bar(x, line.of("updated").mean(0), 0.8, color=style(line.number).colour)
    axes.bar(x, -line.of("refused").mean(0), 0.8, color=GREY)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(ylim=(-1.05 if line.of("refused").any() else -0.05, 1.05), xlim=(-0.6, len(x) - 0.4))
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    name_axis(axes, [printable(name, one_line=True) for name in line.result.windows], 13)
    axes.tick_params(axis="x", length=0)


def _limits(lines: Sequence[Served]) -> tuple[float, float]:
    """Limits that show every policy; the model that is never updated may leave the picture."""
    shown = [mean(part, 0) for line in lines for part in (line.of("loss"), line.result.always, _best(line))]
    known = np.concatenate(shown)
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 1.0
    room = 0.06 * float(known.max() - known.min()) or 0.05
    return float(known.min()) - room, float(known.max()) + 2 * room
