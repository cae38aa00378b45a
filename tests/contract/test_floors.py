"""zoo < circuits < sae < apps: nothing imports upward, and the library imports no extra."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

import pytest

from tests.contract.sources import (
    FLOORS,
    LIBRARY,
    ROOT,
    at_import_time,
    imports,
    package_of,
    parse,
    python_files,
    where,
)

IMPORT_NAMES = {"pillow": "PIL", "scikit-learn": "sklearn", "opencv-python-headless": "cv2"}


def upward(tree: ast.AST, floor: str, package: str) -> list[tuple[ast.AST, str]]:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    return [(node, name) for node, name in imports(tree, package) if name.split(".")[0] in above]


@pytest.mark.parametrize("floor", FLOORS)
def test_no_floor_imports_a_floor_above_it(floor: str) -> None:
    files = python_files(floor)
    assert files, f"{floor}/ has no Python file"
    found = [
        f"{where(path, node)} imports {name}"
        for path in files
        for node, name in upward(parse(path), floor, package_of(path))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "tools"])
def test_no_floor_imports_what_is_not_shipped(folder: str) -> None:
    found = [
        f"{where(path, node)} imports {name}"
        for path in python_files(*FLOORS)
        for node, name in imports(parse(path), package_of(path))
        if name.split(".")[0] == folder
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import sae",
        "import apps.cli.main",
        "from sae.architectures.base import SAE",
        "def late():\n    from apps import cli",
        "import importlib\nimportlib.import_module('sae.architectures.topk')",
        "from ... import sae",
    ],
)
def test_an_upward_import_is_seen_in_every_disguise(source: str) -> None:
    assert upward(ast.parse(source), "circuits", "circuits.plot")


def test_a_sideways_or_downward_import_is_allowed() -> None:
    tree = ast.parse("from . import kernels\nfrom ..address import Unit\nimport zoo.cards\nfrom zoo import sae_like")
    assert not upward(tree, "circuits", "circuits.plot")


def core_packages() -> set[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    names = {re.split(r"[<>=!~;\[ ]", dependency)[0] for dependency in wanted}
    return {IMPORT_NAMES.get(name, name) for name in names}


def test_the_library_needs_no_extra_to_be_imported() -> None:
    """An extra (or a package of the machine at hand) may be imported inside a function or under `try` only."""
    allowed = core_packages() | set(LIBRARY) | set(sys.stdlib_module_names)
    found = [
        f"{where(path, node)} imports {name}"
        for path in python_files(*LIBRARY)
        for node, name in imports(at_import_time(parse(path)), package_of(path))
        if name.split(".")[0] not in allowed
        and (package_of(path), path.name, name.split(".")[0]) != GPU
        or name.startswith("sae.architectures.kernels.triton")
    ]
    assert not found, "\n".join(found)


GPU = ("sae.architectures.kernels", "triton.py", "triton")
"""Kernels are decorated where they are defined, so their file needs Triton; nothing may import it at import time."""


def test_the_library_never_imports_pyplot() -> None:
    """Figures are made without pyplot, whose global state and display a server or a notebook does not want."""
    found = [
        f"{where(path, node)} imports {name}"
        for path in python_files(*LIBRARY)
        for node, name in imports(parse(path), package_of(path))
        if name.startswith("matplotlib.pyplot")
    ]
    assert not found, "\n".join(found)
