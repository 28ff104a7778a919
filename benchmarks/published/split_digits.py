"""Every strategy on Split-Digits: search hyper-parameters on validation data, run ten seeds, write the table.

    python benchmarks/published/split_digits.py
    python benchmarks/published/split_digits.py --strategies er,derpp

Class-incremental, 5 experiences of 2 classes, scikit-learn's 1,797 digits, MLP 64-100-100-10, SGD, batches of 10, three
epochs, memories of 500. Runs what is missing under ``records/split_digits/``, then writes
``docs/results/split_digits.md`` from the records alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

import cl_lib
from cl_lib import Record

HERE = Path(__file__).parent
RECORDS = HERE / "records" / "split_digits"
PAGE = HERE.parent.parent / "docs" / "results" / "split_digits.md"
CONF = Path(cl_lib.__file__).parent / "conf" / "strategy"
PROTOCOL = ["stream=split_digits", "epochs=3", "batch_size=10", "progress=false", "engine.threads=1"]
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
        "generative_replay",
        "icarl",
    ],
    "Regularisation": ["ewc", "ewc_online", "si", "mas", "rwalk", "lwf", "kronecker_laplace", "bic", "l2_init"],
    "Projection": ["agem", "gem", "ogd", "gpm"],
    "Memory-augmented": ["ncm", "slda", "ranpac", "cope", "knn", "hopfield", "mbpa"],
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
FIXED |= {name: ["strategy.features=identity"] for name in ("slda", "ranpac")}


def bench(name: str, options: list[str]) -> Record:
    """The record called ``name``, run where it is not there yet."""
    out = RECORDS / name
    if not (out / "record.json").exists():
        command = [*PROTOCOL, *options, f"out={out}", "resume=true"]
        done = subprocess.run(
            [sys.executable, "-c", "from cl_lib.cli import bench; bench()", *command], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"cl-bench {' '.join(command)}\n{done.stderr}")
    return Record.load(out)


def search(name: str) -> list[str]:
    """Options of the nine points, three seeds each, a fifth of the training data held out."""
    grid = {"optim.lr": ALONE}
    if name in CHOSEN:
        field, values = CHOSEN[name]
        grid = {"optim.lr": RATES, f"strategy.{field}": values}
    points = [f"grid.{k}=[{','.join(f'{v:g}' for v in values)}]" for k, values in grid.items()]
    return [f"strategy={name}", *FIXED.get(name, []), "stream.valid=0.2", "eval_on=valid", "seeds=3", *points]


def best(record: Record) -> dict[str, float]:
    """The point that is best on validation data of the first three experiences, after the third; ties: the first."""
    reached = np.nan_to_num(record.arrays["matrix.accuracy"][:, 3, :3].mean(1), nan=-1.0)
    scores = [float(reached[point["replicas"]].mean()) for point in record.grid]
    chosen: dict[str, float] = record.grid[int(np.argmax(scores))]["hyper"]
    return chosen


def results(name: str) -> tuple[Record, dict[str, float]]:
    """Ten seeds with the hyper-parameters that the search chose."""
    hyper = best(bench(f"{name}/search", search(name)))
    given = [f"{k}={v:g}" for k, v in hyper.items()]
    return bench(f"{name}/run", [f"strategy={name}", *FIXED.get(name, []), "seeds=10", *given]), hyper


def row(name: str, record: Record, hyper: dict[str, float]) -> str:
    """One line of the table."""
    metric = record.metrics
    accuracy = metric["accuracy"]
    failed = sum(r["status"] != "ok" for r in record.replicas)
    if accuracy.mean is None or accuracy.std is None or accuracy.ci95 is None:
        return f"| `{name}` | all seeds diverged | | | | | | |"
    cells = [
        f"`{name}`" + (f" ({failed} diverged)" if failed else ""),
        f"{100 * accuracy.mean:.1f} ± {100 * accuracy.std:.1f}",
        f"{100 * accuracy.ci95[0]:.1f}–{100 * accuracy.ci95[1]:.1f}",
        *(_cell(metric[k].mean) for k in ("forgetting", "ece", "worst_class_accuracy")),
        f"{record.cost['training_seconds']:.1f}",
        ", ".join(f"{k.removeprefix('strategy.').removeprefix('optim.')} {v:g}" for k, v in hyper.items()),
    ]
    return "| " + " | ".join(cells) + " |"


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def page(found: dict[str, tuple[Record, dict[str, float]]]) -> str:
    """The results as Markdown, from records alone."""
    lines = [
        "# Split-Digits, class-incremental: every strategy",
        "",
        "Generated by `python benchmarks/published/split_digits.py` from the records under "
        "`benchmarks/published/records/split_digits/`; do not edit.",
        "",
        "Five experiences of two classes, 1,797 real digits of 8 × 8 pixels, MLP 64-100-100-10, SGD, batches of 10, "
        "three epochs, memories of 500, ten seeds; only seen classes may be answered. A fast table for orientation: no "
        "paper has it.",
        "",
        "Hyper-parameters were chosen by the same budget for each strategy, nine points with three seeds, on a fifth "
        "of the training data held out, by the mean accuracy on the first three experiences after the third; never on "
        "test data. Points outside the grid may be better: a row does not show what its strategy can do at best.",
        "",
    ]
    for family, names in FAMILIES.items():
        if not set(names) & set(found):
            continue
        lines += [
            f"## {family}",
            "",
            "| | accuracy, % | 95 % interval | forgetting | ECE | worst class | seconds | chosen |",
            "|---|---|---|---|---|---|---|---|",
            *(row(name, *found[name]) for name in names if name in found),
            "",
        ]
    environment = next(iter(found.values()))[0].environment
    lines += [
        "Accuracy is the mean over the five test sets after the last experience, ± standard deviation over seeds; "
        "seconds are those of training all ten seeds, tracing included. "
        f"{environment['device']}, {environment['cores']} cores, one thread, torch {environment['torch']}, Python "
        f"{environment['python']}. Every row's command stands in its record.",
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
    parser.add_argument("--strategies", default="all", help="some of them, with commas between (default all)")
    args = parser.parse_args(argv)
    names = every()
    wanted = names if args.strategies == "all" else args.strategies.split(",")
    if odd := sorted(set(wanted) - set(names)):
        raise SystemExit(f"--strategies: no strategy is called {', '.join(odd)}; there are {', '.join(names)}")
    found: dict[str, Any] = {}
    with tqdm(wanted, unit="strategy") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            found[name] = results(name)
    if args.strategies == "all":
        PAGE.write_text(page(found))
        print(f"wrote {PAGE}")
    else:
        print("\n".join(row(name, *own) for name, own in found.items()))


if __name__ == "__main__":
    main()
