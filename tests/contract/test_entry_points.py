"""A package that somebody else installs adds a card, an architecture, a figure and a format, without a change here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.sources import ROOT

MODULES = {
    "cards": """
from torch import nn
from zoo.cards import Card, register
from zoo.inputs import InputSpec

register(
    Card("theirs", "Theirs", "One layer.", InputSpec(size=8), lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()))
)
""",
    "architectures": """
from dataclasses import dataclass
from typing import ClassVar
from sae.architectures.base import register
from sae.architectures.topk import TopK, TopKSAE

@dataclass(frozen=True, kw_only=True)
class Theirs(TopK):
    architecture: ClassVar[str] = "theirs"

@register
class TheirSAE(TopKSAE):
    Config = Theirs
    config: Theirs
""",
    "figures": """
from apps.figures.figure import figure

@figure("X1", "their-figure", "Their figure", paper="toy-models", shows="Nothing.", fits="toy")
def draw(context):
    raise NotImplementedError
""",
    "formats": """
from sae.formats.registry import Layout, register_layout

@register_layout
class Theirs(Layout):
    name, description = "theirs", "one file, theirs.bin"

    def detects(self, files):
        return False

    def read(self, files):
        raise NotImplementedError
""",
}

FOUND = {
    "cards": "import circuits; assert circuits.load('theirs', weights='random').card.title == 'Theirs'",
    "architectures": "import sae; assert sae.list_architectures()['theirs'].Config.__name__ == 'Theirs'",
    "figures": "from apps.figures.registry import select; assert select(['X1'])[0].module == 'their_package.figures'",
    "formats": "from sae.formats.registry import LAYOUTS; assert not LAYOUTS['theirs'].writable",
}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the package and its metadata, as an installer leaves them."""
    package, metadata = tmp_path / "their_package", tmp_path / "their_package-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").touch()
    for name, source in MODULES.items():
        (package / f"{name}.py").write_text(source)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(f"[vision_circuits.{name}]\ntheirs = their_package.{name}\n\n" for name in MODULES)
    )
    return tmp_path


def test_an_installed_package_adds_through_entry_points(installed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    code = "\n".join(FOUND.values())
    ran = subprocess.run([sys.executable, "-c", code], cwd=installed, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_without_the_package_there_is_none_of_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FOUND["cards"]], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode != 0 and "no model called 'theirs'" in ran.stderr
