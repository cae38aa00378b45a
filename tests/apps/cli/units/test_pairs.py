"""Counterfactual images on the command line: those that do not fit are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.apps.terminal import Cli, is_refused
from zoo import open_images


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pairs")
    scenes = open_images("scenes:8")
    for name, change in (("images", 0), ("same", 0), ("few", 0), ("wide", 1), ("others", 2)):
        (root / name).mkdir()
        for i, image in enumerate(scenes):
            if name != "few" or i < 5:
                shown = image.resize((image.width + 8, image.height)) if change == 1 else image
                shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if change == 2 else shown
                shown.save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("command", ["rank", "trace", "score"])
@pytest.mark.parametrize(
    ("folder", "message", "options"),
    [
        ("same", "its counterfactual are the same image", ()),
        ("few", "got 5 for 8", ()),
        ("few", "got 5 for 8", ("--limit", 4)),
        ("wide", "give pairs of one size", ()),
    ],
)
def test_pairs_are_refused_on_the_command_line(
    cli: Cli, folders: Path, command: str, folder: str, message: str, options: tuple[Any, ...]
) -> None:
    unit, words = "scenes/mixed4a:11", ("--images", folders / "images", "--against", folders / folder, *options)
    if command == "score":
        traced = cli("trace", unit, "--images", "scenes:30", "--no-score", "--out", folders / "circuit")
        assert traced.code == 0, traced.err
        unit = str(folders / "circuit")
    ran = cli(command, unit, *words)
    assert is_refused(ran) and message in ran.err, ran.err


def test_limited_images_keep_their_pairs(cli: Cli, folders: Path) -> None:
    ran = cli(
        "rank", "scenes/mixed3b:4", "--images", folders / "images", "--against", folders / "others", "--limit", 6,
        "--measure", "explained variance", "--no-curve", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["ranking"]["measure"] == "explained variance" and ran.json["ranking"]["n_images"] == 3
    assert ran.json["ranking"]["baseline"] == "counterfactual"
