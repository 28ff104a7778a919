"""Sphinx configuration: ``sphinx-build -W --keep-going -b html docs docs/_build/html`` needs no network."""

import re
import sys
from pathlib import Path
from typing import Any

import cl_lib
from cl_lib import Job

project = "cl_lib"
author = "The cl_lib developers"
copyright = author
version = release = cl_lib.__version__

sys.path.insert(0, str(Path(__file__).parent))  # for mathml.py

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

# `name` in a docstring is a link where there is something to link to, and code elsewhere
default_role = "py:obj"
add_module_names = False
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"cl_lib {release}"
html_show_sourcelink = False
html_static_path = ["_static"]


def _stars(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """``(N, *shape)`` is a shape, not the beginning of an emphasis."""
    lines[:] = [re.sub(r"(?<=[\s(])\*(?=\w+[,)])", r"\\*", line) for line in lines]


def _types(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Types are described in words, such as "Tensor, shape (R, N)": no word of them is a link."""
    lines[:] = [re.sub(r"^(:(?:type|vartype) [^:]+:) ([^`]+)$", r"\1 *\2*", line) for line in lines]
    # "a, b : type" is one entry with two names; Sphinx takes what follows a space for another part
    lines[:] = [re.sub(r"^:(?:ivar|vartype) [^:]+:", lambda m: m[0].replace(", ", ","), line) for line in lines]


def _signature(
    app: Any, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Short names instead of what type aliases stand for."""

    def short(text: str | None) -> str | None:
        if text is None:
            return None
        text = re.sub(r"~(?:\w+\.)+", "", text).replace("<factory>", "...")
        text = re.sub(r"= ?Job\.(\w+)", lambda m: f"= {getattr(Job, m[1])!r}", text)
        text = re.sub(r"_Buffer \| _SupportsArray.*?\| _NestedSequence\[complex \| bytes \| str\]", "ArrayLike", text)
        return re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[\w+\]\]", "ndarray", text)

    return short(signature), short(returns)


def _skip(app: Any, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """The fields of a named tuple stand in its signature."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
    """The first two around napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", _stars, priority=400)
    app.connect("autodoc-process-docstring", _types, priority=600)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
