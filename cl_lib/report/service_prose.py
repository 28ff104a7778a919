"""The first paragraphs of a service report: what is compared and what came out, from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cl_lib.record.text import span
from cl_lib.report.service_entries import METRICS, Served, mean

if TYPE_CHECKING:
    from cl_lib.record import Record


def paragraphs(record: Record, lines: Sequence[Served]) -> list[str]:
    """What is compared, then the outcome at each delay."""
    delays = list(dict.fromkeys(line.result.delay for line in lines))
    return [
        _compared(record, lines),
        *(_outcome([e for e in lines if e.result.delay == d], len(delays) > 1) for d in delays),
    ]


def _compared(record: Record, lines: Sequence[Served]) -> str:
    result = lines[0].result
    count, rules = (
        len({line.name for line in lines}),
        "rules, called policies," if len(lines) > 1 else "rule, a policy,",
    )
    return (
        "A model in service meets data that change, and somebody has to decide when a newer model replaces it. This page "
        f"compares {count} {rules} for that decision on {len(result.windows)} consecutive windows of the data, from "
        f"{result.windows[0]} to {result.windows[-1]} ({record.stream['name']}). Before each window a policy may look at "
        "what was known by then, and either keeps the model that serves or deploys another. All policies choose among "
        f"the same trained models ({record.strategy}, seeds {span(record.seeds)}), so only the times of the updates "
        f"differ. They are compared by {METRICS[result.metric][1]}: lower is better."
    )


def _outcome(lines: Sequence[Served], several: bool) -> str:
    result = lines[0].result
    never, always = float(mean(result.never)), float(mean(result.always))
    late = f"With labels that arrive {_windows(result.delay)} late: " if several or result.delay else ""
    if several and not result.delay:
        late = "With labels that arrive at once: "
    helps = "updating helps" if always < never else "updating does not help"
    updates = len(result.windows) - 1
    text = (
        f"{late}Never updated, the model has a mean loss of {never:.4f}; updated before every window, {updates} times, "
        f"{always:.4f}, so on the whole {helps}."
    )
    timed = [line for line in lines if math.isfinite(line.mean("skill"))]
    if not timed:
        return text + " No policy has a number of updates between these two, so there is no timing to be judged."
    best = min(timed, key=lambda line: line.mean("mean_loss"))
    if math.isfinite(best.mean("mean_loss")):
        text += f" Of the other policies, {best.name} has the lowest loss, {best.mean('mean_loss'):.4f}, with {_updates(best)}."
    text += _timing(max(timed, key=lambda line: line.mean("skill")), best)
    firm = [line.name for line in timed if line.interval()[0] > 0]
    text += (
        f" Beyond chance, at the 95 % level for each policy alone, {_list(firm)} "
        f"chose{'s' if len(firm) == 1 else ''} better times than chance."
        if firm
        else " For no policy does the interval of the skill exclude 0, so none is shown to time its updates better than chance."
    )
    return text


def _timing(line: Served, best: Served) -> str:
    who = "It also" if line is best else f"{line.name}"
    low, high = line.interval()
    loss = "" if line is best else f", a loss of {line.mean('mean_loss'):.4f} with {_updates(line)},"
    return (
        f" {who} has the highest skill{loss} {'against' if loss else '—'} {line.mean('random'):.4f} if as many updates "
        f"come at random times and {line.mean('oracle'):.4f} at the best times possible, known only in hindsight "
        f"(skill {line.mean('skill'):.2f}, 95 % interval {low:.2f} to {high:.2f}; 0 is random timing, 1 the best)."
    )


def _updates(line: Served) -> str:
    count = line.mean("updates")
    return f"{count:.1f} updates" if count % 1 else f"{count:.0f} update{'s' if count != 1 else ''}"


def _windows(count: int) -> str:
    return "one window" if count == 1 else f"{count} windows"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
