"""False alarms and delays of the sequential detectors: an error of 0.25 that rises to 0.35, minutes on one core.

python experiments/drift_detectors.py                  measure what the table lacks, then print it
python experiments/drift_detectors.py --only ddm,adwin  measure these again

False alarms are counted on 1,000,000 bits in control, once as one stream and once as 100 streams of 10,000, each with a
new detector: some detectors become insensitive in a long stream. Delays are counted from the start of the change, after
5,000 bits in control, over 400 series. A series without an alarm within 5,000 bits is missed, with infinite delay.
kswin is slow: 20,000 bits and 10 series. All detectors get the same bits.

Lines of the part "report" have the default options. Those of the part "choice" led to the defaults of ddm and
page_hinkley, on other bits and 100 series. Of ddm, one point has at most one false alarm per 10,000 both ways and a
median delay of at most 600; river's own options are later. Of page_hinkley, the default has fewer false alarms than
river's own options, and is not later. The other detectors have river's options.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lines import read_lines, write_lines
from scipy import stats
from tqdm import tqdm

from cl_lib.drift import DETECTORS, detect

TABLE = Path(__file__).parent / "results" / "drift_detectors.csv"
BEFORE, AFTER = 0.25, 0.35
IN_CONTROL, STREAM = 1_000_000, 10_000
LEAD, HORIZON, GRADUAL, SERIES = 5_000, 5_000, 2_000, 400
FEW = {"kswin": (20_000, 10)}
"""Bits in control and series of slow detectors."""
CHOICES = {
    "ddm": [{"warm_start": w, "drift_threshold": t} for w in (30, 300) for t in (2.0, 2.5, 3.0)],
    "page_hinkley": [{"delta": d, "threshold": t} for d in (0.005, 0.02) for t in (30.0, 40.0, 50.0)],
}
"""Options compared before the defaults were chosen; river's own are (30, 3) and (0.005, 50)."""
CHOICE_SERIES = 100
RESAMPLES = 9_999
COLUMNS = ["detector", "options", "part", "measure", "value", "low", "high", "n", "missed"]
CHANGES = {"abrupt": LEAD, "gradual": LEAD, "recurring, return": LEAD + HORIZON}
"""Position of each change. An abrupt one comes back after 5,000, which is the recurring one."""
Line = dict[str, str]


class Job(NamedTuple):
    """One detector with its options as JSON, for one part of the table."""

    detector: str
    options: str
    part: str


def job_of(line: Line) -> Job:
    return Job(line["detector"], line["options"], line["part"])


def errors(gradual: bool) -> np.ndarray:
    """Probability of an error at each position."""
    p = np.full(LEAD + HORIZON, AFTER)
    p[:LEAD] = BEFORE
    if gradual:
        p[LEAD : LEAD + GRADUAL] = np.linspace(BEFORE, AFTER, GRADUAL)
        return p
    return np.concatenate([p, np.full(HORIZON, BEFORE)])


def delay(alarms: np.ndarray, position: int) -> float:
    """From a change to the first alarm within the horizon."""
    after = alarms[(alarms >= position) & (alarms < position + HORIZON)]
    return float(after[0] - position) if after.size else np.inf


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median; infinite values are only larger than the others."""
    drawn = np.random.default_rng(0).integers(0, values.size, (RESAMPLES, values.size))
    medians = np.sort(np.sort(values[drawn], axis=1)[:, values.size // 2])
    return float(medians[round(0.025 * RESAMPLES)]), float(medians[round(0.975 * RESAMPLES)])


def rate(count: int, bits: int) -> tuple[float, float, float]:
    """Alarms per 10,000 with the exact 95 % interval of a Poisson rate."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return tuple(10_000 * float(v) / bits for v in (count, low, stats.chi2.ppf(0.975, 2 * count + 2) / 2))


def jobs() -> list[Job]:
    """What is measured: detector, options, part of the table."""
    report = [Job(name, json.dumps(known.options), "report") for name, known in DETECTORS.items()]
    choice = [
        Job(name, json.dumps(DETECTORS[name].options | options), "choice")
        for name, grid in CHOICES.items()
        if name in DETECTORS
        for options in grid
    ]
    return report + choice


