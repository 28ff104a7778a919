"""Cells of the tables of a service report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.record.text import NULL
from cl_lib.report.service_entries import Served, mean
from cl_lib.service import Backtest
from cl_lib.service.gate_curves import GateCurve
from cl_lib.service.result_file import record_hash

if TYPE_CHECKING:
    from cl_lib.record import Record


def policy_rows(lines: Sequence[Served]) -> list[dict[str, Any]]:
    """Cells of the main table: the references of each delay before its policies."""
    out: list[dict[str, Any]] = []
    done: set[int] = set()
    for line in lines:
        result = line.result
        if result.delay not in done:
            done.add(result.delay)
            shown = {line.constant for line in lines if line.result.delay == result.delay}
            for name, losses, updates in (
                ("never updated", result.never, "0"),
                ("always updated", result.always, str(len(result.windows) - 1)),
            ):
                cells = [str(result.delay), _number(float(mean(losses))), "", "", "", updates, "", "", "", ""]
                if name not in shown:
                    out.append({"number": None, "name": name, "cells": cells, "interval": ""})
        low, high = line.interval
        out.append(
            {
                "number": line.number,
                "name": line.name,
                "interval": f"[{low:.2f}, {high:.2f}]" if math.isfinite(low) else "",
                "cells": [
                    str(result.delay),
                    *(_number(line.mean(part)) for part in ("mean_loss", "random", "oracle")),
                    _number(line.mean("skill"), 2),
                    *(_number(line.mean(part), 1) for part in ("updates", "harmful")),
                    _number(float(line.of("refused").sum(-1).mean()), 1),
                    *(_number(100 * line.mean(part), 0, " %") for part in ("precision", "recall")),
                ],
            }
        )
    return out


def cost_row(line: Served) -> dict[str, Any]:
    """Labels and steps of one policy."""
    values = [f"{line.mean(part):,.0f}" for part in ("labels", "steps")]
    return {"number": line.number, "name": line.name, "cells": [str(line.result.delay), *values]}


def _number(value: float, digits: int = 4, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit}" if math.isfinite(value) else NULL


def tolerance_rows(curve: GateCurve) -> list[tuple[str, str, str]]:
    """Rows of the gate table: tolerance 0 and five that are spread over the curve."""
    spread = np.quantile(curve.tolerances, [0.1, 0.3, 0.5, 0.7, 0.9], method="nearest")
    rows = []
    for tolerance in np.unique([0.0, *spread]):
        blocked, refused = (_number(100 * share, 0, " %") for share in curve.at(float(tolerance)))
        rows.append((f"{tolerance:+.4f}" if tolerance else "0", blocked, refused))
    return rows


def facts(record: Record, first: Backtest) -> list[tuple[str, str]]:
    """The run that the backtests belong to."""
    return [
        ("stream", record.stream["name"]),
        ("data hash", record.stream["data_hash"]),
        ("windows served", f"{len(first.windows)}: {first.windows[0]} to {first.windows[-1]}"),
        ("test samples by window", f"{int(record.arrays['support'][0, -1].min()):,} or more"),
        ("strategy", record.strategy),
        ("replicas", str(len(record.replicas))),
        ("predictions", "stored" if record.predictions is not None else "not stored"),
        ("SHA-256 of record.json", record_hash(record) or NULL),
    ]
