"""The matrices of a record as one long table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cl_lib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from cl_lib.record.record import Record

METRICS = ("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")


def frame(record: Record) -> pd.DataFrame:
    """One line for each replica, evaluation and test set; all values are numbers.

    Parameters
    ----------
    record : Record
        With its arrays.

    Returns
    -------
    DataFrame
        ``replica`` (position in ``record.replicas``), ``seed``, a column for each hyper-parameter of the grid,
        ``experience`` (number of experiences trained), ``step``, ``test_set`` (1-based; names are in
        ``record.stream["columns"]``), ``support``, and the metrics ``accuracy``, ``nll``, ``brier``, ``ece``,
        ``adaptive_ece``, ``classwise_ece``; NaN where a metric is undefined or the replica diverged.

    Raises
    ------
    InputError
        If the record has no arrays.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> record = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2)
    >>> table = frame(record)
    >>> table.shape
    (60, 12)
    >>> last = table[table.experience == 5].groupby("seed").accuracy.mean()
    >>> bool(np.allclose(last, record.metrics["accuracy"].per_seed))
    True
    """
    import pandas as pd

    if not record.arrays:
        raise InputError(f"record {record.strategy}: has no arrays.npz; copy it together with its record")
    matrix = record.arrays["matrix.accuracy"]
    shape = matrix.shape
    replica, row, column = (part.ravel() for part in np.indices(shape))
    experiences = np.array([line["experience"] for line in record.rows])
    out = {"replica": replica, "seed": np.array([r["seed"] for r in record.replicas])[replica]}
    for name in record.replicas[0]["hyper"]:
        out[name] = np.array([r["hyper"][name] for r in record.replicas], dtype=float)[replica]
    out["experience"] = experiences[row]
    out["step"] = record.arrays["step"][replica, row]
    out["test_set"] = column + 1
    out["support"] = record.arrays["support"].astype(int)[replica, row, column]
    for name in METRICS:
        out[name] = record.arrays[f"matrix.{name}"].ravel()
    return pd.DataFrame(out)
