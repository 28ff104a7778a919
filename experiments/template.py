"""A study to copy: replay against fine-tuning on digits, a minute on one core. `study.py` explains the command line.

1. Copy this file and ``pages/template.md.j2`` under the name of your study, and use that name below.
2. List the runs, searches before the runs that they decide, and give the options of ``cl-bench`` for each.
3. Compute the cells of the page here; its prose belongs into the template.
4. ``python experiments/<study>.py --missing`` runs what the table lacks and writes the page; commit both.
5. Add the study to `STUDIES` in ``tests/test_experiments.py``, and its page to ``docs/index.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cells import accuracy, machine, others, row
from study import DOCS, Runs, Study, main, merged, render

PROTOCOL = ["stream=split_digits", "epochs=1", "batch_size=10", "seeds=3", "progress=false", "engine.threads=1"]
RUNS = {
    "finetune": ["strategy=finetune", "optim.lr=0.1"],
    "er": ["strategy=er", "strategy.memory.capacity=200", "optim.lr=0.1"],
}


def options(run: str, runs: Runs) -> list[str]:
    """``runs`` holds those before this one, for options that a search decides."""
    return merged(PROTOCOL, RUNS[run])


def pages(runs: Runs) -> dict[Path, str]:
    lines = [row([f"`{name}`", *accuracy(run), *others(run), f"`{run.info['command']}`"]) for name, run in runs.items()]
    text = render("template", lines=lines, machine=machine(next(iter(runs.values()))))
    return {DOCS / "results" / "template.md": text}


STUDY = Study("template", [*RUNS], options, pages)

if __name__ == "__main__":
    sys.exit(main(STUDY))
