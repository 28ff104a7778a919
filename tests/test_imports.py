"""The import graph of the whole package: packages import those below them only, and no modules import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cl_lib

ROOT = Path(cl_lib.__file__).parent
FLOORS = (
    ("cli",),
    ("__init__",),
    ("checks", "interop", "sinks"),
    ("harness",),
    ("report", "loggers"),
    ("service",),
    ("policies",),
    ("drift",),
    ("engine", "record"),
    ("strategies",),
    ("curvature", "plan", "streams"),
    ("datasets", "memory", "models"),
    ("metrics", "stats", "files", "validation", "types"),
    ("noise", "errors", "conf", "_version"),
)
"""Packages and root modules from top to bottom; each imports from lower floors, and from its own in one direction."""
HEIGHT = {name: len(FLOORS) - i for i, floor in enumerate(FLOORS) for name in floor}


def modules(root: Path) -> dict[str, Path]:
    """Files of a package by dotted name."""
    names = {path: [root.name, *path.relative_to(root).with_suffix("").parts] for path in root.rglob("*.py")}
    return {".".join(n[:-1] if n[-1] == "__init__" else n): path for path, n in names.items()}


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a module imports at any place, those for type checking left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known or node.module in known:
                    yield full if full in known else str(node.module)


def top(name: str) -> str:
    """The package below the root that a module belongs to, or the root module itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports of a package from one that does not lie below it."""
    pairs = {(top(a), top(b)) for a, targets in edges.items() for b in targets if top(a) != top(b)}
    return sorted(
        f"{a} -> {b}" for a, b in pairs if HEIGHT[a] < HEIGHT[b] or (HEIGHT[a] == HEIGHT[b] and (b, a) in pairs)
    )


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Modules that can be reached from themselves; what a package's ``__init__`` gathers counts as the package."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        stack = [start]
        while stack:
            for target in edges.get(stack.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        return seen

    return sorted(name for name in edges if name in reachable(name))


def test_every_package_has_a_floor():
    assert {top(name) for name in modules(ROOT)} == set(HEIGHT)


def test_imports_run_downwards_only():
    assert not upward(graph(ROOT))


def test_no_modules_import_each_other():
    assert not circles(graph(ROOT))


def test_few_modules_lie_beside_the_packages():
    assert len(list(ROOT.glob("*.py"))) <= 11, "ten modules and __init__.py"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"engine/__init__.py": "from cl_lib.harness import run"}, (["engine -> harness"], [])),
        ({"engine/__init__.py": "def f():\n    import cl_lib.cli"}, (["engine -> cli"], [])),
        ({"files.py": "from cl_lib import types", "types.py": "from cl_lib import files"},
         (["files -> types", "types -> files"], ["cl_lib.files", "cl_lib.types"])),
        ({"engine/a.py": "import cl_lib.engine.b", "engine/b.py": "from cl_lib.engine import a"},
         ([], ["cl_lib.engine.a", "cl_lib.engine.b"])),
        ({"record/__init__.py": "from cl_lib.files import null", "files.py": ""}, ([], [])),
    ],
    ids=["upward", "upward in a function", "circle of packages", "circle within", "sound"],
)  # fmt: skip
def test_broken_graphs_are_rejected(tmp_path, files, found):
    base = {f"{name}/__init__.py": "" for name in ("harness", "cli", "engine", "record")} | {"__init__.py": ""}
    for name, text in (base | files).items():
        path = tmp_path / "cl_lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    edges = graph(tmp_path / "cl_lib")
    assert (upward(edges), circles(edges)) == found
