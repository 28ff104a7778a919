"""Command-line overrides: check names, expand sweeps, compose configurations; Hydra's errors become `InputError`."""

from __future__ import annotations

import copy
import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cl_lib.errors import InputError, nearest
from cl_lib.validation import flat

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.core.override_parser.types import Override

GROUPS = ("stream", "strategy", "model", "optim", "logger", "policy")
INNER = ("data", "policy/watch")
"""Groups that are chosen within another."""
NAMES = ("out", "baseline")
"""Options whose values are names, which are not parsed."""
LONGEST = 200
"""Maximum bytes of a directory's name; file systems allow 255."""


def in_full(override: str) -> str:
    """An override as Hydra needs it, where a shorter form is accepted.

    Examples
    --------
    >>> [in_full(o) for o in ("grid.optim.lr=[1,2]", "data.path=x.csv", "policy.watch=errors")]
    ['++grid.optim.lr=[1,2]', 'stream.data.path=x.csv', 'policy/watch=errors']
    """
    for short, full in ((r"grid\.", "++grid."), (r"data\.", "stream.data."), (r"policy\.watch=", "policy/watch=")):
        override = re.sub(f"^{short}", full, override)
    return override


def split_override(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def value_of(overrides: Sequence[str], key: str) -> str | None:
    return next((v for k, v in map(split_override, overrides) if k == key), None)


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Quote names that Hydra's grammar would parse as other values: ``out=5``, ``out=a=b``.

    Examples
    --------
    >>> as_typed(["out=runs/5", "out=2026_11", "out=lr=0.1", "seeds=5"])
    ['out=runs/5', "out='2026_11'", "out='lr=0.1'", 'seeds=5']
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    out = []
    for override in overrides:
        key, value = split_override(override)
        if key in NAMES and "=" in override:
            try:
                part = OverridesParser.create().parse_override(override)
                misread = not part.is_sweep_override() and isinstance(part.value(), (bool, int, float))
            except HydraException:
                misread = True
            if misread:
                quoted = re.sub(r"(\\*)(')", r"\1\1\\\2", value)
                override = f"{key}='{quoted}'"
        out.append(override)
    return out


def with_out(overrides: list[str], several: bool) -> list[str]:
    """Add a directory named by strategy and time if ``out`` is not given, the same for all jobs."""
    if value_of(overrides, "out") not in (None, "", "null", "''", '""'):
        return overrides
    name = (
        "sweep"
        if several
        else f"{value_of(overrides, 'stream') or 'split_digits'}-{value_of(overrides, 'strategy') or 'er'}"
    )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return [o for o in overrides if split_override(o)[0] != "out"] + [f"out=runs/{name}-{stamp}"]


def directory_of(out: str, overrides: Sequence[str], swept: Sequence[str]) -> Path:
    """Directory of the record of one job of a sweep, such as ``out/er,optim.lr=0.1``."""
    parts = []
    for key in swept:
        value = value_of(overrides, key)
        if value is not None:
            parts.append(value if key in GROUPS else f"{key}={value}")
    name = re.sub(r"[^\w.,=+\-\[\]]+", "_", ",".join(parts) or "run")
    if len(name.encode()) > LONGEST:
        start = name.encode()[: LONGEST - 9].decode(errors="ignore")
        name = f"{start}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path(out) / name


def swept_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Keys whose values differ between jobs, strategies and streams first."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in map(split_override, job):
            values.setdefault(key, set()).add(value)
    keys = {key for key, given in values.items() if len(given) > 1}
    return [g for g in reversed(GROUPS[:2]) if g in keys] + sorted(keys - set(GROUPS[:2]))


# ---------------------------------------------------------------------- reading
def expand(overrides: list[str], config_dir: str | None, several: bool) -> list[list[str]]:
    """Check and expand overrides into those of every job; if a sweeper searches, only the fixed overrides."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    with _hydra(config_dir):  # glob() is matched to the groups' choices
        try:
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
            values = [_values(part) for part in parsed]
        except HydraException as error:
            raise InputError(f"cannot read the options: {first_line(error)}") from error
    _check_names(overrides, values, config_dir)
    if not several:
        for part, text in zip(parsed, overrides, strict=True):
            if part.is_sweep_override():
                raise InputError(f"{text}: several values need -m (cl-bench -m {text} …)")
        return [overrides]
    if searches(overrides):
        return [[o for part, o in zip(parsed, overrides, strict=True) if not part.is_sweep_override()]]
    for part, text in zip(parsed, overrides, strict=True):
        if part.is_sweep_override() and not part.is_discrete_sweep():
            raise InputError(f"{text}: an interval needs a sweeper that searches it, such as hydra/sweeper=optuna")
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(job) for job in jobs]


def searches(overrides: Sequence[str]) -> bool:
    """Whether a sweeper such as Optuna's chooses the jobs, so that they are not known in advance."""
    return value_of(overrides, "hydra/sweeper") not in (None, "basic")


def _values(override: Override) -> list[str]:
    """Every value of an override as a string; none for an interval or a deletion."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    return [] if override.is_delete() else [override.get_value_element_as_str()]


def _check_names(overrides: Sequence[str], values: Sequence[Sequence[str]], config_dir: str | None) -> None:
    """Raise `InputError` for unknown choices of a group and unknown options, with the nearest names."""
    choices: list[str] = []
    available = _options(config_dir)
    for override, given in zip(overrides, values, strict=True):
        key, _ = split_override(override)
        group = key.split("@")[0]
        if group not in available or override.startswith("~"):
            continue
        if not given:
            raise InputError(f"{override}: matches no {group}; there are {', '.join(available[group])}")
        for choice in given:
            if choice not in available[group]:
                raise InputError(
                    f"{key}={choice}: there is no {group} of that name" + nearest(choice, available[group])
                )
        choices.append(f"{key}={given[0]}")
    known = set(flat(compose_config(choices, config_dir, resolve=False)))
    # the ``_target_`` of a group is chosen by the group's name, those of nested objects (a memory, BiC's base) by class
    known = {
        n for n in known if not n.rsplit(".", 1)[-1].startswith("_") or (n.count(".") > 1 and n.endswith("._target_"))
    }
    prefixes = {name.rsplit(".", i)[0] for name in known for i in range(name.count(".") + 1)}
    for override in overrides:
        key, _ = split_override(override)
        if override.startswith(("+", "~")) or key.split("@")[0] in available or key.startswith("hydra"):
            continue
        if key not in prefixes:
            raise InputError(f"{key}: unknown option{nearest(key, prefixes, more=False)} (cl-bench --help lists them)")


# ---------------------------------------------------------------------- Hydra
def start_hydra(config_dir: str | None) -> Hydra:
    """Initialise Hydra with the configuration of cl_lib and the user's directory."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    if config_dir is not None and not Path(config_dir).is_dir():
        raise InputError(f"--config-dir {config_dir}: there is no such directory")
    version.setbase("1.3")
    search = create_config_search_path("pkg://cl_lib.conf")
    if config_dir is not None:
        search.prepend("command-line", f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    return Hydra.create_main_hydra2("cl-bench", search)


@contextmanager
def _hydra(config_dir: str | None) -> Iterator[Hydra]:
    from hydra.core.global_hydra import GlobalHydra

    try:
        yield start_hydra(config_dir)
    finally:
        GlobalHydra.instance().clear()


def _options(config_dir: str | None) -> dict[str, list[str]]:
    """Choices of every group, including the user's."""
    with _hydra(config_dir) as hydra:
        return {group: hydra.config_loader.get_group_options(group) for group in (*GROUPS, *INNER)}


def compose_config(overrides: Sequence[str], config_dir: str | None, resolve: bool = True) -> dict[str, Any]:
    return compose_all([overrides], config_dir, resolve)[0]


def compose_all(jobs: Iterable[Sequence[str]], config_dir: str | None, resolve: bool = True) -> list[dict[str, Any]]:
    """Compose the configuration of each job; groups that several jobs share are composed once."""
    from hydra import compose
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    shared: dict[tuple[str, ...], Any] = {}
    parser, out = OverridesParser.create(), []
    with _hydra(config_dir):
        for job in jobs:
            late = [o for o in job if _is_value(o)]
            early = tuple(o for o in job if o not in late)
            if any(o.startswith(("+", "~")) for o in early):  # such overrides may add or delete keys that values set
                early, late = tuple(job), []
            try:
                if early not in shared:
                    shared[early] = compose("config", list(early))
                config = copy.deepcopy(shared[early])
                ConfigLoaderImpl._apply_overrides_to_config(parser.parse_overrides(late), config)
                out.append(OmegaConf.to_container(config, resolve=resolve))
            except Exception as error:  # Hydra, OmegaConf and YAML may raise anything for a user's configuration
                raise InputError(f"the configuration cannot be composed: {_reason(error, config_dir)}") from error
    return cast(list[dict[str, Any]], out)


def _is_value(override: str) -> bool:
    """Whether an override sets a value, so that it can follow the composition of groups."""
    key = override.partition("=")[0].removeprefix("++grid.")
    return re.fullmatch(r"[\w.]+", key) is not None and key.split(".")[0] != "hydra" and key not in (*GROUPS, *INNER)


def _reason(error: BaseException, config_dir: str | None) -> str:
    """Reason of an error, with file and line if known."""
    from yaml import MarkedYAMLError, YAMLError

    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem}"
    if isinstance(error, YAMLError):
        return " ".join(str(error).split())
    if isinstance(error, UnicodeDecodeError):
        for path in sorted(Path(config_dir or "").rglob("*.y*ml")) if config_dir is not None else []:
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                return f"{path}: is not valid UTF-8"
    return first_line(error)


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
