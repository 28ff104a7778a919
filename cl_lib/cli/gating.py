"""Entry point of ``cl-gate``, which decides whether a trained model may serve and keeps every verdict."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cl_lib.cli.main import _guarded
from cl_lib.errors import InputError
from cl_lib.files import Lock, read_json, write_text
from cl_lib.record.record import RECORD, Record

if TYPE_CHECKING:
    from cl_lib.service import Expectations, Verdict

VERDICTS = "gate.json"
SCHEMA = "cl_lib.gate/1"
REFUSED = 1
KEYS = {"schema": str, "time": str, "accepted": bool, "record": dict, "expectations": dict, "checks": list}
"""Keys of a verdict in the file, with their types."""


def gate() -> None:
    """Entry point of ``cl-gate``."""
    sys.exit(_guarded("cl-gate", _gate, sys.argv[1:]))


def _gate(argv: Sequence[str]) -> int:
    from cl_lib.service.expectations import read_expectations
    from cl_lib.service.gating import gate

    args = _parser().parse_args(argv)
    if args.against is not None and Path(args.against).resolve() == Path(args.record).resolve():
        args.against = None
        if args.against_row is None:
            raise InputError(
                f"--against {args.record}: is the same record; name its row that serves with --against-row"
            )
    expected = read_expectations(args.expect)
    record = Record.load(args.record)
    against = None if args.against is None else Record.load(args.against)
    place = Path(record.directory)
    try:
        lock = Lock(place)
    except OSError as error:
        raise InputError(f"{place}: the verdict cannot be written there ({error.strerror})") from error
    with lock:
        earlier = _earlier(place / VERDICTS)
        if args.json is not None:
            _check_target(Path(args.json))
        verdict = gate(record, against, expectations=expected, row=args.row, against_row=args.against_row)
        entry = _entry(verdict, record, against, expected)
        _write(place / VERDICTS, [*earlier, entry])
        if args.json is not None:
            _write(Path(args.json), entry)
    print(verdict)
    print(f"\nverdict: {place / VERDICTS}")
    return 0 if verdict.accepted else REFUSED


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cl-gate",
        description="Decide whether a trained model may serve. Exit code 0: accepted, 1: refused, 2: a mistake.",
    )
    parser.add_argument("record", metavar="DIR", help="directory of the run whose model would serve")
    parser.add_argument("--expect", required=True, metavar="FILE", help="YAML file of the expectations")
    parser.add_argument("--against", metavar="DIR", help="directory of the run whose model serves now")
    parser.add_argument(
        "--row",
        type=int,
        metavar="I",
        help="the model after I windows; an older one is a rollback (default: the newest)",
    )
    parser.add_argument("--against-row", type=int, metavar="J", help="row that serves now (default: that of --row)")
    parser.add_argument("--json", metavar="FILE", help=f"write this verdict to a file too, beside DIR/{VERDICTS}")
    return parser


def _entry(verdict: Verdict, record: Record, against: Record | None, expected: Expectations) -> dict[str, Any]:
    """A verdict with its time and the hashes of all that it depends on."""
    older = against or (record if verdict.against_row is not None else None)
    return {
        "schema": SCHEMA,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "record": _identity(record),
        "serving": None if older is None else _identity(older),
        "expectations": {"file": expected.source, "sha256": expected.sha256},
        **verdict.to_json(),
    }


def _identity(record: Record) -> dict[str, Any]:
    content = (Path(record.directory) / RECORD).read_bytes()
    return {
        "directory": record.directory,
        "sha256": hashlib.sha256(content).hexdigest(),
        "arrays_sha256": record.arrays_sha256,
        "data_hash": record.stream["data_hash"],
    }


def _write(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _earlier(path: Path) -> list[Any]:
    """The verdicts so far; `InputError` for a file that is damaged."""
    if not path.exists():
        return []
    data = _read(path) if path.is_file() else None
    if not isinstance(data, list) or not all(map(_is_verdict, data)):
        raise InputError(f"{path}: is damaged, not a list of verdicts of cl-gate; move it away or repair it")
    return data


def _check_target(path: Path) -> None:
    """Raise `InputError` where ``--json`` would replace another file or cannot be written."""
    if path.name == VERDICTS and path.resolve().parent.joinpath(RECORD).exists():
        raise InputError(f"--json {path}: keeps the verdicts of a run, this one too; name another file")
    if not path.parent.is_dir():
        raise InputError(f"--json {path}: there is no directory {path.parent}")
    if path.exists() and (not path.is_file() or not _is_verdict(_read(path))):
        raise InputError(f"--json {path}: is not a verdict of cl-gate and is not replaced")


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: is damaged ({error}); move it away or repair it") from None


def _is_verdict(data: Any) -> bool:
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        return False
    return all(isinstance(data.get(name), kind) for name, kind in KEYS.items())
