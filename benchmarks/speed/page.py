"""Write docs/performance.md from the committed records.

python benchmarks/speed/page.py
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from archive import MEANING
from streamed import lines
from summary import HAND

RECORDS = Path(__file__).parent / "records"
TEXT = Path(__file__).parent / "page.md"
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BARS = {  # ratios to the hand-written loop on two cores that the engine is held to: R = 1 and 10, traced and compiled
    "W1": {"traced R=1": 0.90, "compiled R=1": 0.60, "traced R=10": 0.25, "compiled R=10": 0.10},
    "W2": {"traced R=1": 0.95, "compiled R=1": 0.65, "traced R=10": 0.30, "compiled R=10": 0.16},
    "W3": {"traced R=1": 1.05, "compiled R=1": 0.80, "traced R=10": 0.80, "compiled R=10": 0.70},
}
WIDTHS = {"W1": (784, 16, 16, 10), "W2": (784, 100, 100, 10), "W3": (784, 256, 256, 10)}
SAMPLES = {"W1": 20, "W2": 20, "W3": 138}


def read(name: str) -> dict[str, Any]:
    return json.loads((RECORDS / f"{name}.json").read_text())


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def conditions(entry: dict[str, Any]) -> str:
    """Machine and moment of a record, in one sentence."""
    m = entry["machine"]
    device = m["gpu"] or f"{m['processor']}, {m['cores']} cores"
    threads = "" if m["gpu"] else f", {entry['threads']} thread{'s' if entry['threads'] != 1 else ''}"
    return (
        f"{device}{threads}, torch {m['torch']}, Python {m['python']}, {entry['date'][:10]}, load at start "
        f"{entry['load_at_start']:.2f}; `{entry['command']}`"
    )


def ratios(works: dict[str, Any]) -> str:
    """Every work's ratios to the hand-written loop."""
    kinds = ["Avalanche", *(f"{kind} R={r}" for r in (1, 10, 32) for kind in ("traced", "compiled"))]
    rows = []
    for name, entry in works.items():
        sides = entry["sides"]
        cells = [f"{name}: {entry['work']}", f"{sides[HAND]['ms_training']:.3f} ms"]
        for kind in kinds:
            if kind not in sides:
                cells.append("")
                continue
            ratio, bar = sides[kind]["ratio_training"], BARS.get(name, {}).get(kind)
            cells.append(
                f"{ratio:.2f}" if bar is None else f"**{ratio:.2f}** (≤ {bar:.2f}{'' if ratio <= bar else ', missed'})"
            )
        rows.append(cells)
    return table(["workload", "hand loop, a step", *kinds], rows)


def learning(works: dict[str, Any]) -> str:
    """Accuracy of every side, and what planning and starting up cost."""
    rows = []
    for name, entry in works.items():
        for side, own in entry["sides"].items():
            std = own["accuracy_seed_std"]
            rows.append(
                [
                    f"{name}, {side}",
                    f"{100 * own['accuracy']:.1f}" + (f" ± {100 * std:.1f}" if std is not None else ""),
                    f"{own['ms_training']:.3f}",
                    f"{own['ms_training_and_planning']:.3f}",
                    f"{own['start_up_seconds']:.1f}",
                    own["flag"] or "",
                ]
            )
    return table(["side", "accuracy %", "training ms", "with planning ms", "start-up s", ""], rows)


def against_avalanche(works: dict[str, Any]) -> str:
    """How many times Avalanche's throughput for each seed."""
    rows = []
    for name, entry in works.items():
        sides = entry["sides"]
        if "Avalanche" in sides:
            own = [k for k in sides if k not in (HAND, "Avalanche")]
            rows.append([name, *(f"{sides['Avalanche']['ms_training'] / sides[k]['ms_training']:.1f}×" for k in own)])
            head = ["workload", *own]
    return table(head, rows) if rows else "Not measured."


