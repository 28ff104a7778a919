"""Every strategy on Split-Digits: minutes, real data, for orientation. `study.py` explains the command line."""

from __future__ import annotations

import sys

from every_strategy import Protocol, study
from study import main

PROTOCOL = Protocol(
    "split_digits",
    ["stream=split_digits", "epochs=3", "batch_size=10", "seeds=10", "progress=false", "engine.threads=1"],
    seeds_of_search=3,
)
STUDY = study(PROTOCOL)

if __name__ == "__main__":
    sys.exit(main(STUDY))
