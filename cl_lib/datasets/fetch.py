"""Folders of data sets, and downloads by torchvision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from cl_lib.datasets.check import check_dataset
from cl_lib.datasets.samples import Dataset, Samples
from cl_lib.errors import InputError

ENVIRONMENT = "CL_LIB_DATA"


def data_home() -> Path:
    """Return the folder for downloaded data: ``$CL_LIB_DATA`` if set, else ``~/.cache/cl_lib``.

    Raises
    ------
    InputError
        If ``$CL_LIB_DATA`` is set but is not a folder: a misspelt path must not cause a download to another folder.

    Examples
    --------
    >>> data_home().is_absolute()
    True
    """
    value = os.environ.get(ENVIRONMENT)
    if not value:
        return Path.home() / ".cache" / "cl_lib"
    home = Path(value).expanduser().absolute()
    if not home.is_dir():
        raise InputError(f"${ENVIRONMENT} is {value!r}, which is not a folder: create it, or set or unset the variable")
    return home


def chosen_root(root: str | os.PathLike[str] | None) -> Path:
    """Return `root` as a path, or `data_home()` if it is None; raise `InputError` if it is a file."""
    if root is None:
        return data_home()
    folder = Path(root).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"root is {str(root)!r}, which is a file: give the folder that contains the data")
    return folder


def torchvision_set(kind: str, root: Path, advice: str, **options: Any) -> Any:
    """Construct torchvision's data set class `kind` in `root`.

    torchvision finds, downloads and verifies the files itself. Any failure (no torchvision, no network, missing or
    damaged files) becomes an `InputError` that ends in `advice`: another way to get the data.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another version of torch
        raise InputError(
            f'{kind} needs torchvision, which does not import ({error}): pip install "cl-lib[vision]"; {advice}'
        ) from error
    try:
        return getattr(torchvision.datasets, kind)(root, **options)
    except (RuntimeError, OSError, HTTPException) as error:
        tried = "could not be downloaded to" if options.get("download") else "was not found in"
        reason = " ".join(str(error).split())  # torchvision's messages have several lines
        raise InputError(f"{kind} {tried} {root} ({reason}): {advice}") from error


def images(name: str, train: Samples, test: Samples, classes: Sequence[str]) -> Dataset:
    """Return a checked data set of 8-bit images, scaled to [0, 1]."""
    return check_dataset(Dataset(name, train, test, tuple(classes), mean=(0.0,), std=(255.0,)))
