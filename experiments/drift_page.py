"""The page and the picture of `drift_kinds.py`, from its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cells import row
from drift_detectors import TABLE as BITS
from lines import read_lines
from study import DOCS, render

from cl_lib import drift
from cl_lib.report.canvas import FAINT, INK, panels, svg

WINDOWS, TRAINED, AT, WIDTH, DEALS = 20, 4, 10, 4, 15
SERVES = 1
"""The evaluation that is looked at: the model after the first four windows."""
ALPHA, EFFECTS = 0.01, (0.1, 0.0)
WATCHES = [drift.Inputs(), drift.Labels(), drift.PredictedLabels(), drift.Confidence(), drift.Errors()]
DETECTORS = ["adwin", "ddm", "hddm_a", "page_hinkley"]
DATA = ["flights", "gaussians"]
COLUMNS = ["data", "kind", "shape", "strength", "by", "setting", "measure", "value", "low", "high", "n"]
NUMBERS = ("value", "low", "high")
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


def part_of(line: Mapping[str, str]) -> Part:
    return Part(*(line[name] for name in Part._fields))


SHORT = {"predicted": "predicted labels"}
EFFECT_NAMES = [f"effect {effect:g}" for effect in EFFECTS]
DEFAULT = EFFECT_NAMES[0]


class Results:
    """The table, by what was measured."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = {(part_of(line), line["by"], line["setting"], line["measure"]): line for line in lines}
        self.refused = {part_of(line): line["setting"] for line in lines if line["measure"] == "refused"}

    def line(self, part: Part, by: str, measure: str, effect: str = DEFAULT) -> Line:
        return self.lines[part, by, effect if by not in (*DETECTORS, "model") else "", measure]

    def share(self, part: Part, by: str, measure: str = "found", effect: str = DEFAULT, digits: int = 0) -> str:
        """A share with its interval, in per cent."""
        numbers = (100 * float(self.line(part, by, measure, effect)[name]) for name in NUMBERS)
        return "{} ({}–{})".format(*(f"{value:.{digits}f}" for value in numbers))

    def delay(self, part: Part, by: str, measure: str, effect: str = DEFAULT) -> str:
        """A median delay with its interval."""
        numbers = (float(self.line(part, by, measure, effect)[name]) for name in NUMBERS)
        return "{} ({}–{})".format(*map(whole, numbers))

    def found(self, part: Part, by: str, effect: str = DEFAULT) -> float:
        """The share of deals in which a drift was found; NaN for one that the stream refuses."""
        return np.nan if part in self.refused else float(self.line(part, by, "found", effect)["value"])

    def cell(self, part: Part, by: str, effect: str = DEFAULT) -> str:
        """Share found and median delay; a drift that no deal showed is missed."""
        if part in self.refused:
            return "–"
        share = self.share(part, by, effect=effect)
        if self.found(part, by, effect) == 0:
            return share if part.kind == "none" else f"missed: {share}"
        delay = self.delay(part, by, f"delay, {'samples' if by in DETECTORS else 'windows'}", effect)
        return share if delay.startswith("∞") else f"{share}; {delay}"

    def error(self, part: Part, when: str) -> str:
        return "–" if part in self.refused else self.share(part, "model", f"error {when}", digits=1)


def whole(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:,.0f}"


def title(part: Part) -> str:
    return "none" if part.kind == "none" else f"{part.kind}, {part.shape}, {part.strength}"


def named(part: Part) -> str:
    return f"{part.data}: {title(part)}"


def heat_maps(results: Results) -> str:
    """The share of deals in which each drift was found, by each watch and detector."""
    columns = [*(watch.kind for watch in WATCHES), *DETECTORS]
    with panels(len(DATA), len(DATA), 4.6) as (drawing, grid):
        for data, axes in zip(DATA, grid, strict=True):
            shown = [part for part in parts() if part.data == data]
            values = np.array([[results.found(part, by) for by in columns] for part in shown])
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
                text, colour = "–" if np.isnan(value) else f"{100 * value:.0f}", "white" if value > 0.55 else INK
                axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=colour, fontsize=8)
        bar = drawing.colorbar(mesh, ax=grid, location="right", fraction=0.03, pad=0.015, aspect=30)
        bar.set_label("share of deals in which the drift was found")
        bar.outline.set_visible(False)
        return svg(drawing, "Heat maps of the share of deals in which each drift was found, by watch and by detector")


def bits() -> list[str]:
    """The table of the sequential detectors on artificial errors."""
    lines = [line for line in read_lines(BITS) if line["part"] == "report"]
    table = {(line["detector"], line["measure"]): line for line in lines}

    def cell(name: str, what: str) -> str:
        line = table[name, what]
        value, low, high = (float(line[key]) for key in NUMBERS)
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
    known = {named(part): part for part in listed}
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
        share, delay = (
            results.share(part, by, "found the return"),
            results.delay(part, by, "delay of the return, samples"),
        )
        return share if delay.startswith("∞") else f"{share}; {delay}"

    text = render(
        "drift",
        found_by=lambda name, by, effect=EFFECTS[0]: results.share(known[name], by, effect=f"effect {effect:g}"),
        error=lambda name, when: results.error(known[name], when),
        deals=DEALS,
        tables={
            data: (table(data, watches, error=True), table(data, watches, EFFECT_NAMES[1]), table(data, DETECTORS))
            for data in DATA
        },
        false_alarms=[
            row([SHORT.get(by, by), *(results.share(part, by, false, e, 1) for part in none for e in EFFECT_NAMES)])
            for by in watches
        ],
        rates=[row([f"`{by}`", *(rate_of(results.line(part, by, rates)) for part in none)]) for by in DETECTORS],
        returns=[row([named(p), *(results.share(p, by, after) for by in watches)]) for p in recurring],
        returns_found=[row([named(part), *(returned(part, by) for by in DETECTORS)]) for part in recurring],
        bits=bits(),
        refused={named(part): reason for part, reason in results.refused.items()},
        machine=machines(lines),
        minutes=sum(float(line["value"]) for line in lines if line["measure"] == "seconds") / 60,
    )
    return {
        DOCS / "results" / "drift.md": text,
        DOCS / "images" / "drift_kinds.svg": heat_maps(results) + "\n",
    }


def machines(lines: Sequence[Line]) -> str:
    """The machines and commits of the table."""
    return " and ".join(dict.fromkeys(line["setting"] for line in lines if line["measure"] == "seconds"))


def rate_of(line: Line) -> str:
    return "{:.2f} ({:.2f}–{:.2f})".format(*(float(line[name]) for name in NUMBERS))
