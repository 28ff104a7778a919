"""Every strategy on one stream: search hyper-parameters on validation data, run ten seeds, write the table.

    python benchmarks/published/every_strategy.py
    python benchmarks/published/every_strategy.py --table split_fashion_mnist_every --strategies er,derpp

Runs what is missing under ``records/``, then writes the table's page under ``docs/results/`` from the records alone;
strategies without a record are named there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from bench import bench
from cells import accuracy, chosen, machine, others, row
from split_fashion_mnist import PROTOCOL
from tqdm import tqdm

import cl_lib
from cl_lib import Record

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "results"
Result = tuple[Record, dict[str, float]]
CONF = Path(cl_lib.__file__).parent / "conf" / "strategy"
RATES = [0.03, 0.1, 0.3]
ALONE = [0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5]
"""Learning rates of those that have nothing else to choose, so that every strategy has nine points."""
FAMILIES = {
    "Reference points": ["random_guess", "frozen", "finetune", "from_scratch", "cumulative", "joint"],
    "Replay": [
        "er",
        "er_ace",
        "der",
        "derpp",
        "mir",
        "cls_er",
        "rar",
        "scr",
        "gdumb",
        "gss",
        "er_tricks",
        "er_compressed",
        "latent_replay",
        "generative_replay",
        "icarl",
    ],
    "Regularisation": [
        "ewc",
        "ewc_online",
        "si",
        "mas",
        "rwalk",
        "lwf",
        "lwf_multi",
        "fromp",
        "kronecker_laplace",
        "bic",
        "l2_init",
    ],
    "Projection": ["agem", "gem", "ogd", "gpm"],
    "Memory-augmented": ["ncm", "slda", "ranpac", "cope", "knn", "hopfield", "mbpa", "key_value"],
    "Plasticity": ["shrink_perturb", "continual_backprop", "redo"],
}
CHOSEN = {
    "der": ("alpha", [0.1, 0.3, 1.0]),
    "derpp": ("alpha", [0.1, 0.3, 1.0]),
    "mir": ("eta", [0.03, 0.1, 0.3]),
    "cls_er": ("alpha_stable", [0.9, 0.97, 0.99]),
    "rar": ("epsilon", [0.03, 0.1, 0.3]),
    "scr": ("temperature", [0.05, 0.1, 0.2]),
    "ewc": ("lam", [1.0, 10.0, 100.0]),
    "ewc_online": ("lam", [1.0, 10.0, 100.0]),
    "si": ("c", [0.01, 0.1, 1.0]),
    "mas": ("lam", [0.001, 0.01, 0.1]),
    "rwalk": ("lam", [0.1, 1.0, 10.0]),
    "lwf": ("alpha", [0.3, 1.0, 3.0]),
    "lwf_multi": ("alpha", [0.3, 1.0, 3.0]),
    "fromp": ("tau", [0.1, 1.0, 10.0]),
    "key_value": ("novelty", [0.8, 0.9, 0.95]),
    "kronecker_laplace": ("lam", [0.1, 1.0, 10.0]),
    "l2_init": ("lam", [0.0001, 0.001, 0.01]),
    "gem": ("margin", [0.0, 0.1, 0.5]),
    "gpm": ("energy", [0.8, 0.9, 0.97]),
    "slda": ("shrinkage", [1e-4, 1e-2, 1e-1]),
    "ranpac": ("ridge", [0.01, 1.0, 100.0]),
    "ncm": ("temperature", [0.1, 1.0, 10.0]),
    "cope": ("momentum", [0.9, 0.97, 0.99]),
    "knn": ("temperature", [0.03, 0.1, 0.3]),
    "hopfield": ("beta", [3.0, 10.0, 30.0]),
    "mbpa": ("eta", [0.003, 0.01, 0.03]),
    "shrink_perturb": ("shrink", [0.6, 0.8, 0.95]),
    "continual_backprop": ("rate", [1e-5, 1e-4, 1e-3]),
    "redo": ("tau", [0.0, 0.025, 0.1]),
}
FIXED = {"cls_er": ["strategy.alpha_plastic=0.9"], "ncm": ["strategy.features=identity"]}
FIXED |= {name: ["strategy.features=identity"] for name in ("slda", "ranpac", "key_value")}


class Table(NamedTuple):
    """One table: its protocol, what the search has in place of parts of it, and what its page says first."""

    protocol: list[str]
    search: list[str]
    recalled: int | None
    title: str
    head: str

    @property
    def name(self) -> str:
        return next(key for key, table in TABLES.items() if table is self)

    @property
    def records(self) -> Path:
        return HERE / "records" / self.name

    @property
    def page(self) -> Path:
        return DOCS / f"{self.name}.md"


HELD_OUT = ["stream.valid=0.2", "eval_on=valid"]
TABLES = {
    "split_digits": Table(
        ["stream=split_digits", "epochs=3", "batch_size=10", "seeds=10", "progress=false", "engine.threads=1"],
        [*HELD_OUT, "seeds=3"],
        None,
        "Split-Digits, class-incremental: every strategy",
        "Five experiences of two classes, 1,797 real digits of 8 × 8 pixels, MLP 64-100-100-10, SGD, batches of 10, "
        "three epochs, memories of 500, ten seeds; only seen classes may be answered. A fast table for orientation: no "
        "paper has it.",
    ),
    "split_fashion_mnist_every": Table(
        PROTOCOL,
        [*HELD_OUT, "seeds=1"],
        32,
        "Split-Fashion-MNIST, class-incremental: every strategy",
        "The protocol of the [published table](split_fashion_mnist.md): five experiences of two classes, MLP "
        "784-256-256-10, SGD, one epoch, batches of 10, memories of 500, ten seeds, argmax over all ten logits; here "
        "every strategy that recalls does so with 32 samples a step, and hyper-parameters are searched for each by the "
        "same budget. `er_compressed` keeps 1,000 samples of half the bytes. Other work ran on the machine at the same "
        "time: seconds are rough.",
    ),
}


def options(table: Table, name: str) -> list[str]:
    """What is added to the protocol whatever the hyper-parameters."""
    recalls = table.recalled is not None and "memory" in yaml.safe_load((CONF / f"{name}.yaml").read_text())
    more = [f"strategy.memory.batch={table.recalled}"] if recalls else []
    return [f"strategy={name}", *FIXED.get(name, []), *more]


def search(table: Table, name: str) -> list[str]:
    """Options of the nine points, a fifth of the training data held out."""
    grid = {"optim.lr": ALONE}
    if name in CHOSEN:
        field, values = CHOSEN[name]
        grid = {"optim.lr": RATES, f"strategy.{field}": values}
    points = [f"grid.{k}=[{','.join(f'{v:g}' for v in values)}]" for k, values in grid.items()]
    return [*options(table, name), *table.search, *points]


def best(record: Record) -> dict[str, float]:
    """The point that is best on validation data of the first three experiences, after the third; ties: the first."""
    reached = np.nan_to_num(record.arrays["matrix.accuracy"][:, 3, :3].mean(1), nan=-1.0)
    scores = [float(reached[point["replicas"]].mean()) for point in record.grid]
    chosen: dict[str, float] = record.grid[int(np.argmax(scores))]["hyper"]
    return chosen


def results(table: Table, name: str) -> Result:
    """Ten seeds with the hyper-parameters that the search chose."""
    hyper = best(bench(table.records / name / "search", table.protocol, search(table, name)))
    given = [*options(table, name), *(f"{k}={v:g}" for k, v in hyper.items())]
    return bench(table.records / name / "run", table.protocol, given), hyper


def known(table: Table) -> dict[str, Result]:
    """What has been run, in the table's order."""
    there = [name for name in every() if (table.records / name / "run" / "record.json").exists()]
    return {name: results(table, name) for name in there}


