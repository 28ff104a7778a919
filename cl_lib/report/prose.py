"""Summary of the results in sentences, for the top of a report."""

from __future__ import annotations

from collections.abc import Sequence

from cl_lib.report.compare import listed
from cl_lib.report.entries import Entry
from cl_lib.stats import PairedDifference

SCENARIOS = {
    "class": "each experience contains new classes, and the network must distinguish all classes",
    "task": "each experience has its own classes, and the network is given the experience of each sample",
    "domain": "all experiences have the same classes, and the distribution of the inputs changes",
}
LEVEL = 0.05
MOST = 5  # maximum number of differences in the text; the table contains all of them


def paragraphs(
    lines: Sequence[Entry],
    base: Entry,
    differences: Sequence[PairedDifference | None],
    corrected: Sequence[float | None],
) -> list[str]:
    """Describe the compared runs and their results.

    Parameters
    ----------
    lines : sequence of Entry
    base : Entry
        The baseline.
    differences, corrected : sequence
        For each entry, the difference to the baseline and its p-value after Holm's correction.

    Returns
    -------
    list of str
        Paragraphs of plain text.
    """
    comparable = [e for e, d in zip(lines, differences, strict=True) if e is base or d is not None]
    best = _best(comparable, len(comparable) < len(lines))
    return [_setting(lines, base), " ".join([*best, *_gaps(lines, base, differences, corrected)])]


def _setting(lines: Sequence[Entry], base: Entry) -> str:
    stream, job = base.record.stream, base.record.job
    others = len({(e.record.stream["name"], e.record.stream["data_hash"]) for e in lines}) - 1
    what = f"{len(lines)} runs are compared on" if len(lines) > 1 else f"One run of {base.label} was evaluated on"
    if others:
        what = f"{len(lines)} runs are shown; those that are compared used"
    part = "held-out validation data" if job.get("eval_on") == "valid" else "test data"
    text = (
        f"{what} the stream {stream['name']} (data {stream['data']}; {stream['experiences']} experiences, "
        f"{stream['classes']} classes; {stream['scenario']}-incremental: {SCENARIOS[stream['scenario']]}). A network "
        f"is trained on one experience after another and evaluated on {part} of all experiences after each. "
        f"{_seeds(lines, base)}"
    )
    if others:
        text += f" {others} other stream{'s' if others > 1 else ''} also appear{'' if others > 1 else 's'} below."
    return text


def _seeds(lines: Sequence[Entry], base: Entry) -> str:
    counts = {len(entry.members) for entry in lines}
    if counts == {1}:
        return "A single random seed was used, so the variation between seeds is unknown."
    if len(counts) == 1:
        return f"{'It' if len(lines) == 1 else 'Each run'} was repeated with {counts.pop()} random seeds."
    return f"Runs were repeated with {min(counts)} to {max(counts)} random seeds."


def _best(comparable: Sequence[Entry], others: bool) -> list[str]:
    known = [(e.metrics["accuracy"].mean or 0.0, e) for e in comparable if e.metrics["accuracy"].mean is not None]
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
    out[0] += f", the highest accuracy {'on this stream' if others else 'of all runs'}." if len(known) > 1 else "."
    forgetting = best.metrics["forgetting"].mean
    if forgetting is not None:
        out.append(
            f"On earlier experiences its final accuracy is {_points(forgetting)} below its highest (forgetting)."
            if forgetting > 0
            else "It shows no forgetting: its final accuracy on earlier experiences is not below its highest."
        )
    return out


def _gaps(
    lines: Sequence[Entry],
    base: Entry,
    differences: Sequence[PairedDifference | None],
    corrected: Sequence[float | None],
) -> list[str]:
    out: list[str] = []
    insignificant: list[str] = []
    for entry, difference, p in zip(lines, differences, corrected, strict=True):
        if difference is None or difference.mean is None or p is None:
            continue
        if p > LEVEL:
            insignificant.append(entry.label)
        elif len(out) < MOST:
            direction = "above" if difference.mean > 0 else "below"
            ci = difference.ci95
            interval = f"95 % interval {100 * ci[0]:+.1f} to {100 * ci[1]:+.1f}, " if ci else ""
            out.append(
                f"{entry.label} is {_points(abs(difference.mean))} {direction} {base.label} ({interval}p = {p:.2g})."
            )
    if insignificant:
        names, verb = listed(insignificant, 4), "differs" if len(insignificant) == 1 else "differ"
        out.append(f"These seeds do not show that {names} {verb} in accuracy from {base.label} (p > {LEVEL:g}).")
    return out


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f} percentage points"
