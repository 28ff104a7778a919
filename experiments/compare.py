"""Whether a run that was made again agrees with the table."""

from __future__ import annotations

from table import Run

BOUND = 0.03
"""Largest difference of a metric of one seed: another processor rounds differently, and training amplifies that."""
BOUNDED = ("accuracy", "forgetting", "ece", "worst_class_accuracy")


def compare(table: Run, again: Run) -> tuple[bool, str]:
    """Whether two runs agree within `BOUND`, and a sentence that says by how much they differ."""
    keys = [[(r["seed"], str(r["hyper"]), r["status"]) for r in run.replicas] for run in (table, again)]
    if keys[0] != keys[1]:
        odd = next((a, b) for a, b in zip(*keys, strict=False) if a != b) if len(keys[0]) == len(keys[1]) else keys
        return False, f"DIFFERS: other replicas, {odd[0]} in the table and {odd[1]} now"
    largest, where = 0.0, ""
    bounded = 0.0
    for name in table.metrics:
        for replica, a, b in zip(table.replicas, table.metrics[name], again.metrics.get(name, []), strict=True):
            if (a is None) != (b is None):
                return False, f"DIFFERS: {name} of seed {replica['seed']} is {a} in the table and {b} now"
            if a is not None and b is not None and abs(a - b) > largest:
                largest, where = abs(a - b), f"{name} of seed {replica['seed']}"
            if a is not None and b is not None and name in BOUNDED:
                bounded = max(bounded, abs(a - b))
    if not where:
        return True, "equal bit for bit"
    sentence = f"largest difference {largest:.1e} ({where}); at most {bounded:.1e} in {', '.join(BOUNDED)}"
    return (True, sentence) if bounded <= BOUND else (False, f"DIFFERS by more than {BOUND}: {sentence}")
