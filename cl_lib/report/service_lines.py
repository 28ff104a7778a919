"""Lines of a service report: loss by window, loss against the number of updates, and the curve of a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.errors import printable
from cl_lib.report.canvas import FAINT, GREY, INK, in_legend, name_axis, panels, shorten, style, svg
from cl_lib.report.service_entries import METRICS, Served, mean
from cl_lib.service.gate_curves import GateCurve

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


def pareto(lines: Sequence[Served]) -> str:
    """Draw the loss against the number of updates, between exact random schedules and the best ones.

    Parameters
    ----------
    lines : sequence of Served

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    delays = list(dict.fromkeys(line.result.delay for line in lines))
    with panels(len(delays), 2, 3.9, width=10.6 if len(delays) > 1 else 7.6) as (figure, grid):
        handles: dict[str, Any] = {}
        for place, (delay, axes) in enumerate(zip(delays, grid, strict=True)):
            shown = [line for line in lines if line.result.delay == delay]
            result = shown[0].result
            k = np.arange(result.random_loss.shape[1])
            random, best = (mean(table.mean(-1), 0) for table in (result.random_loss, result.oracle_loss))
            axes.plot(k, random, color=INK, linewidth=1.2, label="random schedules (exact mean)")
            axes.plot(k, best, color=GREY, linewidth=1.2, linestyle=(0, (5, 2)), label="best schedules")
            axes.fill_between(k, best, random, color=FAINT, alpha=0.45, linewidth=0)
            for line in shown:
                look, low_high = style(line.number), line.gain
                x, y, centre = line.mean("updates"), line.mean("mean_loss"), line.mean("random")
                axes.plot([x, x], [centre + bound for bound in low_high], color=look.colour, linewidth=1.6, alpha=0.6)
                axes.plot(
                    x, y, look.marker, color=look.colour, markersize=7, label=in_legend(line.name), linestyle="none"
                )
            axes.set(xlabel="updates", title=_late(delay))
            if place == 0:
                axes.set_ylabel(f"mean {METRICS[result.metric][0]} over the windows")
            axes.grid()
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside right upper" if len(delays) == 1 else "outside lower center",
            ncols=1 if len(delays) == 1 else 3,
        )
        return svg(figure, "Loss against number of updates, between random and best schedules")


def _late(delay: int) -> str:
    return f"labels {delay} window{'s' if delay > 1 else ''} late" if delay else "labels without delay"


def gate_lines(curve: GateCurve, metric: str) -> str:
    """Draw the share of harmful updates that a gate blocks against the share of good ones that it refuses."""
    with panels(1, 1, 3.9, width=5.6) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="refusing at random")
        axes.plot(curve.refused, curve.blocked, color=style(0).colour, linewidth=1.8, label="gate")
        blocked, refused = curve.at(0.0)
        axes.plot(refused, blocked, "o", color=style(1).colour, markersize=7, label="tolerance 0: no worse")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_xlabel(f"share of {curve.good:,} good updates refused")
        axes.set_ylabel(f"share of {curve.harmful:,} harmful updates blocked")
        axes.grid()
        axes.legend(loc="lower right")
        return svg(figure, f"Harmful updates blocked against good updates refused, by {METRICS[metric][0]}")
