"""Curves of a service report: loss against the number of updates, and what a gate blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cl_lib.report.canvas import FAINT, GREY, INK, in_legend, panels, style, svg
from cl_lib.report.html import DRAWN
from cl_lib.report.service_entries import METRICS, Served, mean
from cl_lib.service.gate_curves import GateCurve


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
                look, x, y = style(line.number), line.mean("updates"), line.mean("mean_loss")
                if line.number < DRAWN:
                    bar = [line.mean("random") + bound for bound in line.gain]
                    axes.plot([x, x], bar, color=look.colour, linewidth=1.6, alpha=0.6)
                    axes.plot(x, y, look.marker, color=look.colour, markersize=7, label=in_legend(line.name))
                else:
                    axes.plot(x, y, ".", color=GREY, markersize=5, label="other points of the table")
            axes.set(xlabel="updates", title=_late(delay))
            axes.locator_params(axis="x", integer=True)
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
