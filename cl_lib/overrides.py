"""What was typed: names checked, sweeps expanded, configurations composed; Hydra's own errors become ours."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cl_lib.errors import InputError, nearest

GROUPS = ("stream", "strategy", "model", "optim", "logger")


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def split_override(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def value_of(overrides: Sequence[str], key: str) -> str | None:
    return next((v for k, v in map(split_override, overrides) if k == key), None)


def with_out(overrides: list[str], several: bool) -> list[str]:
    """A directory named by strategy and time where none is given, the same for all jobs."""
    given = value_of(overrides, "out")
    if given not in (None, "", "null"):
        return overrides
    name = (
        "sweep"
        if several
        else f"{value_of(overrides, 'stream') or 'split_digits'}-{value_of(overrides, 'strategy') or 'er'}"
    )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return [o for o in overrides if split_override(o)[0] != "out"] + [f"out=runs/{name}-{stamp}"]


def directory_of(out: str, overrides: Sequence[str], swept: Sequence[str]) -> Path:
    """``out/er,optim.lr=0.1``: where one job of a sweep leaves its record."""
    parts = []
    for key in swept:
        value = value_of(overrides, key)
        if value is not None:
            parts.append(value if key in GROUPS else f"{key}={value}")
    return Path(out) / re.sub(r"[^\w.,=+\-\[\]]+", "_", ",".join(parts) or "run")


def expand(overrides: list[str], config_dir: str | None, several: bool) -> list[list[str]]:
    """The overrides of every job, their names checked."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise InputError(f"cannot read the options: {first_line(error)}") from error
    _check_names(overrides, config_dir)
    if not several:
        for own, text in zip(parsed, overrides, strict=True):
            if own.is_sweep_override():
                raise InputError(f"{text}: several values need -m (cl-bench -m {text} …)")
        return [overrides]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(job) for job in jobs]


def _check_names(overrides: Sequence[str], config_dir: str | None) -> None:
    """Unknown groups' choices and misspelt options, with the nearest names."""
    choices: list[str] = []
    available = _options(config_dir)
    for override in overrides:
        key, value = split_override(override)
        group = key.split("@")[0]
        if group in available:
            for one in value.split(","):
                if one not in available[group]:
                    kind = f"{key}={one}: there is no {group} of that name"
                    raise InputError(kind + nearest(one, available[group]))
            choices.append(f"{key}={value.split(',')[0]}")
    known = set(flat(compose_config(choices, config_dir, resolve=False)))
    # what a group itself is made of is chosen by its name; what it holds (a memory, BiC's base) by its class
    known = {
        n for n in known if not n.rsplit(".", 1)[-1].startswith("_") or (n.count(".") > 1 and n.endswith("._target_"))
    }
    prefixes = {name.rsplit(".", i)[0] for name in known for i in range(name.count(".") + 1)}
    for override in overrides:
        key, _ = split_override(override)
        if override.startswith(("+", "~")) or key.split("@")[0] in available or key.startswith("hydra"):
            continue
        if value in ("null", "") and any(name.startswith(f"{key}.") for name in known):
            raise InputError(f"{override}: {key} is a group of options and cannot be empty")
        if key not in prefixes:
            raise InputError(f"{key}: unknown option{nearest(key, prefixes, more=False)} (cl-bench --help lists them)")


@contextmanager
def _hydra(config_dir: str | None) -> Iterator[list[str]]:
    """Hydra's compose API over our configuration; yields the overrides that add the user's directory."""
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    if config_dir is not None and not Path(config_dir).is_dir():
        raise InputError(f"--config-dir {config_dir}: there is no such directory")
    GlobalHydra.instance().clear()
    with initialize_config_module("cl_lib.conf", version_base="1.3"):
        yield [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]


def _options(config_dir: str | None) -> dict[str, list[str]]:
    """Every group's choices, the user's included."""
    from hydra.core.global_hydra import GlobalHydra

    out = {}
    with _hydra(config_dir):
        loader = GlobalHydra.instance().config_loader()
        for group in (*GROUPS, "data"):
            out[group] = loader.get_group_options(group)
            own = Path(config_dir) / group if config_dir is not None else None
            if own is not None and own.is_dir():
                out[group] = sorted({*out[group], *(p.stem for p in own.glob("*.y*ml"))})
    return out


def compose_config(overrides: Sequence[str], config_dir: str | None, resolve: bool = True) -> dict[str, Any]:
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    with _hydra(config_dir) as own:
        try:
            config = compose("config", [*overrides, *own])
            plain: Any = OmegaConf.to_container(config, resolve=resolve)
        except (HydraException, OmegaConfBaseException, YAMLError, AssertionError, AttributeError, TypeError) as error:
            raise InputError(f"the configuration cannot be composed: {first_line(error)}") from error
    return plain


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
