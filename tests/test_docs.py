"""The guides' snippets run: each document's Python blocks, in order, in one namespace."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

import circuits
import sae
from apps.cli.registry import COMMANDS
from circuits.plot.units.section_renderers import RENDERERS
from circuits.units.dossier import SECTIONS
from sae.architectures.base import ARCHITECTURES
from sae.formats import LAYOUTS
from tools import llms
from zoo.cards import CARDS

ROOT = Path(__file__).parent.parent
GUIDES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
WITH_CODE = [g for g in GUIDES if BLOCK.search(g.read_text())]
ENOUGH = {
    r"(?<=\bscenes:)\d+": 50,
    r"(?<=\btales:)\d+": 200,
    r"(?<=\bsteps=)\d+": 30,
    r"(?<=\brandom=)\d+": 5,
    r"(?<=\bdraws=)\d+": 5,
}
"""Images, stories, steps and random circuits that are enough to see that a snippet runs."""


@pytest.mark.parametrize("guide", WITH_CODE, ids=lambda g: g.name)
def test_the_snippets_of_a_guide_run(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n\n".join(BLOCK.findall(guide.read_text()))
    for what, most in ENOUGH.items():
        code = re.sub(what, lambda number, most=most: str(min(int(number[0]), most)), code)
    run_guide(guide, code, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("guide", WITH_CODE, ids=lambda g: g.name)
def test_the_snippets_of_a_guide_run_as_they_stand(
    guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_guide(guide, "\n\n".join(BLOCK.findall(guide.read_text())), tmp_path, monkeypatch)


def run_guide(guide: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for registry in (CARDS, ARCHITECTURES, LAYOUTS, RENDERERS, SECTIONS):  # what a guide registers is forgotten
        monkeypatch.setattr(registry, "_things", dict(registry.items()))
    # fx reads the source of nothing here, but classes defined in a snippet need a module name
    exec(compile(code, str(guide), "exec", dont_inherit=True), {"__name__": "guide"})
    shown = re.findall(r"\(images/gallery/(\S+)\)", guide.read_text())
    assert not [name for name in shown if not (tmp_path / name).exists()]  # each picture is made by lines of its page


def test_a_wrong_cue_is_found_proved_and_removed_in_forty_lines() -> None:
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    story = tutorial.partition("The whole story is the lines from here on")[2].partition("\n## ")[0]
    lines = [line for block in BLOCK.findall(story) for line in block.splitlines() if line.strip()]
    assert 20 < len(lines) <= 40


@pytest.mark.parametrize("guide", GUIDES, ids=lambda g: g.name)
def test_links_between_guides_lead_somewhere(guide: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", guide.read_text()):
        assert (guide.parent / link).exists(), f"{guide.name} links to {link}"


def test_every_promise_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert not missing


def test_the_reference_on_one_page_has_every_public_name_with_its_signature() -> None:
    heads = [
        set(re.findall(r"(?m)^### .*|^- `\..*?`:", text)) for text in (llms.FILE.read_text("utf-8"), llms.reference())
    ]
    assert heads[0] == heads[1], "run: python -m tools.llms"


def test_every_tool_of_the_table_exists() -> None:
    table = (ROOT / "docs" / "which-tool.md").read_text()
    for path in {".".join(names) for names in re.findall(r"`(circuits|sae)\.([\w.]+)", table)}:
        first, *rest = path.split(".")
        thing: object = importlib.import_module(first)
        for name in rest:  # what the package has under the name, before a module: an empty folder passes for one
            if isinstance(thing, ModuleType) and not hasattr(thing, name):
                importlib.import_module(f"{thing.__name__}.{name}")
            thing = getattr(thing, name)
        assert thing is not None, path
    assert not set(re.findall(r"`circuits ((?:sae |bench )?[a-z]+)", table)) - COMMANDS.keys()


@pytest.mark.parametrize("package", [circuits, sae], ids=lambda package: package.__name__)
def test_every_public_name_stands_in_a_guide(package: ModuleType) -> None:
    text = "\n".join(guide.read_text() for guide in GUIDES)
    missing = [name for name in package.__all__ if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)]
    assert not missing
