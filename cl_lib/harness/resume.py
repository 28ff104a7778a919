"""Files of an unfinished run: the checkpoint, and the accuracies so far in a readable file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_lib.engine import checkpoint
from cl_lib.errors import InputError
from cl_lib.files import null, replace_file
from cl_lib.harness.groups import Group
from cl_lib.record.directory import differences
from cl_lib.record.record import CHECKPOINT, PARTIAL
from cl_lib.types import Row


def save(
    out: Path,
    job: dict[str, Any],
    learner: dict[str, Any],
    groups: Sequence[Group],
    position: Mapping[str, int],
    seconds: Mapping[str, float],
) -> None:
    """Write the learner's tree, all rows and the position of the run: group, experience and step."""
    rows = {f"{g}.{i}": row.arrays for g, group in enumerate(groups) for i, row in enumerate(group.rows)}
    tensors = {k: {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in v.items()} for k, v in rows.items()}
    meta = {
        "job": job,
        **position,
        "seconds": seconds,
        "rows": [[(row.experience, row.step) for row in group.rows] for group in groups],
        "sizes": [[group.parameters, group.memory_bytes] for group in groups],
    }
    checkpoint.save(out / CHECKPOINT, {"learner": learner, "rows": tensors}, meta)
    evaluated = [
        {"experience": r.experience, "step": r.step, "replicas": r.replicas, "accuracy": null(r.accuracy)}
        for group in groups
        for r in group.rows
    ]
    text = json.dumps({"status": "unfinished", "job": job, "rows": evaluated}, indent=1) + "\n"
    replace_file(out / PARTIAL, lambda file: file.write(text.encode()))


def load(
    out: Path, job: dict[str, Any], groups: Sequence[Group]
) -> tuple[dict[str, Any], dict[str, int], dict[str, float]]:
    """Load the learner's tree, the position and the seconds; the saved rows are appended to the groups."""
    path = out / CHECKPOINT
    saved, meta = checkpoint.load(path)
    try:
        if differing := differences(job, meta["job"]):
            raise InputError(
                f"{path}: belongs to a run with other options ({', '.join(differing)}); resume with the same options"
            )
        for g, (group, heads, sizes) in enumerate(zip(groups, meta["rows"], meta["sizes"], strict=True)):
            group.parameters, group.memory_bytes = sizes
            for i, (experience, step) in enumerate(heads):
                arrays = {name: tensor.numpy() for name, tensor in saved["rows"][f"{g}.{i}"].items()}
                if any(len(array) != len(group.members) for array in arrays.values()):
                    raise ValueError("its rows have a different number of replicas")
                group.rows.append(Row(int(experience), int(step), group.members, arrays))
        position = {k: int(meta[k]) for k in ("group", "experience", "step")}
        if min(position.values()) < 0 or position["group"] >= len(groups):
            raise ValueError("its position is not in this run")
        return saved["learner"], position, {k: float(v) for k, v in meta["seconds"].items()}
    except InputError:
        raise
    except Exception as error:  # a file of another program or a changed file may raise anything
        raise checkpoint.unreadable(path, error) from error
