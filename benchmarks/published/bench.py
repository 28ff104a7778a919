"""The records that the tables are made of: run where one is missing, read where it is there."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cl_lib import Record


def no_options(description: str | None) -> None:
    """A script that takes no options: ``--help`` says what it does, anything else is refused."""
    raw = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=description, formatter_class=raw).parse_args()


def bench(out: Path, protocol: Sequence[str], options: Sequence[str], arrays: Sequence[str] | None = None) -> Record:
    """The record in ``out``, of ``cl-bench`` with a protocol and the options that add to it or replace parts of it.

    With ``arrays`` only those are kept: hundreds of test sets make megabytes of what no table shows.
    """
    if not (out / "record.json").exists():
        given = {option.split("=")[0] for option in options}
        kept = [option for option in protocol if option.split("=")[0] not in given]
        command = [*kept, *options, f"out={out}", "resume=true"]
        run = [sys.executable, "-c", "from cl_lib.cli import bench; bench()", *command]
        done = subprocess.run(run, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"cl-bench {' '.join(command)}\n{done.stderr}")
        if arrays is not None:
            full = Record.load(out)
            replace(full, arrays={name: full.arrays[name] for name in arrays}).save(out)
    return Record.load(out)
