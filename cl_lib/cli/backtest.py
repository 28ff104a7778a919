"""Entry point of ``cl-backtest``: update policies tested on a finished run, as a table, a file and a page."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl_lib.cli.main import _guarded
from cl_lib.cli.overrides import first_line
from cl_lib.errors import InputError, nearest
from cl_lib.validation import check_whole

if TYPE_CHECKING:
    from cl_lib.record import Record
    from cl_lib.service import Backtest

PLAIN = ("policy", "delay", "metric", "start", "until", "gate", "by")
PREFIXES = ("policy.", "grid.policy.", "gate.")
HELP = """\
options, as name=value:
  policy=NAME[,NAME...]      never, every, random, on_drift, on_decay, on_gain, cost_aware
                             (default: every,on_decay,cost_aware; with predictions also on_drift,on_gain)
  policy.FIELD=VALUE         a field of every named policy that has it: windows (every), rate, seed (random),
                             watch, alpha, effect, m, n, rest, adjust (on_drift), rise, metric (on_decay),
                             alpha, gain (on_gain), cost, metric (cost_aware)
  policy.watch=NAME[,...]    inputs, labels, predicted_labels, confidence, errors; each is tested
  policy.watch.FIELD=VALUE   reference, recent: numbers of windows
  grid.policy.FIELD=[...]    several values of a number, all tested
  gate=NAME[,NAME...]        no_worse, no_slice_drop: updates must pass these first
  gate.FIELD=VALUE           metric, tolerance (no_worse), by, drop, alpha, minimum (no_slice_drop), staleness
  delay=N[,N...]             windows that labels are late (default: 0)
  metric=NAME                nll, error or brier (default: nll)
  start=N, until=N           first window that is served, and the one before which to stop, counted from 0; by default
                             all windows that can be served at the largest delay
  by=COLUMN                  slices in the page (default: the first metadata column)

example:
  cl-backtest runs/flights policy=never,every,on_drift,on_gain,cost_aware delay=0,1 --out report.html
  cl-backtest runs/flights policy=on_drift policy.watch=confidence,errors grid.policy.effect=[.05,.1,.2]
  cl-backtest runs/flights policy=every gate=no_worse,no_slice_drop gate.by=carrier gate.drop=0.1

exit codes: 0, and 2 for a mistake in the options or a record that cannot be used
"""


def backtest() -> None:
    """Entry point of ``cl-backtest``."""
    sys.exit(_guarded("cl-backtest", _backtest, sys.argv[1:]))


def _backtest(argv: list[str]) -> int:
    from cl_lib.record import Record
    from cl_lib.report.html import check_target
    from cl_lib.report.service import service_page
    from cl_lib.report.service_maps import slice_column
    from cl_lib.service import result_file, table

    given = [a for a in argv if re.match(r"[A-Za-z_][\w.]*=", a) and not Path(a).exists()]
    args = _parser().parse_args([a for a in argv if a not in given])
    options = read_options(given)
    if args.out is not None:
        check_target(args.out)
    record = Record.load(args.directory)
    target = Path(args.json) if args.json is not None else Path(record.directory) / result_file.BACKTEST
    if target.is_dir():
        raise InputError(f"--json {target}: is a directory; name a file, such as {target / result_file.BACKTEST}")
    if args.json is not None and target.exists() and not result_file.is_backtest(target):
        raise InputError(f"--json {target}: holds no results of cl-backtest and is not replaced; name another file")
    by = str(options["by"]) if "by" in options else None
    if by is not None:
        slice_column(record, by)
    results, names = run_backtests(record, options)
    print(table(results, names))
    print(f"results: {result_file.write(result_file.to_json(results, record, names), target)}")
    if args.out is not None:
        print(f"report: {service_page(record, results, names, args.out, by=by)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cl-backtest",
        usage="cl-backtest DIR [name=value ...] [--out report.html] [--json PATH]",
        description="Test policies that decide when a model in service is updated, on the record of a finished run.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("directory", metavar="DIR", help="directory of a run of a stream by time")
    parser.add_argument("--out", default=None, help="page to write (default: none)")
    parser.add_argument("--json", default=None, help="file for the results (default: backtest.json in DIR)")
    return parser


def read_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Values of overrides by name; unknown names and values that cannot be read raise `InputError`.

    Examples
    --------
    >>> read_options(["policy=never,every", "delay=0,1", "grid.policy.effect=[.05,.1]"])
    {'policy': 'never,every', 'delay': [0, 1], 'grid.policy.effect': [0.05, 0.1]}
    """
    from omegaconf import OmegaConf

    out: dict[str, Any] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        if key not in PLAIN and not any(key.startswith(p) and key != p for p in PREFIXES):
            raise InputError(f"{key}: unknown option{nearest(key, PLAIN)} (cl-backtest --help lists them)")
        if key in ("delay",) and "," in text and not text.startswith("["):
            text = f"[{text}]"
        try:
            config: Any = OmegaConf.from_dotlist([f"value={text}"])
            out[key] = OmegaConf.to_container(config, resolve=False)["value"]  # type: ignore[index,call-overload]
        except Exception as error:  # OmegaConf and YAML may raise anything for a user's text
            raise InputError(f"{override}: cannot be read ({first_line(error)})") from error
    return out


def run_backtests(record: Record, options: dict[str, Any]) -> tuple[list[Backtest], list[str]]:
    """Backtests of all policies at all delays, on the same windows, and their names."""
    from cl_lib import service
    from cl_lib.cli.policy_options import candidates, words

    stored = record.predictions_sha256 is not None or record.samples is not None
    default = "every,on_decay,on_drift,on_gain,cost_aware" if stored else "every,on_decay,cost_aware"
    chosen = candidates(
        words(options.get("policy", default), "policy"),
        _below(options, "policy."),
        _below(options, "grid.policy."),
        words(options["gate"], "gate") if "gate" in options else [],
        _below(options, "gate."),
    )
    value = options.get("delay", 0)
    delays = value if isinstance(value, list) else [value]
    if not delays:
        raise InputError("delay=[]: must be one or several whole numbers, separated by commas")
    for delay in delays:
        check_whole("delay", delay, 0)
    delays = list(dict.fromkeys(delays))
    start = options.get("start")
    if start is None and len(delays) > 1:
        start = max(delays) + 1 if max(delays) + 2 < len(record.stream["columns"]) else None  # else an error
    shared = {"metric": options.get("metric", "nll"), "start": start, "until": options.get("until")}
    results = [
        service.backtest(record, policy, delay=delay, grid=grid or None, **shared)
        for delay in delays
        for _, policy, grid in chosen
    ]
    return results, [name for _ in delays for name, _, _ in chosen]


def _below(options: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)}
