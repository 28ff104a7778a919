"""Deprecated, removed in the next version: functions of a row as loggers. Use `cl_lib.loggers`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cl_lib.loggers import CSVLogger, WandbLogger
from cl_lib.types import Row

Sink = Callable[[Row], None]


def csv_sink(path: str | Path) -> Sink:
    """The ``log`` of a `cl_lib.loggers.CSVLogger`."""
    warnings.warn("csv_sink is deprecated; use cl_lib.loggers.CSVLogger", DeprecationWarning, stacklevel=2)
    return CSVLogger(path).log


def wandb_sink(
    project: str,
    *,
    name: str,
    config: Mapping[str, Any],
    entity: str | None = None,
    mode: str = "auto",
    directory: str | Path | None = None,
) -> Sink:
    """The ``log`` of a `cl_lib.loggers.WandbLogger`, with its ``close`` as ``finish``."""
    warnings.warn("wandb_sink is deprecated; use cl_lib.loggers.WandbLogger", DeprecationWarning, stacklevel=2)
    logger = WandbLogger(project, name, config, entity, mode, directory)

    def sink(row: Row) -> None:
        logger.log(row)

    sink.finish = logger.close  # type: ignore[attr-defined]
    return sink
