"""Tables in files, and their text columns as indicators."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from cl_lib.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".csv.gz", ".csv.zip", ".parquet")
COVERED = 0.5
"""Least share of rows that the levels of a text feature must cover, without "other"."""


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a CSV or Parquet file.

    Raises
    ------
    InputError
        If the file is absent, unreadable or of another kind, or two columns have one name.
    """
    import pandas as pd

    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path={path!r}: name a file that ends in {', '.join(ENDINGS)}")
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"path={str(path)!r}: there is no such file; name one that ends in {', '.join(ENDINGS)}")
    if not file.name.lower().endswith(ENDINGS):
        raise InputError(f"path={str(path)!r}: must end in {', '.join(ENDINGS)}")
    try:
        if file.suffix.lower() == ".parquet":
            frame = pd.read_parquet(file, engine="pyarrow")
            names = [str(name) for name in frame.columns]
        else:
            names = pd.read_csv(file, header=None, nrows=1, dtype=str).iloc[0].astype(str).tolist()
            frame = pd.read_csv(file, low_memory=False)
    except ImportError as error:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install pyarrow, or give a CSV file") from error
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable table ({' '.join(str(error).split())})") from error
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path}: {Counter(names)[twice[0]]} columns are named {twice[0]!r}; rename all but one")
    return frame.set_axis(names, axis=1)


def check_used(frame: pd.DataFrame, used: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError for an unknown column or missing values in it; `used` has the columns of each option."""
    for option, columns in used.items():
        for column in columns:
            if column not in frame.columns:
                raise InputError(f"{option}={column!r}: there is no such column{nearest(str(column), frame.columns)}")
        counts = {column: int(frame[column].isna().sum()) for column in columns}
        missing = [f"{column!r} has {count} missing values" for column, count in counts.items() if count]
        if missing:
            raise InputError(f"{option}: column {', column '.join(missing)}; fill them in or drop those rows")


def indicators(values: pd.Series[str], most: int) -> pd.DataFrame:
    """One column for each of the ``most`` frequent texts, in alphabetical order, and "other" for the rest, if any.

    Examples
    --------
    >>> import pandas as pd
    >>> list(indicators(pd.Series(["a", "b", "b", "a", "c"], name="site"), 2))
    ['site=a', 'site=b', 'site other']
    """
    import pandas as pd

    texts = values.astype(str)
    counts = Counter(texts)
    levels = sorted(sorted(counts, key=lambda text: (-counts[text], text))[:most])
    covered = sum(counts[level] for level in levels)
    if covered < COVERED * len(texts):
        raise InputError(
            f"feature {values.name!r} is text with {len(counts)} values, of which the {most} most frequent cover "
            f"{covered} of {len(texts)} rows; name it in window= or slices=, leave it out of features=, or "
            "raise max_categories"
        )
    made = {f"{values.name}={level}": (texts == level).to_numpy() for level in levels}
    if len(levels) < len(counts):
        made[f"{values.name} other"] = (~texts.isin(levels)).to_numpy()
    return pd.DataFrame(made).astype(np.float32)


def features_of(frame: pd.DataFrame, most: int) -> tuple[pd.DataFrame, list[int]]:
    """Features as numbers, and the positions of those that were measured, not made of texts or booleans.

    Examples
    --------
    >>> import pandas as pd
    >>> made, measured = features_of(pd.DataFrame({"site": ["a", "b"], "wind": [3, 4], "wet": [True, False]}), 50)
    >>> list(made), measured
    (['site=a', 'site=b', 'wind', 'wet'], [2])
    """
    import pandas as pd

    parts = []
    for name in frame:
        values = frame[name]
        if values.dtype.kind in "Mm":
            raise InputError(f"feature {name!r} holds dates; name it in window=, or leave it out of features=")
        parts.append(values.to_frame() if values.dtype.kind in "biuf" else indicators(values, most))
    made = pd.concat(parts, axis=1) if parts else frame
    measured = [i for i, name in enumerate(made) if name in frame and frame[name].dtype.kind in "iuf"]
    return made, measured


def true_rows(values: pd.Series[Any]) -> np.ndarray:
    """A boolean column as an array."""
    if values.dtype.kind != "b":
        raise InputError(f"test={values.name!r}: the column is {values.dtype}; name a boolean one, true in test rows")
    return values.to_numpy(dtype=bool)
