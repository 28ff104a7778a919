"""The first paragraphs of a service report: what is compared and what came out, from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cl_lib.record.text import span
from cl_lib.report.service_entries import METRICS, Served, mean
from cl_lib.service.result_file import FEWEST

if TYPE_CHECKING:
    from cl_lib.record import Record


def paragraphs(record: Record, lines: Sequence[Served]) -> list[str]:
    """What is compared, then the outcome at each delay."""
    delays = list(dict.fromkeys(line.result.delay for line in lines))
    groups = [[line for line in lines if line.result.delay == delay] for delay in delays]
    return [_compared(record, lines), *(_outcome(group, len(delays) > 1) for group in groups)]


def _compared(record: Record, lines: Sequence[Served]) -> str:
    result, count = lines[0].result, len({line.name for line in lines})
    rules = f"{count} rules, called policies, " if count > 1 else "a rule, called a policy, "
    span_of_windows = f"{len(result.windows)} windows, from window {result.windows[0]} to window {result.windows[-1]}"
    return (
        "A model in service meets data that change, and somebody has to decide when a newer model replaces it. This "
        f"page tests {rules}for that decision on {span_of_windows} of {record.stream['name']}. Before each window a "
        "policy may look at what was known by then, and either keeps the model that serves or deploys another. All "
        f"policies choose among the same trained models ({record.strategy}, seeds {span(record.seeds)}), so only the "
        f"times of the updates differ. They are compared by {METRICS[result.metric][1]}: lower is better."
    )


def _outcome(lines: Sequence[Served], several: bool) -> str:
    """What came out at one delay."""
    result = lines[0].result
    never, always = float(mean(result.never)), float(mean(result.always))
    start = "A" if not several and not result.delay else f"If labels arrive {_late(result.delay)}, a"
    text = (
        f"{start} model that is never updated has a mean loss of {never:.4f}, and one that is updated before every "
        f"window, {len(result.windows) - 1} times, {always:.4f}: on the whole, "
        f"{'updating helps' if always < never else 'updating does not help'}."
    )
    timed = [line for line in lines if math.isfinite(line.mean("skill"))]
    if not timed:
        return f"{text} No policy has a number of updates between these two, so there is no timing to be judged."
    best, skilled = min(timed, key=lambda e: e.mean("mean_loss")), max(timed, key=lambda e: e.mean("skill"))
    if best is not skilled:
        text += (
            f" Of the policies between these two, {best.name} has the lowest loss, {best.mean('mean_loss'):.4f} with "
            f"{_updates(best)}."
        )
    start = ""
    if len(timed) > 1:
        start = f"{skilled.name} has the {'lowest loss and the ' if best is skilled else ''}highest skill: its loss is"
    text += _timing(skilled, start or f"The loss of {skilled.name} is")
    if len(result.windows) < FEWEST:
        return f"{text} {len(result.windows)} windows are too few for an interval of the skill, so it may be chance."
    firm = [line.name for line in timed if line.p_value < 0.05]
    if firm:
        verb = "chooses" if len(firm) == 1 else "choose"
        alone = " for each policy alone" if len(timed) > 1 else ""
        return f"{text} {_list(firm)} {verb} better times than chance (permutation test of the times, p < 0.05{alone})."
    who = " for any policy" if len(timed) > 1 else ""
    return f"{text} Better timing than chance is not shown{who} (permutation test of the times, p ≥ 0.05)."


def _timing(line: Served, start: str) -> str:
    """The policy with the highest skill against random and best times."""
    low, high = line.interval
    within = f", 95 % interval {low:.2f} to {high:.2f}" if math.isfinite(low) else ""
    return (
        f" {start} {line.mean('mean_loss'):.4f} with {_updates(line)}; as many updates at random times have "
        f"{line.mean('random'):.4f} on average, and at the best times, known only in hindsight, "
        f"{line.mean('oracle'):.4f} (skill {line.mean('skill'):.2f}{within}; 0 is "
        "random timing, 1 the best)."
    )


def _updates(line: Served) -> str:
    count = line.mean("updates")
    return f"{count:.1f} updates" if count % 1 else f"{count:.0f} update{'s' if count != 1 else ''}"


def _late(delay: int) -> str:
    if not delay:
        return "at once"
    return "one window late" if delay == 1 else f"{delay} windows late"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
