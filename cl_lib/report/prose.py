"""The result in plain sentences, at the top of a report."""

from __future__ import annotations

from collections.abc import Sequence

from cl_lib.report.compare import listed
from cl_lib.report.entries import Entry
from cl_lib.stats import PairedDifference

SCENARIOS = {
    "class": "new classes arrive with each experience and the network must tell all of them apart",
    "task": "each experience has separate classes and the network is told which experience a sample belongs to",
    "domain": "the classes stay the same and the inputs change from experience to experience",
}
LEVEL = 0.05
MOST = 5  # sentences about single differences; the table has them all


def paragraphs(
    lines: Sequence[Entry],
    base: Entry,
    differences: Sequence[PairedDifference | None],
    corrected: Sequence[float | None],
) -> list[str]:
    """What was compared, and what came out.

    Parameters
    ----------
    lines : sequence of Entry
    base : Entry
        The baseline.
    differences, corrected : sequence
        For each entry the difference to the baseline, and its p-value after Holm's correction.

    Returns
    -------
    list of str
        Paragraphs of plain text.
    """
    elsewhere = any(e is not base and d is None for e, d in zip(lines, differences, strict=True))
    rivals = [e for e, d in zip(lines, differences, strict=True) if e is base or d is not None]
    return [_setting(lines, base), " ".join([*_level(rivals, elsewhere), *_gaps(lines, base, differences, corrected)])]


def _setting(lines: Sequence[Entry], base: Entry) -> str:
    stream, job = base.record.stream, base.record.job
    others = len({(e.record.stream["name"], e.record.stream["data_hash"]) for e in lines}) - 1
    what = f"{len(lines)} runs are compared" if len(lines) > 1 else f"One run of {base.label} is described"
    if others:
        what = f"{len(lines)} runs are shown; those compared with each other ran"
    part = "held-out validation data" if job.get("eval_on") == "valid" else "test data"
    text = (
        f"{what} on the stream {stream['name']} (data {stream['data']}; {stream['experiences']} experiences, "
        f"{stream['classes']} classes; {stream['scenario']}-incremental: {SCENARIOS[stream['scenario']]}). A network "
        f"learns one experience after the other and is evaluated on {part} of all of them after each. "
        f"{_seeds(lines, base)}"
    )
    if others:
        text += f" {others} other stream{'s' if others > 1 else ''} also appear{'' if others > 1 else 's'} below."
    return text


def _seeds(lines: Sequence[Entry], base: Entry) -> str:
    counts = {len(entry.members) for entry in lines}
    if counts == {1}:
        return "A single random seed was used, so nothing is known about chance."
    if len(counts) == 1:
        return f"{'It' if len(lines) == 1 else 'Each'} was repeated with {counts.pop()} random seeds."
    return f"Runs were repeated with {min(counts)} to {max(counts)} random seeds."


def _level(rivals: Sequence[Entry], elsewhere: bool) -> list[str]:
    known = [(e.metrics["accuracy"].mean or 0.0, e) for e in rivals if e.metrics["accuracy"].mean is not None]
    if not known:
        return ["No replica finished with finite weights, so there is no accuracy to report."]
    value, best = max(known, key=lambda pair: pair[0])
    ci = best.metrics["accuracy"].ci95
    part = "validation" if best.record.job.get("eval_on") == "valid" else "test"
    interval = f" (95 % interval {_percent(ci[0])} to {_percent(ci[1])})" if ci else ""
    out = [
        f"After the whole stream, {best.label} classifies {_percent(value)} of the {part} samples correctly, "
        f"averaged over all test sets{interval}"
    ]
    out[0] += f", the highest accuracy {'on this stream' if elsewhere else 'of all'}." if len(known) > 1 else "."
    lost = best.metrics["forgetting"].mean
    if lost is not None:
        out.append(
            f"On experiences learned earlier it has lost {_points(lost)} from its best accuracy (forgetting)."
            if lost > 0
            else "It has not forgotten: on earlier experiences it is as accurate as it ever was."
        )
    return out


def _gaps(
    lines: Sequence[Entry],
    base: Entry,
    differences: Sequence[PairedDifference | None],
    corrected: Sequence[float | None],
) -> list[str]:
    out: list[str] = []
    level: list[str] = []
    for entry, difference, p in zip(lines, differences, corrected, strict=True):
        if difference is None or difference.mean is None or p is None:
            continue
        if p > LEVEL:
            level.append(entry.label)
        elif len(out) < MOST:
            way = "above" if difference.mean > 0 else "below"
            ci = difference.ci95
            interval = f"95 % interval {100 * ci[0]:+.1f} to {100 * ci[1]:+.1f}, " if ci else ""
            out.append(f"{entry.label} is {_points(abs(difference.mean))} {way} {base.label} ({interval}p = {p:.2g}).")
    if level:
        verb = "differs" if len(level) == 1 else "differ"
        out.append(
            f"These seeds do not show that {listed(level, 4)} {verb} in accuracy from {base.label} (p > {LEVEL:g})."
        )
    return out


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f} percentage points"