def roofline(works: dict[str, Any]) -> str:
    """Operations and bytes of a step, and what the machine could do at best."""
    rows = []
    for name, widths in WIDTHS.items():
        if name not in works:
            continue
        entry, n = works[name], SAMPLES[name]
        layers = list(itertools.pairwise(widths))
        weights = sum(a * b for a, b in layers)
        # forward, gradient of the weights, gradient of the inputs (not for the first layer)
        flops = 2 * n * (3 * weights - layers[0][0] * layers[0][1])
        # weights read forward and backward, gradient written and read, update read and written; inputs in and out
        moved = 4 * 6 * weights + n * widths[0] * (1 + 3 * 4)
        peak = entry["roof"]
        best = max(flops / peak["gflops"] / 1e9, moved / peak["gbytes_per_second"] / 1e9) * 1e3
        cells = [name, f"{flops / 1e6:.1f}", f"{moved / 1e6:.1f}", f"{best:.3f}"]
        for side in (HAND, "traced R=1", "compiled R=1", "traced R=10", "compiled R=10"):
            own = entry["sides"].get(side)
            cells.append(f"{own['ms_training']:.3f} ({best / own['ms_training']:.0%})" if own else "")
        rows.append(cells)
    head = [
        "workload",
        "MFLOP",
        "MB moved",
        "at best, ms",
        HAND,
        "traced R=1",
        "compiled R=1",
        "traced R=10",
        "compiled R=10",
    ]
    return table(head, rows)


def parts() -> str:
    """The parts beside their references."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for own in read("parts")["benchmarks"]:
        groups.setdefault(own["group"], []).append(own)
    rows = []
    for group, own in groups.items():
        for case in own:
            plain = next(o for o in own if any(word in o["name"] for word in ("hand", "bare", "plain")))
            ratio = "" if plain is case else f"{case['seconds'] / plain['seconds']:.3f}"
            name = case["name"].removeprefix("test_").replace("_", " ")
            rows.append([group, name, f"{1e3 * case['seconds']:.3f}", ratio])
    return table(["part", "case", "median ms", "over the plain one"], rows)


def convolutions() -> str:
    rows = []
    for name, entry in read("convolutions")["works"].items():
        for side, own in entry["sides"].items():
            rows.append([name, side, f"{own['ms_training']:.2f}", f"{own['ratio_training']:.2f}"])
    return table(["network", "way", "ms a step and replica", "over the hand loop"], rows)


def long_stream() -> str:
    record = read("long_stream")
    own = sorted(record["rounds"], key=lambda r: r["last_ms"] / r["tenth_ms"])[len(record["rounds"]) // 2]
    resident = own["resident_mib"]
    return (
        f"Experience 10 took {own['tenth_ms']:.2f} ms, experience {record['experiences']:,} {own['last_ms']:.2f} ms "
        f"(medians of 50; ratio of the median round {record['ratio']:.2f}). Resident memory: "
        f"{resident['tenth']:.0f} MiB at the tenth, "
        f"{resident['last']:.0f} MiB at the end. Planning took {own['planning_share']:.0%} of training."
    )


def whole_run() -> str:
    record = read("whole_run")
    rows = [
        [
            f"{r['replicas']}",
            *(f"{r[f'{k}_seconds']:.2f}" for k in ("training", "planning", "evaluation", "total")),
            f"{r['ratio']:.3f}",
        ]
        for r in record["runs"]
    ]
    start = record["start_up_seconds"]
    bare = start["import torch"]
    return (
        table(["replicas", "training s", "planning s", "evaluation s", "whole run s", "whole over training"], rows)
        + f"\n\n`import cl_lib` costs {start['import cl_lib'] - bare:.2f} s beyond `import torch` ({bare:.2f} s), "
        + f"`cl-bench --help` {start['cl-bench --help'] - bare:.2f} s."
    )


def streamed() -> str:
    """What the script says of its record."""
    return "\n".join(f"- {line}" for line in lines(read("streamed")))


def page() -> str:
    """The page, its figures from the records; what has no record says so."""
    record = read("side_by_side")
    works = record["works"]
    places = {
        "meaning": MEANING,
        "conditions": "\n".join(f"- {name}: {conditions(entry)}" for name, entry in works.items()),
        "ratios": ratios(works),
        "learning": learning(works),
        "avalanche": against_avalanche(works),
        "roofline": roofline(works),
    }
    for name, say in (
        ("parts", parts),
        ("convolutions", convolutions),
        ("long_stream", long_stream),
        ("whole_run", whole_run),
        ("streamed", streamed),
    ):
        try:
            own = read(name)
            places[name] = say()
            places[f"{name}_conditions"] = conditions(next(iter(own["works"].values())) if "works" in own else own)
        except FileNotFoundError:
            places[name] = places[f"{name}_conditions"] = "not measured yet."
    text = TEXT.read_text()
    for name, value in places.items():
        text = text.replace("{{ " + name + " }}", value)
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
