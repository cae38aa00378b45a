"""The guides' snippets run: each document's Python blocks, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zoo.cards import CARDS

ROOT = Path(__file__).parent.parent
GUIDES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("guide", [g for g in GUIDES if BLOCK.search(g.read_text())], ids=lambda g: g.name)
def test_the_snippets_of_a_guide_run(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CARDS, "_things", dict(CARDS.items()))  # what a guide registers is forgotten afterwards
    code = "\n\n".join(BLOCK.findall(guide.read_text()))
    # fx reads the source of nothing here, but classes defined in a snippet need a module name
    exec(compile(code, str(guide), "exec"), {"__name__": "guide"})


@pytest.mark.parametrize("guide", GUIDES, ids=lambda g: g.name)
def test_links_between_guides_lead_somewhere(guide: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", guide.read_text()):
        assert (guide.parent / link).exists(), f"{guide.name} links to {link}"
