"""The gate: whether a trained model may serve, by expectations and by evidence that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.errors import InputError
from cl_lib.service.choosing import choose
from cl_lib.service.evidence import Evidence
from cl_lib.service.expectations import read_expectations
from cl_lib.service.requirements import Bound, Expectations
from cl_lib.service.rules import meets
from cl_lib.service.slice_checks import check_slices
from cl_lib.service.verdict import COUNT, Check, Verdict

if TYPE_CHECKING:
    from cl_lib.record import Record


def gate(
    record: Record,
    against: Record | None = None,
    *,
    expectations: str | Path | Mapping[str, Any] | Expectations,
    row: int | None = None,
    against_row: int | None = None,
) -> Verdict:
    """Decide whether a trained model may serve.

    In a stream by time (domain-incremental, see `history_of`), a row is tested on the window after the last that it was
    trained on, or on the windows that the expectations name; windows that a row was trained on are refused. Other
    streams have no time: the final results of their records are used.

    Parameters
    ----------
    record : Record
    against : Record, optional
        Record of the model that serves, of the same data and seeds. Without it, and with ``against_row``: the same
        record.
    expectations : str, Path or dict
        A YAML file or its content, see `read_expectations`.
    row : int, optional
        The model that would serve: row i is the model after i windows. An older row is a rollback. Default: the newest
        row that can be tested.
    against_row : int, optional
        The row that serves. Default: the row of ``against`` of the same number.

    Returns
    -------
    Verdict
        Prints as a table. Diverged replicas of the candidate fail every check; those of the other model are left out of
        comparisons.

    Raises
    ------
    InputError
        For expectations that are malformed or do not fit the record, records of different data, rows that do not exist,
        and evidence from windows that a row was trained on.

    Examples
    --------
    >>> import cl_lib
    >>> stream = cl_lib.streams.rotated(cl_lib.datasets.digits(), experiences=5)
    >>> record = cl_lib.run(stream, cl_lib.strategies.Finetune(), seeds=2)
    >>> verdict = gate(record, expectations={"metrics": {"accuracy": {"min": 0.8}}, "staleness": {"max_windows": 1}})
    >>> verdict.accepted, verdict.row, [(check.name, check.windows, check.passed) for check in verdict.checks]
    (False, 4, [('metrics.accuracy.min', ('rotation 5',), False), ('staleness.max_windows', ('rotation 5',), True)])
    """
    expected = read_expectations(expectations)
    new, old = choose(record, against, row, against_row, expected)
    kept = new.healthy if old is None else new.healthy & old.healthy
    if old is not None and new.healthy.any() and not kept.any():
        raise InputError("against: every replica of it diverged, so there is nothing to compare with; leave it out")
    checks = [_check(bound, new, old, kept) for bound in expected.bounds]
    for part in expected.slices:
        for key, value, limit, rule, n, passed, reason in check_slices(part, new, old, kept):
            checks.append(Check(f"slices.{part.column}.{key}", value, limit, rule, _names(new), n, passed, reason))
    if not new.healthy.all():
        checks = _refused(checks, new)
    return Verdict(
        accepted=all(check.passed for check in checks),
        checks=tuple(checks),
        strategy=record.strategy,
        row=new.row,
        against=None if old is None else old.record.strategy,
        against_row=None if old is None else old.row,
        seeds=len(record.seeds),
    )


def _check(bound: Bound, new: Evidence, old: Evidence | None, kept: np.ndarray) -> Check:
    if bound.section == "staleness":
        return _stale(bound, new)
    metric = bound.name if bound.section != "flips" else ""
    if bound.key in ("max_drop", "max_rise", "max_negative"):
        if old is None:
            raise InputError(f"{bound.where}: needs another model to compare with; give against or against_row")
        if bound.section != "flips" and new.used(metric) != old.used(metric):
            raise InputError(
                f"{bound.where}: rows {new.row} and {old.row} have it on different windows; give equal rows"
            )
        values = _changes(bound, new, old)[kept]
    else:
        values = new.values(bound.name, bound.where)[new.healthy]
    windows, n = _names(new, metric), new.count(metric)
    if not np.isfinite(values).all() or not len(values):
        reason = f"it is undefined for {int((~np.isfinite(values)).sum())} of {len(values)} seeds"
        return Check(bound.title, None, bound.limit, bound.confidence, windows, n, False, reason)
    value, passed, reason = meets(values, bound)
    return Check(bound.title, value, bound.limit, bound.confidence, windows, n, passed, reason)


def _changes(bound: Bound, new: Evidence, old: Evidence) -> np.ndarray:
    """``(R,)`` drop or rise of a metric, or share of the samples that became wrong."""
    if bound.section == "flips":
        return np.asarray((old.correct(bound.where) & ~new.correct(bound.where)).mean(-1))
    change = new.values(bound.name, bound.where) - old.values(bound.name, bound.where)
    return change if bound.key == "max_rise" else -change


def _stale(bound: Bound, new: Evidence) -> Check:
    if new.windows is None:
        raise InputError(f"{bound.where}: {new.record.stream['name']} has no windows in time; leave the section out")
    served = new.record.arrays.get("served")  # of a run with a policy: the window that each replica was last trained on
    trained = new.row if served is None else int(served[:, new.row].min())
    age = len(new.record.stream["columns"]) - trained
    words = "more than" if age > bound.limit else "at most"
    reason = f"row {new.row} was not trained on the last {age} of the record's windows, {words} {bound.limit:g}"
    return Check(bound.title, age, bound.limit, COUNT, _names(new), new.count(), age <= bound.limit, reason)


def _refused(checks: list[Check], new: Evidence) -> list[Check]:
    """All checks as failed, because replicas diverged."""
    lost = [replica for replica, ok in zip(new.record.replicas, new.healthy, strict=True) if not ok]
    seeds = ", ".join(str(replica["seed"]) for replica in lost[:10])
    reason = f"{len(lost)} of {len(new.healthy)} replicas diverged (seeds {seeds}{' and more' if lost[10:] else ''})"
    return [Check(check.name, None, check.bound, check.rule, check.windows, check.n, False, reason) for check in checks]


def _names(evidence: Evidence, metric: str = "") -> tuple[str, ...]:
    return tuple(str(evidence.record.stream["columns"][window]) for window in evidence.used(metric) or ())
