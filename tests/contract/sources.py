"""The project's own source files, parsed, for the tests that read code."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("zoo", "circuits", "sae", "apps")
LIBRARY = FLOORS[:3]
ELSEWHERE = ("tests", "benchmarks", "docs", "tools", ".ci")


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def python_files(*folders: str) -> list[Path]:
    """Every Python file under the named top-level folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    """Every text file of the project: what lies at the top, and below the folders it owns."""
    below = [path for folder in (*FLOORS, *ELSEWHERE) for path in (ROOT / folder).rglob("*")]
    # in a second work tree `.git` is a file, which names the folder of the first
    top = [path for path in ROOT.iterdir() if path.name != ".git"]
    found = [path for path in [*top, *below] if path.is_file() and "__pycache__" not in path.parts]
    return sorted(path for path in found if b"\0" not in path.read_bytes()[:8192])


def where(path: Path, node: ast.AST | int) -> str:
    """`zoo/cards.py:12`, for the message of a failed test."""
    line = node if isinstance(node, int) else getattr(node, "lineno", 0)
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what it calls (`torch.load`, `.register_forward_hook` on an expression)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names; what is not a name is left empty: `.c`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imports(tree: ast.AST, package: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Every module that a tree imports, in full, at any depth; relative imports are resolved within `package`.

    `from a.b import c` gives `a.b.c`, since `c` may be a module. `importlib.import_module("a.b")` counts too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            base = parts[: len(parts) - node.level + 1] + ([node.module] if node.module else [])
            yield from ((node, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node, str(node.args[0].value)


def at_import_time(tree: ast.Module) -> ast.Module:
    """The statements that run when a module is imported, less those under `try` or `if TYPE_CHECKING`."""

    def kept(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.With):
                yield from kept(node.body)
            elif isinstance(node, ast.If) and dotted(node.test).split(".")[-1] != "TYPE_CHECKING":
                yield from kept([*node.body, *node.orelse])
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield node

    return ast.Module(body=list(kept(tree.body)), type_ignores=[])


def package_of(path: Path) -> str:
    """The package that a file's relative imports start from."""
    return ".".join(path.relative_to(ROOT).parent.parts)
