"""One study: its runs, its table and its pages, and the command line that all studies share.

python experiments/<study>.py                     write the pages from the table
python experiments/<study>.py --missing           run what the table lacks, then write the pages
python experiments/<study>.py --rerun [--only A]  run again and compare with the table; exit code 1 if not the same
python experiments/<study>.py --update [--only A] run again and put the results into the table
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compare import compare
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from table import TABLES, Run, from_record, read, write
from tqdm import tqdm

from cl_lib import Record

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
Runs = Mapping[str, Run]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Study:
    """What a study is made of.

    Attributes
    ----------
    name : str
        Of its table and its script.
    runs : list of str
        Names of its runs, searches before what they decide.
    options : callable
        ``options(run, runs)``: the options of ``cl-bench`` for a run, given the runs before it.
    pages : callable
        ``pages(runs)``: the text of every generated file, by path.
    arrays : callable, optional
        ``arrays(run, record)``: what pictures need of a record.
    tables : Path
        The folder of the table.
    """

    name: str
    runs: list[str]
    options: Callable[[str, Runs], list[str]]
    pages: Callable[[Runs], dict[Path, str]]
    arrays: Callable[[str, Record], Arrays] = lambda run, record: {}
    tables: Path = TABLES

    def known(self) -> dict[str, Run]:
        """The runs in the table, in the study's order."""
        there = read(self.name, self.tables)
        return {name: there[name] for name in self.runs if name in there}

    def run(self, name: str, runs: Runs) -> Run:
        """Train one run."""
        with tempfile.TemporaryDirectory() as folder:
            record = bench(self.options(name, runs), Path(folder) / "record")
            return from_record(name, record, commit(), self.arrays(name, record))

    def write_pages(self) -> None:
        for path, text in self.pages(self.known()).items():
            path.write_text(text)
            print(f"wrote {os.path.relpath(path, HERE.parent)}")


def bench(options: Sequence[str], out: Path) -> Record:
    """The record of a ``cl-bench`` command."""
    command = [*options, f"out={out}"]
    done = subprocess.run(
        [sys.executable, "-m", "cl_lib.cli", *command], capture_output=True, text=True, cwd=HERE.parent
    )
    if done.returncode:
        raise SystemExit(f"cl-bench {' '.join(command)}\n{done.stderr}")
    return Record.load(out)


def merged(protocol: Sequence[str], options: Sequence[str]) -> list[str]:
    """A protocol with options that add to it or replace parts of it."""
    given = {option.split("=")[0] for option in options}
    return [*(option for option in protocol if option.split("=")[0] not in given), *options]


def commit() -> str:
    """The commit that runs are made with, marked where the code differs from it."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], capture_output=True, text=True, cwd=HERE.parent).stdout.strip()

    changed = "+" if git("status", "--porcelain", "--", "cl_lib") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed


def render(template: str, **values: object) -> str:
    """A page from its template under ``pages/``."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.md.j2").render(**values)


def main(study: Study, argv: Sequence[str] | None = None) -> int:
    """The command line of a study."""
    parser = argparse.ArgumentParser(
        prog=f"{study.name}.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--missing", action="store_true", help="run what the table lacks")
    action.add_argument("--rerun", action="store_true", help="run again and compare with the table")
    action.add_argument("--update", action="store_true", help="run again and put the results into the table")
    parser.add_argument("--only", metavar="RUN,...", help="some runs: a name, or the part of it before a slash")
    args = parser.parse_args(argv)
    chosen = select(parser, study, args.only)
    if args.rerun:
        return rerun(study, chosen)
    if args.missing or args.update:
        runs = study.known()
        for name in _progress([name for name in chosen if args.update or name not in runs]):
            runs[name] = study.run(name, runs)
            ordered = {known: runs[known] for known in study.runs if known in runs}
            write(study.name, ordered, study.tables)  # after each run, so that an interruption costs one
    elif args.only:
        parser.error("--only: needs --missing, --rerun or --update")
    if not study.known():
        parser.error(f"{study.name} has no table yet; --missing makes one")
    study.write_pages()
    return 0


def select(parser: argparse.ArgumentParser, study: Study, only: str | None) -> list[str]:
    """The runs that ``--only`` names, all without it."""
    if only is None:
        return study.runs
    wanted = only.split(",")
    for name in wanted:
        if not any(run == name or run.startswith(f"{name}/") for run in study.runs):
            parser.error(f"--only {name}: no run of that name; there are {', '.join(study.runs)}")
    return [run for run in study.runs if any(run == name or run.startswith(f"{name}/") for name in wanted)]


def rerun(study: Study, chosen: Sequence[str]) -> int:
    """Run again and compare with the table."""
    runs, failures = study.known(), 0
    for name in _progress([name for name in chosen if name in runs]):
        same, text = compare(runs[name], study.run(name, runs))
        failures += not same
        tqdm.write(f"{name}: {text}")
    if missing := [name for name in chosen if name not in runs]:
        print(f"not in the table: {', '.join(missing)}")
    return 1 if failures or missing else 0


def _progress(names: Sequence[str]) -> tqdm[str]:
    return tqdm(names, unit="run")
