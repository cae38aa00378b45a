"""Packages whose public names are imported when they are first used."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports its public names under `if TYPE_CHECKING:`.

    They are read from the source of its `__init__`, so that each stands there once, where type checkers, editors and
    the documentation read it, too. Importing the package then imports none of them: what a user's script does not
    use costs it nothing. A function that bears the name of its module is imported from that module: its package has
    the module under the name while it is being imported, and another thread would take that for the function.

    Args:
        package: name of the package, which is being imported: `__getattr__, __dir__, __all__ = lazy_names(__name__)`.
    """
    module = sys.modules[package]
    homes = _homes(_source(package))

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, original = homes[name]
        parent = importlib.import_module(home)
        submodule = home == package or not hasattr(parent, original)
        value = importlib.import_module(f"{home}.{original}") if submodule else getattr(parent, original)
        setattr(module, name, value)
        return value

    return get, lambda: sorted({*vars(module), *homes}), public_names(package)


def public_names(package: str) -> list[str]:
    """The names that a package re-exports: those which its `__init__` imports `as` themselves (PEP 484), sorted."""
    source = _source(package)
    return sorted({**_homes(source, guarded=False), **_homes(source)})


def _source(package: str) -> str:
    return str(sys.modules[package].__spec__.loader.get_source(package))  # type: ignore[union-attr]


def _homes(source: str, *, guarded: bool = True) -> dict[str, tuple[str, str]]:
    """Public name -> the module that it is imported from, and what it is called there."""
    body = ast.parse(source).body
    if guarded:
        body = [
            node
            for block in body
            if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
            for node in block.body
        ]
    return {
        alias.asname: (node.module or "", alias.name)
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
