"""The recipes of CONTRIBUTING.md, followed literally in a copy of the repository: one new file each, and its test."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.sources import FLOORS, ROOT

LONGEST = 60
"""Lines of the new file of a recipe, its test aside."""
GUIDE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
FILE = re.compile(r"^```python (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"circuits": ["-m", "apps.cli"], "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"]}


@dataclass(frozen=True)
class Recipe:
    """A recipe: its heading, files to write, and commands to run."""

    name: str
    files: dict[str, str]
    commands: list[str]


def recipes() -> list[Recipe]:
    sections = re.split(r"^### ", GUIDE.split("## Recipes", 1)[1], flags=re.MULTILINE)[1:]
    return [
        Recipe(
            section.split("\n", 1)[0],
            {path: text for path, text in FILE.findall(section)},
            [line for block in COMMANDS.findall(section) for line in block.splitlines() if line.strip()],
        )
        for section in sections
    ]


RECIPES = recipes()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is under version control, or would be: no file of the repository is touched."""
    folder = tmp_path_factory.mktemp("copy")
    for name in (*FLOORS, "tests", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_there_are_seven_and_each_has_a_file_and_a_command() -> None:
    assert len(RECIPES) == 7
    for recipe in RECIPES:
        assert recipe.commands and recipe.files, recipe.name
        assert any(line.startswith("pytest ") for line in recipe.commands), f"{recipe.name} has no test"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_one_short_new_file_and_its_test(recipe: Recipe) -> None:
    new = [path for path in recipe.files if not path.startswith("tests/")]
    assert len(new) == 1, new
    assert len(recipe.files[new[0]].splitlines()) < LONGEST
    assert not [path for path in recipe.files if (ROOT / path).exists()], "the recipe would write over a file"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_works_as_it_is_written(recipe: Recipe, copy: Path) -> None:
    for path, text in recipe.files.items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_text(text)
    for line in recipe.commands:
        program, *arguments = shlex.split(line)
        command = [sys.executable, *PROGRAMS[program], *arguments]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert program != "pytest" or re.search(r"\b[1-9]\d* passed", done.stdout), f"{line} ran no test"
    new = [copy / path for path in recipe.files if not path.startswith("tests/")]
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", *map(str, new)], cwd=copy, capture_output=True, text=True
    )
    assert lint.returncode == 0, lint.stdout
