"""Every strategy on one stream: hyper-parameters searched on validation data, ten seeds with those that were chosen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from cells import accuracy, chosen, machine, others, row
from study import DOCS, Runs, Study, merged, render
from table import Run

import cl_lib

CONF = Path(cl_lib.__file__).parent / "conf" / "strategy"
RATES = [0.03, 0.1, 0.3]
ALONE = [0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5]
"""Learning rates of strategies that have nothing else to choose, so that each strategy has nine points."""
FAMILIES = {
    "Reference points": "random_guess frozen finetune from_scratch cumulative joint".split(),
    "Replay": "er er_ace der derpp mir cls_er rar scr gdumb gss er_tricks er_compressed latent_replay "
    "generative_replay icarl".split(),
    "Regularisation": "ewc ewc_online si mas rwalk lwf lwf_multi fromp kronecker_laplace bic l2_init".split(),
    "Projection": "agem gem ogd gpm".split(),
    "Memory-augmented": "ncm slda ranpac cope knn hopfield mbpa key_value".split(),
    "Plasticity": "shrink_perturb continual_backprop redo".split(),
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
HELD_OUT = ["stream.valid=0.2", "eval_on=valid"]


class Protocol(NamedTuple):
    """What all strategies of a table share: options of the runs, of the searches, and samples recalled in a step."""

    name: str
    options: list[str]
    seeds_of_search: int
    recalled: int | None = None

    @property
    def search(self) -> list[str]:
        return [*HELD_OUT, f"seeds={self.seeds_of_search}"]


def every() -> list[str]:
    """All strategies that have a configuration, in the table's order."""
    names = [name for family in FAMILIES.values() for name in family]
    shipped = {path.stem for path in CONF.glob("*.yaml") if "_target_" in yaml.safe_load(path.read_text())}
    if shipped != set(names):
        raise SystemExit(f"without a place in the table: {', '.join(sorted(shipped ^ set(names)))}")
    return names


def options(protocol: Protocol, run: str, runs: Runs) -> list[str]:
    """The options of a search, or of ten seeds with the hyper-parameters that it chose."""
    name, kind = run.split("/")
    recalls = protocol.recalled is not None and "memory" in yaml.safe_load((CONF / f"{name}.yaml").read_text())
    given = [f"strategy={name}", *FIXED.get(name, [])]
    given += [f"strategy.memory.batch={protocol.recalled}"] if recalls else []
    if kind == "search":
        given += [*protocol.search, *(f"grid.{k}=[{','.join(f'{v:g}' for v in vs)}]" for k, vs in grid(name).items())]
    else:
        given += [f"{k}={v:g}" for k, v in best(runs[f"{name}/search"]).items()]
    return merged(protocol.options, given)


def grid(name: str) -> dict[str, list[float]]:
    """Nine points."""
    if name not in CHOSEN:
        return {"optim.lr": ALONE}
    field, values = CHOSEN[name]
    return {"optim.lr": RATES, f"strategy.{field}": values}


def best(search: Run) -> dict[str, float]:
    """The point that is best on validation data of the first three experiences, after the third; ties: the first."""
    reached = np.array([r["selection"] if r["selection"] is not None else -1.0 for r in search.replicas])
    points = search.points()
    return points[int(np.argmax([reached[members].mean() for _, members in points]))][0]


def line(name: str, run: Run, hyper: dict[str, float]) -> str:
    """One line of the table."""
    if run.diverged == len(run.replicas):
        return row([f"`{name}`", "all seeds diverged", *[""] * 6])
    shown = f"`{name}`" + (f" ({run.diverged} diverged)" if run.diverged else "")
    seconds = f"{run.info['training_seconds']:.1f}"
    return row([shown, *accuracy(run, 1), *others(run), seconds, chosen(hyper)])


def page(protocol: Protocol, runs: Runs) -> str:
    """The table as Markdown."""
    found = [name for name in every() if f"{name}/run" in runs]
    families = {
        family: [line(n, runs[f"{n}/run"], best(runs[f"{n}/search"])) for n in names if n in found]
        for family, names in FAMILIES.items()
    }
    return render(
        protocol.name,
        families={family: lines for family, lines in families.items() if lines},
        missing=", ".join(f"`{name}`" for name in every() if name not in found),
        search="one seed" if protocol.seeds_of_search == 1 else f"{protocol.seeds_of_search} seeds",
        machine=machines({name: runs[f"{name}/run"] for name in found}),
        name=protocol.name,
    )


def machines(runs: Runs) -> str:
    """What most runs were made on, and by name those that were made on something else."""
    made = {name: machine(run) for name, run in runs.items()}
    usual = Counter(made.values()).most_common(1)[0][0]
    exceptions = [f"`{name}`: {place}" for name, place in made.items() if place != usual]
    return "; ".join([usual, *exceptions])


def study(protocol: Protocol) -> Study:
    """The study of a protocol."""
    return Study(
        protocol.name,
        [f"{name}/{kind}" for name in every() for kind in ("search", "run")],
        lambda run, runs: options(protocol, run, runs),
        lambda runs: {DOCS / "results" / f"{protocol.name}.md": page(protocol, runs)},
    )
