"""A self-contained HTML page on backtests: which policy served how well, when it updated, and whether it was right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cl_lib.errors import InputError, printable
from cl_lib.files import write_text
from cl_lib.report.canvas import style
from cl_lib.report.html import DRAWN, check_target
from cl_lib.report.service_curves import gate_lines, pareto
from cl_lib.report.service_entries import METRICS, served
from cl_lib.report.service_lines import service_lines
from cl_lib.report.service_maps import SLICES, alarm_map, flip_map, memory_map, slice_column, watches
from cl_lib.report.service_prose import paragraphs
from cl_lib.report.service_tables import cost_row, facts, policy_rows, tolerance_rows
from cl_lib.service import Backtest
from cl_lib.service.gate_curves import GateCurve, gate_curve

if TYPE_CHECKING:
    from cl_lib.record import Record


def service_page(
    record: Record,
    results: Sequence[Backtest],
    names: Sequence[str] | None,
    path: str | Path,
    *,
    by: str | None = None,
    title: str | None = None,
) -> Path:
    """Write a self-contained HTML page on backtests of one record.

    Parameters
    ----------
    record : Record
    results : sequence of Backtest
        With one metric.
    names : sequence of str or None
        Names of the results; None: those of the policies' classes.
    path : path
        Regular file to write. It is written atomically and replaces an existing file.
    by : str, optional
        Column of the map of slices, where the record has predictions; default: the first metadata column with several
        slices in a window.
    title : str, optional

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    InputError
        If there is no result, the metrics differ, the column is unknown, or the file cannot be written.

    Examples
    --------
    >>> import cl_lib, tempfile
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=6)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2)
    >>> results = [cl_lib.service.backtest(record, cl_lib.policies.Every(k)) for k in (2, 3)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     service_page(record, results, ["every 2", "every 3"], f"{folder}/report.html").name
    'report.html'
    """
    path = check_target(path, replace=True)
    html = page(record, results, names, by=by, title=title)
    return write_text(path, html)


def page(
    record: Record,
    results: Sequence[Backtest],
    names: Sequence[str] | None = None,
    *,
    by: str | None = None,
    title: str | None = None,
) -> str:
    """Render the page that `service_page` writes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from cl_lib._version import __version__

    if not results or len({result.metric for result in results}) > 1:
        raise InputError("results: at least one backtest is needed, and all with the same metric")
    lines = served(results, names if names is not None else [type(result.policy).__name__ for result in results])
    first = results[0]
    stored = record.predictions is not None
    drawn = [line for line in lines if not line.constant] or lines
    curve = _curve(record, first)
    column = slice_column(record, by) if stored or by is not None else ""
    flips, flagged = flip_map(record, column) if stored else ("", 0)
    loader = PackageLoader("cl_lib", "report")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = jinja.get_template("service.html").render(
        title=title or f"When to update: {record.strategy} on {record.stream['name']}",
        paragraphs=paragraphs(record, lines),
        metric=METRICS[first.metric][0],
        rows=policy_rows(lines),
        costs=[cost_row(line) for line in lines],
        lines=service_lines(drawn[:DRAWN]),
        left_out=max(len(drawn) - DRAWN, 0) if len(drawn) < len(lines) or len(drawn) > DRAWN else None,
        pareto=pareto(lines),
        column=column,
        flips=flips,
        flagged=flagged,
        most=SLICES,
        alarms=alarm_map(watches(record, first)) if stored else "",
        gate=gate_lines(curve, first.metric) if curve is not None else "",
        curve=curve,
        tolerances=tolerance_rows(curve) if curve is not None else [],
        memory=memory_map(record) if "memory.column" in record.arrays else "",
        delay=first.delay,
        facts=facts(record, first),
        colour=lambda number: style(number).colour,
        version=__version__,
    )
    return printable(html)


def _curve(record: Record, like: Backtest) -> GateCurve | None:
    """Curve of the gate on the windows of a backtest; None where these are too few."""
    end = like.first + len(like.windows)
    if end <= like.delay + 3:
        return None
    return gate_curve(record, like.metric, like.delay, start=like.first, until=end)
