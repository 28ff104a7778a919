"""Summary of a record as text, and formatting of its numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.errors import printable
from cl_lib.record.glossary import METRICS
from cl_lib.record.metric import Metric

if TYPE_CHECKING:
    from cl_lib.record.record import Record

NULL = "–"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def summary(record: Record, width: int | None = None, points: Sequence[str] | None = None) -> str:
    """Summary of a record for the terminal.

    Parameters
    ----------
    record : Record
    width : int, optional
        Width of the terminal in characters, to which longer lines are wrapped. Default: lines are not wrapped.
    points : sequence of str, optional
        Lines that describe the grid points, if the record has a grid. Default: the accuracy of each grid point
        (`cl_lib.report.summary` passes a table that compares them).

    Returns
    -------
    str
        Strategy, stream and seeds; every metric with standard deviation and 95 % interval, or the reason why it is
        undefined; a line for each grid point; diverged replicas; seconds.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> print(summary(cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2)).splitlines()[0])
    er on split_digits: class-incremental, 5 experiences, 10 classes, data digits
    """
    out = [f"{record.strategy} on {describe(record)}", _setup(record), *_service(record), ""]
    if record.grid:
        out += [*(points if points is not None else _points(record)), ""]
    else:
        out += [*_metrics(record), ""]
        if diverged := [replica for replica in record.replicas if replica["status"] != "ok"]:
            out.append(f"{len(diverged)} of {len(record.replicas)} replicas diverged: {_named(diverged)}")
    cost, many = record.cost, "s" if record.cost["replicas"] != 1 else ""
    out.append(
        f"{seconds(cost['training_seconds'])} s of training"
        + (f" ({seconds(t)} s of which tracing and compiling)" if (t := cost.get("preparation_seconds")) else "")
        + f", {seconds(cost['evaluation_seconds'])} s of evaluation, "
        f"{seconds(cost['planning_seconds'])} s of planning for {cost['replicas']} replica{many} "
        f"on {record.environment['device']}"
    )
    return broken(printable("\n".join(out)), width)


def broken(text: str, width: int | None) -> str:
    """Wrap the lines of a string that are longer than ``width``.

    >>> print(broken("two words", 5))
    two
        words
    """
    if width is None:
        return text
    room = max(width, 20)
    out: list[str] = []
    for line in text.split("\n"):
        out += textwrap.wrap(line, room, subsequent_indent="    ") if len(line) > room else [line]
    return "\n".join(out)


def describe(record: Record) -> str:
    """Describe the record's stream in one line."""
    s = record.stream
    sizes = f"{s['experiences']} experiences, {s['classes']} classes"
    return f"{s['name']}: {s['scenario']}-incremental, {sizes}, data {s['data']}"


def _setup(record: Record) -> str:
    job, count = record.job, len(record.seeds)
    on = "test" if job.get("eval_on", "test") == "test" else "validation"
    epochs, many = job.get("epochs", 1), len(record.grid)
    grid = f" x {many} grid point{'s' if many != 1 else ''}" if many else ""
    return (
        f"{count} seed{'s' if count != 1 else ''} ({span(record.seeds)}){grid}, "
        f"{epochs} epoch{'s' if epochs != 1 else ''}, evaluated on {on} data "
        f"over {record.stream['eval_classes']} classes"
    )


def _service(record: Record) -> list[str]:
    """One line for a run with a policy: how often the model that serves was replaced, and how it served."""
    served = record.arrays.get("served")
    if served is None or record.grid:
        return []
    updates = (np.diff(served[:, 1:-1], axis=1) != 0).sum(1).mean()
    windows = np.arange(1, served.shape[1] - 1)
    nll, name = record.arrays["matrix.nll"][:, windows, windows].mean(), record.job["policy"]["name"]
    return [
        f"policy {name}: {updates:.1f} updates, NLL {nll:.4f} in {len(windows)} windows served (means over replicas)"
    ]


def _metrics(record: Record) -> list[str]:
    out = [f"  {'':<18}{'mean ± std':<17} 95 % interval"]
    for name, term in METRICS.items():
        metric = record.metrics.get(name)
        if metric is not None:
            value, _, interval = spread(metric).partition(" [")
            note = f"[{interval}" if interval else "(one seed)" if metric.n == 1 else metric.reason or ""
            out.append(f"  {term.title:<18}{value:<17} {note}".rstrip())
    return out


def _points(record: Record) -> list[str]:
    """One line with the accuracy of each grid point."""
    out = []
    for point in record.grid:
        hyper = ", ".join(f"{name}={value:g}" for name, value in point["hyper"].items())
        out.append(f"  {hyper}: accuracy {spread(Metric(**point['metrics']['accuracy']))}")
    return out


def _named(replicas: Sequence[dict[str, Any]]) -> str:
    more = f" and {len(replicas) - 10} more" if len(replicas) > 10 else ""
    return ", ".join(f"seed {r['seed']} (step {r['diverged_at']})" for r in replicas[:10]) + more


def span(seeds: Sequence[int]) -> str:
    """Short notation for a list of seeds.

    >>> span([0, 1, 2, 3]), span([3, 5]), span(list(range(0, 100, 2)))
    ('0–3', '3, 5', '50 seeds from 0 to 98')
    """
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}–{seeds[-1]}"
    if len(seeds) > 8:
        return f"{len(seeds)} seeds from {min(seeds)} to {max(seeds)}"
    return ", ".join(map(str, seeds))


# ---------------------------------------------------------------------- numbers as text
def number(value: float, sign: bool = False) -> str:
    """Format a number with three decimals, without a negative zero.

    >>> number(0.12345), number(-0.0001), number(0.5, sign=True), number(123456.0)
    ('0.123', '0.000', '+0.500', '1.23e+05')
    """
    if abs(value) >= 1000:
        return f"{value:{'+' if sign else ''}.3g}"
    return f"{round(value, 3) + 0.0:{'+' if sign else ''}.3f}"


def bounds(interval: Sequence[float], sign: bool = False) -> str:
    """Format an interval as ``[low, high]``."""
    return f"[{number(interval[0], sign)}, {number(interval[1], sign)}]"


def spread(metric: Metric | None) -> str:
    """Format a metric as ``mean ± std [low, high]``, without the parts that are undefined."""
    if metric is None or metric.mean is None:
        return NULL
    std = "" if metric.std is None else f" ± {number(metric.std)}"
    return number(metric.mean) + std + ("" if metric.ci95 is None else f" {bounds(metric.ci95)}")


def seconds(value: float | None) -> str:
    """Format seconds with two significant digits below 10, and as whole numbers from there on.

    >>> seconds(0.0434), seconds(12.3), seconds(4321.0), seconds(None)
    ('0.043', '12', '4,321', '–')
    """
    if value is None:
        return NULL
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(count: float | None) -> str:
    """Format bytes in binary units.

    >>> size(0), size(44000), size(3 * 2**30), size(None)
    ('0 B', '43 KiB', '3.0 GiB', '–')
    """
    if count is None:
        return NULL
    power = min(4, max(0, int(count).bit_length() - 1) // 10)
    value = count / 1024**power
    return f"{value:.1f} {'KMGT'[power - 1]}iB" if power and value < 10 else f"{value:.0f} {UNITS[power]}"
