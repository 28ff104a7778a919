"""Where rows go while a run is under way: ``for row in iter_run(...): sink(row)``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cl_lib.errors import InputError

if TYPE_CHECKING:
    from cl_lib.groups import Row

Sink = Callable[["Row"], None]
METRICS = ("accuracy", "ece", "nll", "brier")


def csv_sink(path: str | Path) -> Sink:
    """Append a line for each replica, test set and evaluation to a CSV file.

    Columns: replica, experience (trained), step, column (tested, 1-based), accuracy, ece, nll, brier.

    Examples
    --------
    >>> import cl_lib, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> stream = cl_lib.streams.split(cl_lib.datasets.digits())
    >>> _ = cl_lib.run(stream, cl_lib.strategies.ER(), seeds=2, sinks=[csv_sink(path)])
    >>> path.read_text().splitlines()[0]
    'replica,experience,step,column,accuracy,ece,nll,brier'
    >>> len(path.read_text().splitlines())
    61
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = {"yes": True}

    def sink(row: Row) -> None:
        with path.open("w" if fresh.pop("yes", False) else "a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["replica", "experience", "step", "column", *METRICS])
            for r, replica in enumerate(row.replicas):
                for column in range(row.accuracy.shape[1]):
                    values = [row.arrays[name][r, column] for name in METRICS]
                    writer.writerow([replica, row.experience, row.step, column + 1, *(f"{v:.6g}" for v in values)])

    return sink


def wandb_sink(
    project: str,
    *,
    name: str,
    config: Mapping[str, Any],
    entity: str | None = None,
    mode: str = "auto",
    directory: str | Path | None = None,
) -> Sink:
    """Log rows to Weights & Biases: means over the replicas, and every replica's accuracy.

    Parameters
    ----------
    mode : {"auto", "online", "offline", "disabled"}
        ``auto``: offline where nobody is logged in, so a run never waits for a prompt.

    Raises
    ------
    InputError
        When wandb is not installed, or the mode is unknown.
    """
    try:
        import wandb
    except ImportError:
        raise InputError("logger=wandb: wandb is not installed; pip install 'cl-lib[wandb]'") from None
    if mode not in ("auto", "online", "offline", "disabled"):
        raise InputError(f"logger.mode={mode!r}: must be one of auto, online, offline, disabled")
    if mode == "auto":
        mode = "online" if _logged_in(wandb) else "offline"
    chosen: Any = mode
    run = wandb.init(project=project, entity=entity, name=name, config=dict(config), mode=chosen, dir=directory)

    def sink(row: Row) -> None:
        values: dict[str, Any] = {"experience": row.experience}
        for metric in METRICS:
            values[metric] = float(np.mean(row.arrays[f"pooled.{metric}"]))
        for r, replica in enumerate(row.replicas):
            values[f"replica_{replica}/accuracy"] = float(row.arrays["pooled.accuracy"][r])
        run.log(values, step=row.step)

    sink.finish = run.finish  # type: ignore[attr-defined]
    return sink


def _logged_in(wandb: Any) -> bool:
    return bool(wandb.setup().settings.api_key or getattr(wandb.api, "api_key", None))


def make_sink(options: Mapping[str, Any], directory: Path, name: str, config: Mapping[str, Any]) -> list[Sink]:
    """The sinks that a ``logger`` configuration asks for."""
    match options.get("kind"):
        case "none":
            return []
        case "csv":
            file = options.get("file")
            if not isinstance(file, str) or Path(file).name != file or Path(file).suffix != ".csv":
                raise InputError(
                    f"logger.file={file!r}: must be the name of a .csv file; it goes into the run's directory"
                )
            return [csv_sink(directory / str(options["file"]))]
        case "wandb":
            own = {k: options[k] for k in ("project", "entity", "mode")}
            return [wandb_sink(**own, name=name, config=config, directory=directory)]
    raise InputError(f"logger.kind={options.get('kind')!r}: must be one of none, csv, wandb")
