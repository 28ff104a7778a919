"""What each strategy costs beside fine-tuning: time of a step, of an experience's end and of an evaluation, and state.

    python benchmarks/speed/cost.py
    python benchmarks/speed/cost.py --strategies er,gem --steps 60

The second work (class-incremental Split-Fashion-MNIST, MLP 784-100-100-10, 10 new samples a step) with each strategy's
shipped options, one replica and ten, traced; fine-tuning takes turns with each, one experience each. Medians over the
experiences but the first. Rows that are run replace those in the record.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import yaml
from archive import write
from laps import Lap
from ours import Population
from tqdm import tqdm
from works import EXPERIENCES, MIDDLE, Work, make_stream

import cl_lib
from cl_lib import InputError
from cl_lib.cli.build import build
from cl_lib.errors import nearest
from cl_lib.strategies import Finetune, Strategy
from cl_lib.streams.stream import Stream

RECORD = Path(__file__).parent / "records" / "cost.json"
CONF = Path(cl_lib.__file__).parent / "conf" / "strategy"
CPU = torch.device("cpu")


def shipped() -> dict[str, Strategy]:
    """Every strategy with its shipped options, by the name of its configuration."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("*.yaml"))}
    return {name: build(config, "strategy") for name, config in files.items() if "_target_" in config}


def measure(strategy: Strategy, stream: Stream, replicas: int) -> dict[str, Any]:
    """Seconds and bytes of one replica, and the ratio of its step to one of fine-tuning."""
    seeds, laps = list(range(replicas)), []
    pair = [Population(Work("", own, MIDDLE, 10), stream, seeds, CPU) for own in (strategy, Finetune())]
    for _ in range(EXPERIENCES):
        laps.append([side.train() for side in pair])
    own, plain = ([lap[i] for lap in laps[1:] if lap[i].steps] for i in (0, 1))
    step, beside = _step(own, replicas), _step(plain, replicas)
    learner = pair[0].session.learner
    assert learner is not None
    return {
        "step_ms": None if step is None else 1e3 * step,
        "step_ratio": None if step is None or beside is None else step / beside,
        "consolidation_seconds": float(np.median([lap[0].consolidation for lap in laps[1:]])) / replicas,
        "evaluation_seconds": float(np.median([lap[0].evaluation for lap in laps[1:]])) / replicas,
        "bytes": 4 * (learner.parameters or 0) + (learner.memory_bytes or 0),
    }


def _step(laps: list[Lap], replicas: int) -> float | None:
    """Median seconds of one replica's step, where there was one."""
    return float(np.median([lap.training / lap.steps for lap in laps])) / replicas if laps else None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="all", help="some of them, with commas between (default all)")
    parser.add_argument("--steps", type=int, default=60, help="of an experience (default 60)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    args = parser.parse_args(argv)
    try:
        known = shipped()
        names = list(known) if args.strategies == "all" else args.strategies.split(",")
        if odd := [name for name in names if name not in known]:
            raise InputError(f"--strategies: no strategy is called {odd[0]!r}{nearest(odd[0], known)}")
        if why := machine.busy():
            raise InputError(why)
        about = machine.circumstances(__file__, args.threads, argv)
        load = machine.load()
        torch.set_num_threads(args.threads)
        stream = make_stream(Work("", Finetune(), MIDDLE, 10), args.steps, 1000)
        rows = json.loads(RECORD.read_text())["rows"] if RECORD.exists() else {}
        with tqdm(names, unit="strategy") as bar:
            for name in bar:
                bar.set_postfix_str(name)
                found = {f"R={r}": measure(known[name], stream, r) for r in (1, 10)}
                rows[name] = {"steps": args.steps, **about, "load_at_start": load, **found}
                write(RECORD, {"schema": "cl_lib.cost/1", "rows": rows})
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"record: {RECORD}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
