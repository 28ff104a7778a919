"""Which rows a gate compares, and on which windows: never on one that either row was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cl_lib.errors import InputError, nearest
from cl_lib.service.evidence import Evidence, in_service, same_data
from cl_lib.service.requirements import Expectations
from cl_lib.validation import is_whole

if TYPE_CHECKING:
    from cl_lib.record import Record


def choose(
    record: Record, against: Record | None, row: int | None, against_row: int | None, expected: Expectations
) -> tuple[Evidence, Evidence | None]:
    """Evidence of the candidate and of the model that it is compared with, on the same windows.

    Raises
    ------
    InputError
        For rows that do not exist or are the same, records of different data, and windows that a row was trained on.
    """
    for part in (record, against):
        if part is not None and part.grid:
            raise InputError(f"record {part.strategy}: has a grid of {len(part.grid)} points; run the chosen one alone")
    if against is not None:
        same_data(record, against)
    last = len(record.rows) - 1
    for name, value, rows in (("row", row, last), ("against_row", against_row, len((against or record).rows) - 1)):
        if value is not None and (not is_whole(value) or not 1 <= value <= rows):
            raise InputError(f"{name}={value!r}: must be a row from 1 to {rows}")
    other = against or (record if against_row is not None else None)
    if not in_service(record):
        return _final(record, other, row, against_row, expected)
    if other is not None:
        in_service(other)
    row, older, windows = _windows(record, row, against_row, other is not None, expected)
    _different(record, row, other, older)
    return Evidence(record, row, windows), None if other is None else Evidence(other, older, windows)


def _final(
    record: Record, other: Record | None, row: int | None, against_row: int | None, expected: Expectations
) -> tuple[Evidence, Evidence | None]:
    """Both records at their last rows."""
    for name, value, part in (("row", row, record), ("against_row", against_row, other)):
        if value is not None and part is not None and value != len(part.rows) - 1:
            raise InputError(
                f"{name}={value}: {part.stream['name']} is {part.stream['scenario']}-incremental and has no windows in "
                f"time; only its last row, {len(part.rows) - 1}, can be tested"
            )
    if expected.where:
        raise InputError(f"{expected.where}: {record.stream['name']} has no windows in time; leave it out")
    last = len(record.rows) - 1
    older = 0 if other is None else len(other.rows) - 1
    _different(record, last, other, older)
    return Evidence(record, last, None), None if other is None else Evidence(other, older, None)


def _different(record: Record, row: int, other: Record | None, older: int) -> None:
    if other is None or row != older:
        return
    if other is record or (record.arrays_sha256 is not None and other.arrays_sha256 == record.arrays_sha256):
        raise InputError(f"against: is the same model, row {row} of the same record; name another with against_row")


def _windows(
    record: Record, row: int | None, against_row: int | None, compared: bool, expected: Expectations
) -> tuple[int, int, list[int]]:
    """The two rows, the older one 0 without a comparison, and the positions of the windows; row i knows i windows."""
    columns = [str(name) for name in record.stream["columns"]]
    total = len(columns)
    if not isinstance(expected.windows, int):
        windows = sorted(_position(name, columns, expected.where) for name in expected.windows)
        if windows[0] == 0:
            raise InputError(f"{expected.where}: every row was trained on the first window {columns[0]}; leave it out")
        row = windows[0] if row is None else row
        older = 0 if not compared else row if against_row is None else against_row
        for name, value in (("row", row), ("against_row", older)):
            if windows[0] < value:
                left = f"the windows from {columns[value]} on" if value < total else f"no window; test row {total - 1}"
                raise InputError(
                    f"{expected.where}: {name} {value} was trained on window {columns[windows[0]]} and cannot be "
                    f"tested on it; it was not trained on {left}"
                )
        return row, older, windows
    count = expected.windows
    newest = total - count
    if newest < 1:
        raise InputError(f"{expected.where}: {count} windows of evidence leave no row to test; at most {total - 1}")
    row = newest if row is None else row
    older = 0 if not compared else row if against_row is None else against_row
    for name, value in (("row", row), ("against_row", older)):
        if value > newest:
            after = "no window" if value == total else f"only {total - value} of {count} windows"
            raise InputError(
                f"{name}={value}: was trained on the windows up to {columns[value - 1]}, which leaves {after} to test "
                f"it; the newest row that can be tested is {newest}"
            )
    first = max(row, older)
    return row, older, list(range(first, first + count))


def _position(name: str, columns: list[str], where: str) -> int:
    if name not in columns:
        raise InputError(f"{where}: there is no window {name!r}{nearest(name, columns) if len(columns) < 20 else ''}")
    return columns.index(name)
