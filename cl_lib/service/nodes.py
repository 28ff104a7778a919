"""Entries of a YAML file or a dictionary, checked one by one; errors name file, line and key."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cl_lib.errors import InputError, nearest, printable


@dataclass(frozen=True)
class Entry:
    """A value with its key; `source` is the name of the file, ``line`` None for values of a dictionary.

    Examples
    --------
    >>> root = parse("metrics:\\n  nll: {max: 0.6}", "gate.yaml")
    >>> entry = root.entries()["metrics"].entries()["nll"].entries(["min", "max"])["max"]
    >>> entry.number(), entry.where
    (0.6, 'gate.yaml: line 2: metrics.nll.max')
    """

    source: str
    key: str
    line: int | None
    node: Any

    @property
    def where(self) -> str:
        """Source, line and key, with which error messages begin."""
        line = [] if self.line is None else [f"line {self.line}"]
        return ": ".join([self.source, *line, *filter(None, [printable(self.key, one_line=True)])])

    def fail(self, reason: str) -> InputError:
        """An error about this entry, to be raised."""
        return InputError(f"{self.where}: {reason}")

    def entries(self, known: Iterable[str] | None = None) -> dict[str, Entry]:
        """The entries of a mapping that is not empty; with ``known``, other keys are errors."""
        import yaml

        if not isinstance(self.node, yaml.MappingNode):
            raise self.fail(f"must be a mapping{_example(known)}")
        out: dict[str, Entry] = {}
        for key, value in self.node.value:
            line = key.start_mark.line + 1 if key.start_mark is not None else None
            if not isinstance(key, yaml.ScalarNode):
                raise Entry(self.source, self.key, line, key).fail("a key must be a name")
            entry = Entry(self.source, f"{self.key}.{key.value}".lstrip("."), line, value)
            if key.value in out:
                raise entry.fail("is given twice")
            if known is not None and key.value not in known:
                raise entry.fail(f"unknown key{nearest(key.value, known)}")
            out[key.value] = entry
        if not out:
            raise self.fail(f"is empty{_example(known)}")
        return out

    def number(self, low: float = -math.inf, high: float = math.inf, unit: str = "number") -> float:
        """A finite number in ``[low, high]``."""
        text = self.text
        value = _float(text)
        if value is None or not low <= value <= high:
            limits = f" in [{low:g}, {high:g}]" if high < math.inf else f", {low:g} or more" if low > -math.inf else ""
            raise self.fail(f"must be a {unit}{limits}, found {text!r}")
        return value

    def whole(self, least: int) -> int:
        """A whole number, at least ``least``."""
        value = _float(self.text)
        if value is None or value != int(value) or value < least:
            raise self.fail(f"must be a whole number, {least} or more, found {self.text!r}")
        return int(value)

    def choice(self, known: Sequence[str]) -> str:
        """One of several words."""
        if self.text not in known:
            raise self.fail(f"must be one of {', '.join(known)}, found {self.text!r}")
        return self.text

    def names(self) -> tuple[str, ...] | None:
        """A list of different names, None where the value is no list."""
        import yaml

        if not isinstance(self.node, yaml.SequenceNode):
            return None
        names = tuple(Entry(self.source, self.key, self.line, node).text for node in self.node.value)
        if not names or len(set(names)) < len(names):
            raise self.fail("must be a list of at least one name, each given once")
        return names

    @property
    def text(self) -> str:
        """The text of a single value."""
        import yaml

        if not isinstance(self.node, yaml.ScalarNode):
            raise self.fail("must be a single value")
        return str(self.node.value)


def parse(content: str | Mapping[str, Any], source: str) -> Entry:
    """Parse the text of a YAML file, or take a dictionary.

    Raises
    ------
    InputError
        For text that is not YAML, with the line, and for text without content.
    """
    import yaml

    try:
        if isinstance(content, str):
            node = yaml.compose(content, Loader=yaml.SafeLoader)
        else:
            node = yaml.representer.SafeRepresenter(sort_keys=False).represent_data(dict(content))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f": line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{source}{line}: is not valid YAML ({printable(reason, one_line=True)})") from None
    except RecursionError:
        raise InputError(f"{source}: is not valid YAML (nested too deeply)") from None
    if node is None:
        raise InputError(f"{source}: is empty")
    return Entry(source, "", None, node)


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _example(known: Iterable[str] | None) -> str:
    return "" if known is None else f" with {', '.join(known)}"
