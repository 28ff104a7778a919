"""Records as far as the figures of reports need them, from the arrays beside a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from table import Run

from cl_lib import Record

PARTS = ("confidence", "accuracy", "count")


def arrays(record: Record) -> dict[str, np.ndarray]:
    """What figures need: matrices, positions, reliability diagrams before and after the stream."""
    diagrams = [[np.array(record.reliability[when][part], float) for part in PARTS] for when in ("before", "after")]
    return {
        "matrix.accuracy": record.arrays["matrix.accuracy"],
        "learned": np.array(record.learned),
        "before": np.array(record.before),
        "experience": np.array([row["experience"] for row in record.rows]),
        "reliability": np.array(diagrams),
    }


def drawable(run: Run, strategy: str) -> Record:
    """A record that `cl_lib.report` can draw."""
    stored = run.arrays
    matrix = stored["matrix.accuracy"]
    columns = [f"experience {e + 1}" for e in range(matrix.shape[2])]
    mean = np.nanmean(matrix, 0)
    reliability: dict[str, Any] = {
        when: {part: [None if np.isnan(v) else float(v) for v in values] for part, values in zip(PARTS, d, strict=True)}
        for when, d in zip(("before", "after"), stored["reliability"], strict=True)
    }
    return Record(
        stream={"name": "", "columns": columns, "classes": 10, "experiences": len(columns), "eval_classes": "all"},
        strategy=strategy,
        seeds=run.seeds,
        config={},
        job={},
        metrics={name: run.metric(name) for name in run.metrics},
        accuracy_matrix=mean.tolist(),
        rows=[{"experience": int(e), "step": None} for e in stored["experience"]],
        learned=stored["learned"].tolist(),
        before=stored["before"].tolist(),
        matrices={},
        slices={},
        reliability=reliability,
        cost={},
        replicas=run.replicas,
        grid=[],
        environment={},
        arrays={"matrix.accuracy": matrix},
    )
