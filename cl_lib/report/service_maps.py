"""Maps of a service report: flips by slice and update, and alarms by watch and window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib import drift
from cl_lib.errors import InputError, nearest, printable
from cl_lib.metrics.slices import MINIMUM
from cl_lib.policies import OnDrift
from cl_lib.report.canvas import FAINT, INK, name_axis, panels, shorten, style, svg
from cl_lib.report.service_entries import mean
from cl_lib.service import Backtest, backtest
from cl_lib.service.auditing import audit

if TYPE_CHECKING:
    from cl_lib.record import Record
    from cl_lib.record.predictions import Predictions

SLICES = 20
WATCHES = {
    "inputs": drift.Inputs(),
    "labels": drift.Labels(),
    "predicted labels": drift.PredictedLabels(),
    "confidence": drift.Confidence(),
    "errors": drift.Errors(),
}
RIGHT, WRONG = style(0).colour, style(1).colour


def slice_column(record: Record, by: str | None) -> str:
    """The column ``by``, or the first metadata column that has several slices in a window, else the class."""
    predictions = record.predictions
    if predictions is None:
        raise InputError("record: has no predictions; run with save_predictions=true")
    if by is not None:
        if by not in predictions.names:
            raise InputError(f"by={by}: the record has no such column{nearest(by, predictions.names)}")
        return by
    return next((name for name in predictions.names[1:] if _varies(predictions, name)), "class")


def _varies(predictions: Predictions, name: str) -> bool:
    codes = predictions.slices(name)
    return any(len(np.unique(codes[place])) > 1 for place in predictions.positions)


def flip_map(record: Record, by: str) -> tuple[str, int]:
    """Draw the change of accuracy of each slice at each update on the window that follows; flagged cells are marked.

    Parameters
    ----------
    record : Record
    by : str
        A metadata column; its largest slices are drawn.

    Returns
    -------
    svg : str
        An ``<svg>`` element.
    flagged : int
        Number of marked cells.
    """
    result = audit(record, by)
    change = -mean(result.drops(by), 0).T  # (S, U)
    count = np.zeros_like(change)
    for u, replicas in enumerate(result.by_slice):
        count[: len(replicas[0][by].count), u] = replicas[0][by].count
    flagged = result.flags(by).mean(0).T
    order = np.argsort(-count.sum(1), kind="stable")[:SLICES]
    order = order[(count[order] >= MINIMUM).any(1)]
    change, count, flagged = change[order], count[order], np.where(count[order] >= MINIMUM, flagged[order], 0)
    whole = -np.array([np.mean([flips.drop[0] for flips in replicas]) for replicas in result.whole])
    change = np.concatenate([whole[None], np.where(count >= MINIMUM, change, np.nan)])
    labels = ["all samples", *(shorten(result.labels[by][s], 22) for s in order)]
    known = np.abs(change[np.isfinite(change)])
    most = max(float(np.quantile(known, 0.98)), 0.01) if known.size else 0.01
    with panels(1, 1, 1.5 + 0.22 * len(labels)) as (figure, (axes,)):
        axes.set_facecolor(FAINT)
        mesh = axes.pcolormesh(
            np.ma.masked_invalid(change), cmap="PuOr", vmin=-most, vmax=most, edgecolors="white", linewidth=0.6
        )
        rows, columns = np.nonzero(flagged)
        sizes = 8 + 40 * flagged[rows, columns]
        axes.scatter(columns + 0.5, rows + 1.5, sizes, color=INK, edgecolors="white", linewidths=0.8)
        axes.axhline(1, color=INK, linewidth=1)
        axes.invert_yaxis()
        axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
        windows = [printable(result.columns[after[0]], one_line=True) for _, _, after in result.updates]
        name_axis(axes, windows, 26)
        axes.set_xticks(axes.get_xticks() + 0.5, [label.get_text() for label in axes.get_xticklabels()])
        axes.set_xlabel("window that the models before and after the update are compared on")
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        bar = figure.colorbar(mesh, ax=axes, fraction=0.03, pad=0.015, aspect=25, extend="both")
        bar.set_label("change of accuracy")
        bar.outline.set_visible(False)
        return svg(figure, f"Change of accuracy by {by} at every update"), len(rows)


def memory_map(record: Record) -> str:
    """Draw how many samples of each window are in memory after each window, mean over replicas."""
    count = record.arrays["memory.column"][:, 1:].mean(0).T  # (E, T)
    names = [printable(str(name), one_line=True) for name in record.stream["columns"]]
    with panels(1, 1, 3.2) as (figure, (axes,)):
        mesh = axes.pcolormesh(np.ma.masked_equal(count, 0), cmap="Blues", vmin=0)
        axes.set_facecolor(FAINT)
        name_axis(axes, names, 26)
        axes.set_xticks(axes.get_xticks() + 0.5, [label.get_text() for label in axes.get_xticklabels()])
        shown = range(0, len(names), -(-len(names) // 13))
        axes.set_yticks([i + 0.5 for i in shown], [names[i] for i in shown])
        axes.set(xlabel="after window", ylabel="samples from window")
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        bar = figure.colorbar(mesh, ax=axes, fraction=0.03, pad=0.015, aspect=25)
        bar.set_label("samples in memory")
        bar.outline.set_visible(False)
        return svg(figure, "Samples in memory by the window that they come from")


def watches(record: Record, like: Backtest) -> dict[str, Backtest]:
    """Backtests of `OnDrift` with each watch and default thresholds, on the windows and with the delay of another."""
    predictions = record.predictions
    known = {
        name: w for name, w in WATCHES.items() if name != "inputs" or (predictions and "inputs" in predictions.arrays)
    }
    shared: dict[str, Any] = {"delay": like.delay, "metric": like.metric, "start": like.first}
    shared["until"] = like.first + len(like.windows)
    return {name: backtest(record, OnDrift(watch), **shared) for name, watch in known.items()}


def alarm_map(results: dict[str, Backtest]) -> str:
    """Draw for each watch and window the share of replicas with an alarm, right ones and wrong ones.

    Parameters
    ----------
    results : dict of Backtest
        From `watches`.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    from matplotlib.patches import Patch

    with panels(1, 1, 0.9 + 0.52 * len(results)) as (figure, (axes,)):
        for row, result in enumerate(results.values()):
            x = np.arange(len(result.windows))
            right = (result.alarms & result.helpful).mean(0)
            wrong = (result.alarms & ~result.helpful).mean(0)
            base = len(results) - 1 - row
            axes.axhline(base, color=FAINT, linewidth=0.8)
            axes.bar(x, 0.8 * right, 0.86, bottom=base, color=RIGHT)
            axes.bar(x, 0.8 * wrong, 0.86, bottom=base + 0.8 * right, color=WRONG)
            precision, chance = float(mean(result.precision)), float(result.helpful[:, 1:].mean())
            said = f"{precision:.0%} right" if np.isfinite(precision) else "no alarm"
            said = f"{said}\n(chance {chance:.0%})"
            axes.text(1.01, base + 0.4, said, va="center", fontsize=8, transform=axes.get_yaxis_transform())
        names = [printable(name, one_line=True) for name in next(iter(results.values())).windows]
        axes.set_yticks(np.arange(len(results))[::-1] + 0.4, results)
        axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(-0.05, len(results)))
        name_axis(axes, names, 26)
        axes.tick_params(length=0)
        axes.set_xlabel("window before which the alarm was raised")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        keys = [Patch(color=RIGHT, label="right: an update helped"), Patch(color=WRONG, label="wrong: it did not help")]
        figure.legend(handles=keys, loc="outside lower center", ncols=2)
        return svg(figure, "Alarms by watch and window, right or wrong")
