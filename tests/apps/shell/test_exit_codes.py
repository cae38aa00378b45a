"""Bad input to any command ends with 2 and one line; 1 is left to mistakes of ours."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.apps.small_runs import OWN, PHOTOS, RUNS, SmallRuns, at, run
from tests.apps.terminal import is_refused

OF_A_MODEL = [name for name, line in RUNS.items() if line.startswith(("netz ", "netz/"))]
OF_IMAGES = [name for name in OF_A_MODEL if PHOTOS in RUNS[name]]
BAD_SOURCES = ("nirgends", "leer", "kein Bild.png", "Text.txt")


@pytest.fixture(scope="module")
def bad(runs: SmallRuns, folder: Path) -> Path:
    """The workspace with an empty folder, a file that is no image, and one that is no weights."""
    assert runs["scan"].ran.code == 0
    (folder / "leer").mkdir()
    for name in ("kein Bild.png", "Text.txt", "keine Gewichte.pth", "Datei"):
        (folder / name).write_text("nothing of the kind")
    return folder


def refused(folder: Path, name: str, line: str) -> bool:
    with at(folder):
        ran = run([*name.split(), *shlex.split(line)])
    assert is_refused(ran), (name, line, ran)
    return True


@pytest.mark.parametrize("name", OF_A_MODEL)
def test_no_such_model_layer_unit_or_weights(bad: Path, name: str) -> None:
    line = RUNS[name]
    assert refused(bad, name, line.replace(OWN, "").replace("netz", "nichts"))
    assert refused(bad, name, line.replace("'Gewichte ä.pth'", "nirgends.pth"))
    assert refused(bad, name, line.replace("'Gewichte ä.pth'", "'keine Gewichte.pth'"))
    assert refused(bad, name, line.replace("'netz=mein Netz.py:make'", "nirgends.py:make"))
    if line.startswith("netz/"):
        first = line.split()[0]
        assert refused(bad, name, line.replace(first, "netz/nirgends:1", 1))
        assert refused(bad, name, line.replace(first, "netz/relu_1:99999", 1))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_images_that_are_none(bad: Path, name: str) -> None:
    for source in BAD_SOURCES:
        assert refused(bad, name, RUNS[name].replace(PHOTOS, f"--images {shlex.quote(source)} --seed 5"))


@pytest.mark.parametrize("name", RUNS)
def test_numbers_and_folders_that_are_none(bad: Path, name: str) -> None:
    for wrong in ("--seed x", "--seed -1", "--out Datei", "--out Datei/tiefer", "--out /proc/nirgends", "--nonsense"):
        assert refused(bad, name, f"{RUNS[name]} {wrong}")
