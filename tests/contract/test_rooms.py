"""Rooms: no circle of imports between files, and no folder too full to look through."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

from tests.contract.sources import FLOORS, ROOT, imports, parse, python_files

ENTRIES = 12
COLLECTIONS = {"apps/cli/commands", "apps/explorer/views", "sae/architectures", "zoo/networks"}
"""Folders of one kind of thing, one a file, which may hold as many as there are."""


def module_of(path: Path) -> str:
    """`circuits.network.hooks` for its file; a package for its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, package: str, modules: set[str]) -> Iterator[str]:
    """Modules that a file imports, at any depth, lazily or for types only; a name from a module is that module."""
    for _, name in imports(tree, package):
        if name in modules:
            yield name
        elif name.rpartition(".")[0] in modules:
            yield name.rpartition(".")[0]


def import_graph() -> networkx.DiGraph:
    """Files and what they import. A package's `__init__` gathers its own files and is left out."""
    files = {module_of(path): path for path in python_files(*FLOORS)}
    graph = networkx.DiGraph()
    for name, path in files.items():
        if path.name != "__init__.py":
            graph.add_edges_from(
                (name, other)
                for other in imported(parse(path), name.rpartition(".")[0], set(files))
                if other != name and files[other].name != "__init__.py"
            )
    return graph


def entries() -> Counter[str]:
    """Folder -> how many files (`__init__` aside) and folders with code it holds."""
    files = [path.relative_to(ROOT) for path in python_files(*FLOORS, "tools", "tests")]
    folders = {parent for path in files for parent in path.parents if parent.parts}
    counted = [path.parent for path in files if path.name != "__init__.py"] + [f.parent for f in folders]
    return Counter(folder.as_posix() for folder in counted)


def test_no_imports_go_in_a_circle() -> None:
    circles = [sorted(c) for c in networkx.strongly_connected_components(import_graph()) if len(c) > 1]
    assert not circles


def test_no_folder_holds_more_than_twelve_entries() -> None:
    full = {folder: n for folder, n in entries().items() if n > ENTRIES and folder not in COLLECTIONS}
    assert not full


@pytest.mark.parametrize(
    "source",
    ["from b import name", "import b", "def late():\n    from b import name", "if TYPE_CHECKING:\n    import b"],
)
def test_a_circle_is_seen_in_every_disguise(source: str) -> None:
    assert list(imported(ast.parse(source), "", {"a", "b"})) == ["b"]
