"""A stream larger than memory: how much memory it takes, and what it costs beside inputs that are in memory.

    python benchmarks/speed/streamed.py
    python benchmarks/speed/streamed.py --folder DIR --gigabytes 4 --replicas 4

Generated images of 3x64x64 bytes, class-incremental, ER with an MLP of 32 hidden units, 10 + 10. First the whole file
is streamed, one experience after the other, and resident memory watched, in a process of its own. Then a part of it
that fits is trained both ways, in turns; each way's first experience warms up (tracing) and is left out. The files were
read before, for their hash: they lie in the system's cache as far as that is large enough.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from pictures import make_pictures
from stores import in_turns, whole

from cl_lib import InputError, datasets

RECORD = Path(__file__).parent / "records" / "streamed.json"


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    make_pictures(folder, args.gigabytes)
    record: dict[str, Any] = {"gigabytes": args.gigabytes, "whole": {}, "in_turns": {}}
    replicas = sorted({1, args.replicas})
    for r in replicas:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            record["whole"][str(r)] = alone.submit(whole, folder, args.steps, r, args.threads).result()
    torch.set_num_threads(args.threads)
    data = datasets.npy(folder, name="pictures")
    for r in replicas:
        record["in_turns"][str(r)] = in_turns(data, min(args.subset, len(data.train)), r, args.rounds)
    return record


def lines(record: dict[str, Any]) -> list[str]:
    """What the record says."""
    out = []
    for r, own in record["whole"].items():
        most = own["resident_mib"]
        out.append(
            f"R={r}, all: {own['steps']} steps over {record['gigabytes']:g} GB, {own['samples_per_second']:.0f} samples"
            f" a second, accuracy {own['accuracy']:.2f}; at most {own['peak_resident_mib']:.0f} MiB resident, between "
            f"steps {most['RssAnon']:.0f} of its own and {most['RssFile']:.0f} of files"
        )
    for r, own in record["in_turns"].items():
        rates = {name: float(np.median(values)) for name, values in own["samples_per_second"].items()}
        out.append(
            f"R={r}, {own['samples']:,} images: {rates['streamed']:.0f} samples a second streamed, "
            f"{rates['resident']:.0f} resident, ratio {own['ratio']:.2f}; accuracy {own['accuracy']['streamed']:.3f} "
            f"and {own['accuracy']['resident']:.3f}"
        )
    return out


def main(argv: list[str] | None = None) -> int:
    """Generate, train, print, record; 2 where it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="where the images are kept (default: nowhere)")
    parser.add_argument("--replicas", type=int, default=4, help="beside one (default 4)")
    parser.add_argument("--steps", type=int, default=4000, help="on the whole file, at most (default 4000)")
    parser.add_argument("--subset", type=int, default=20_000, help="images trained both ways (default 20,000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RECORD)
    args = parser.parse_args(argv)
    try:
        for name in ("gigabytes", "replicas", "steps", "subset", "rounds", "threads"):
            if not getattr(args, name) > 0:
                raise InputError(f"--{name}={getattr(args, name)}: must be above 0")
        if why := machine.busy():
            raise InputError(why)
        around = machine.circumstances(__file__, args.threads, argv)
        with tempfile.TemporaryDirectory() as temporary:
            record = measure(args, args.folder or Path(temporary))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"schema": "cl_lib.streamed/1", **around, **record}, indent=1) + "\n")
    print("\n".join([*lines(record), f"record: {args.out}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