def measure(job: Job) -> Iterator[Line]:
    """The lines of one detector with its options."""
    name, options = job.detector, json.loads(job.options)
    bits, series = FEW.get(name, (IN_CONTROL, SERIES if job.part == "report" else CHOICE_SERIES))
    part = ("choice", "report").index(job.part)

    def line(what: str, value: tuple[float, ...], n: int, missed: int | str = "") -> Line:
        return dict(zip(COLUMNS, [*job, what, *(f"{v:.4g}" for v in value), str(n), str(missed)], strict=True))

    stream = np.random.default_rng([0, part]).random(IN_CONTROL)[:bits] < BEFORE
    started = time.perf_counter()
    long = detect(stream, name, **options).size
    microseconds = 1e6 * (time.perf_counter() - started) / bits
    yield line("microseconds an update", (microseconds,) * 3, bits)
    yield line("false alarms, one stream", rate(long, bits), bits)
    short = sum(detect(piece, name, **options).size for piece in stream.reshape(-1, STREAM))
    yield line("false alarms, new streams", rate(short, bits), bits)
    found: dict[str, list[float]] = {change: [] for change in CHANGES}
    for seed in tqdm(range(series), desc=name, unit="series", leave=False, mininterval=1):
        draws = np.random.default_rng([1, part, seed]).random(LEAD + 2 * HORIZON)
        alarms = [detect(draws[: p.size] < p, name, **options) for p in (errors(False), errors(True))]
        for change, position in CHANGES.items():
            found[change].append(delay(alarms[change == "gradual"], position))
    for change, values in found.items():
        delays = np.array(values)
        median = float(np.sort(delays)[delays.size // 2])
        yield line(f"delay, {change}", (median, *median_interval(delays)), series, int(np.isinf(delays).sum()))


def known() -> list[Line]:
    """The lines of the table that are still asked for."""
    wanted = set(jobs())
    return [line for line in read_lines(TABLE) if job_of(line) in wanted]


def write(lines: Sequence[Line]) -> None:
    order = {job: k for k, job in enumerate(jobs())}
    write_lines(TABLE, COLUMNS, sorted(lines, key=lambda line: order[job_of(line)]))


def summary(lines: Sequence[Line]) -> list[str]:
    """The table of the docstring of `detect`: false alarms, then median delays with intervals and the missed share."""
    lines = [line for line in lines if line["part"] == "report"]

    def cell(name: str, what: str) -> str:
        (at,) = (line for line in lines if line["detector"] == name and line["measure"] == what)
        if not what.startswith("delay"):
            return f"{float(at['value']):.2f}"
        missed = f"{100 * int(at['missed']) / int(at['n']):.0f} %"
        return f"{at['value']} ({at['low']} to {at['high']}), {missed}" if at["value"] != "inf" else f"none, {missed}"

    measures = ["false alarms, one stream", "false alarms, new streams"]
    measures += [f"delay, {change}" for change in CHANGES]
    head = ["detector", "one stream", "new ones", "abrupt", "gradual", "return"]
    names = sorted({line["detector"] for line in lines})
    rows = [[name, *(cell(name, what) for what in measures)] for name in names]
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    text = ["  ".join(f"{v:<{w}}" for v, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]]
    return [rule, text[0], rule, *text[1:], rule]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="DETECTOR,...", help="measure these, again if they are in the table")
    args = parser.parse_args(argv)
    wanted = args.only.split(",") if args.only else list(DETECTORS)
    if wrong := [name for name in wanted if name not in DETECTORS]:
        parser.error(f"--only {wrong[0]}: no detector of that name; there are {', '.join(DETECTORS)}")
    lines = [line for line in known() if not args.only or line["detector"] not in wanted]
    there = {job_of(line) for line in lines}
    for job in tqdm([job for job in jobs() if job.detector in wanted and job not in there], unit="detector"):
        lines += measure(job)
        write(lines)  # after each, so that an interruption costs one
    print("\n".join(summary(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
