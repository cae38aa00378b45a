"""What pyproject.toml promises and constraints.txt pins agree; and the scripts that are run from a checkout start."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.sources import FLOORS, LIBRARY, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
WANTED = [
    Requirement(text)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for text in group
]


def test_every_constraint_is_one_exact_version_from_whatever_registry_is_set() -> None:
    for pin in PINS:
        assert [clause.operator for clause in pin.specifier] == ["=="], str(pin)
        assert pin.url is None and not pin.extras, str(pin)
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert not re.search(r"https?:|--\w*index|--find-links|\+cpu|\+cu", text)


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_what_the_project_asks_for_is_pinned_to_a_version_that_it_accepts(wanted: Requirement) -> None:
    pins = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert pins, f"{wanted.name} is not in constraints.txt: run `make lock`"
    for pin in pins:
        version = next(iter(pin.specifier)).version
        assert wanted.specifier.contains(version), f"{pin} does not satisfy {wanted}: run `make lock`"


@pytest.mark.parametrize("floor", FLOORS)
def test_every_floor_is_a_package_with_a_docstring(floor: str) -> None:
    init = ROOT / floor / "__init__.py"
    assert init.exists() and init.read_text("utf-8").startswith('"""')


@pytest.mark.parametrize("floor", LIBRARY)
def test_the_library_says_that_it_is_typed(floor: str) -> None:
    assert (ROOT / floor / "py.typed").exists()


def test_the_console_script_is_where_pyproject_says() -> None:
    module, function = PROJECT["scripts"]["circuits"].split(":")
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert f"def {function}(" in source.read_text("utf-8")


def test_the_changelog_speaks_of_what_comes_next() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


BENCHMARKS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if not path.name.startswith("_")]


def test_every_benchmark_finds_what_it_imports() -> None:
    # one process for all, so that it is quick enough for the suite: with the root first no script hides a package
    lines = ["import runpy, sys", f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'benchmarks')!r}]"]
    lines += [f"runpy.run_path({str(path)!r}, run_name='benchmark')" for path in BENCHMARKS]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=240)


def test_no_benchmark_hides_a_package_from_its_neighbors() -> None:
    # `python benchmarks/x.py` puts the folder first on the path; those beside sae.py that want the package take it off
    assert {path.stem for path in BENCHMARKS} & set(FLOORS) == {"sae"}


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_starts(path: Path) -> None:
    subprocess.run([sys.executable, str(path), "--help"], check=True, timeout=240, stdout=subprocess.DEVNULL)
