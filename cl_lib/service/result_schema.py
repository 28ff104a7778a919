"""The schema of ``backtest.json``, and the check of its contents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_lib.errors import InputError
from cl_lib.record.check import check_rules

BACKTEST = "backtest.json"
SCHEMA = "cl_lib.backtest/1"


def schema() -> dict[str, Any]:
    """Load the JSON schema of ``backtest.json``, which is part of the package."""
    return json.loads((Path(__file__).parent / "backtest.schema.json").read_text(encoding="utf-8"))


def check(data: Any, where: str = BACKTEST) -> None:
    """Raise `InputError` if ``data`` does not follow the schema or parts of it differ in length."""
    if isinstance(data, Mapping) and data.get("schema") != SCHEMA:
        raise InputError(f"{where}: schema is {data.get('schema')!r}, this version reads {SCHEMA!r}")
    check_rules(data, schema(), where)
    replicas = len(data["record"]["seeds"])
    for i, entry in enumerate(data["results"]):
        place, windows = f"{where}: results[{i}]", len(entry["windows"])
        lengths = {name: (entry[name], replicas) for name in ("path", "updates", "alarms", "harmful")}
        lengths |= {f"costs: {name}": (values, replicas) for name, values in entry["costs"].items()}
        for name in ("loss", "random", "oracle", "skill", "precision", "recall", "loss_by_window"):
            lengths[f"{name}: per_replica"] = entry[name]["per_replica"], replicas
        by_window = entry["loss_by_window"]
        lengths["loss_by_window: mean"] = by_window["mean"], windows
        lengths |= {name: (entry[name], windows) for name in ("never_by_window", "always_by_window")}
        for name, rows in (("path", entry["path"]), ("loss_by_window: per_replica", by_window["per_replica"])):
            lengths |= {f"{name}[{r}]": (row, windows) for r, row in enumerate(rows)}
        for name, (values, size) in lengths.items():
            if len(values) != size:
                raise InputError(f"{place}: {name}: expected {size} values, found {len(values)}")