def line(name: str, record: Record, hyper: dict[str, float]) -> str:
    """One line of the table."""
    failed = sum(r["status"] != "ok" for r in record.replicas)
    if failed == len(record.replicas):
        return row([f"`{name}`", "all seeds diverged", *[""] * 6])
    shown = f"`{name}`" + (f" ({failed} diverged)" if failed else "")
    seconds = f"{record.cost['training_seconds']:.1f}"
    return row([shown, *accuracy(record, 1), *others(record), seconds, chosen(hyper)])


def page(table: Table, found: dict[str, Result]) -> str:
    """The results as Markdown, from records alone."""
    flag = "" if table.name == "split_digits" else f" --table {table.name}"
    seeds = next(option.split("=")[1] for option in table.search if option.startswith("seeds="))
    missing = [f"`{name}`" for name in every() if name not in found]
    lines = [
        f"# {table.title}",
        "",
        f"Generated by `python benchmarks/published/every_strategy.py{flag}` from the records under "
        f"`benchmarks/published/records/{table.name}/`; do not edit.",
        "",
        table.head,
        "",
        "Hyper-parameters were chosen by the same budget for each strategy, nine points with "
        f"{'one seed' if seeds == '1' else f'{seeds} seeds'}, on a fifth of the training data held out, by the mean "
        "accuracy on the first three experiences after the third; "
        "never on test data. Points outside the grid may be better: a row does not show what its strategy can do at "
        "best.",
        "",
    ]
    if missing:
        lines += [f"Not run yet: {', '.join(missing)}.", ""]
    for family, names in FAMILIES.items():
        if not set(names) & set(found):
            continue
        lines += [
            f"## {family}",
            "",
            "| | accuracy, % | 95 % interval | forgetting | ECE | worst class | seconds | chosen |",
            "|---|---|---|---|---|---|---|---|",
            *(line(name, *found[name]) for name in names if name in found),
            "",
        ]
    lines += [
        "Accuracy is the mean over the five test sets after the last experience, ± standard deviation over seeds; "
        "seconds are those of training all ten seeds, tracing included. "
        f"{machine(next(iter(found.values()))[0])}. Every row's command stands in its record.",
        "",
    ]
    return "\n".join(lines)


def every() -> list[str]:
    """All strategies that have a configuration, in the table's order."""
    names = [name for own in FAMILIES.values() for name in own]
    shipped = {path.stem for path in CONF.glob("*.yaml") if "_target_" in yaml.safe_load(path.read_text())}
    if shipped != set(names):
        raise SystemExit(f"without a place in the table: {', '.join(sorted(shipped ^ set(names)))}")
    return names


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES, default="split_digits")
    parser.add_argument("--strategies", default="all", help="some of them, with commas between (default all)")
    args = parser.parse_args(argv)
    table, names = TABLES[args.table], every()
    wanted = names if args.strategies == "all" else args.strategies.split(",")
    if odd := sorted(set(wanted) - set(names)):
        raise SystemExit(f"--strategies: no strategy is called {', '.join(odd)}; there are {', '.join(names)}")
    with tqdm(wanted, unit="strategy") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            results(table, name)
            table.page.write_text(page(table, known(table)))
    print(f"wrote {table.page}")


if __name__ == "__main__":
    main()
