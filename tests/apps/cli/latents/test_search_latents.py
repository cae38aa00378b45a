"""`circuits sae search`."""

from __future__ import annotations

from pathlib import Path

import pytest

import sae
from tests.apps.terminal import Cli, is_refused

pytest.importorskip("transformers")

TEXTS = ["--text", "tales:60@1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SAE of the tales, trained hardly at all."""
    from sae.language import LanguageSite
    from zoo.networks.language import load_language

    site = LanguageSite(load_language("tales"), "layers.1.resid")
    run = sae.train(site.stream("tales:60@2", batch_size=512), sae.TopK(latents=64, k=6), steps=40, lr=3e-3)[0]
    path = tmp_path_factory.mktemp("saes") / "words"
    sae.save(path, run)
    return path


def test_texts_with_words_stand_against_those_without(cli: Cli, folder: Path) -> None:
    from sae.language import LanguageSite, open_texts
    from sae.steering import search
    from zoo.networks.language import load_language

    ran = cli("sae", "search", folder, *TEXTS, "--says", "frog", "--says", "goat", "--top", "3", "--json")
    assert ran.code == 0, ran.err
    texts = list(open_texts("tales:60@1"))
    some = [text for text in texts if "frog" in text or "goat" in text]
    assert (ran.json["positive"]["count"], ran.json["negative"]["count"]) == (len(some), 60 - len(some))
    site = LanguageSite(load_language("tales"), "layers.1.resid")
    known = search(sae.load(folder), site, some, [text for text in texts if text not in some], top=3, name="words")
    assert [(one["unit"], one["auc"]) for one in ran.json["rows"]] == [(row.unit, row.auc) for row in known.rows]
    assert ran.json["chance"] == known.chance and len(ran.json["rows"][0]["promoted"]) == 6


def test_two_files_of_texts_and_what_to_do_next(cli: Cli, folder: Path, tmp_path: Path) -> None:
    about, other = tmp_path / "about.txt", tmp_path / "other.txt"
    about.write_text("Tom liked the Longspan.\n<|endoftext|>\nAnna saw the Longspan.", encoding="utf-8")
    other.write_text("She was happy.\n<|endoftext|>\nHe was sad.", encoding="utf-8")
    out = tmp_path / "found"
    ran = cli("sae", "search", folder, "--text", about, "--against", other, "--top", "2", "--out", out)
    assert ran.code == 0, ran.err
    assert "2 texts with, 2 without" in ran.out and "next: circuits steer tales/layers.1.resid~words:" in ran.out
    assert (out / "search.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to search for"),
        (["--says", "a", "--against", "tales:3"], "say what to search for"),
        (["--says", " "], "--says takes words"),
        (["--says", "dragon"], "none of 60 texts"),
        (["--says", "."], "all of 60 texts"),
        (["--says", "frog", "--top", "0"], "--top is at least 1"),
        (["--against", "nowhere.txt"], "no text file at"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, folder: Path, arguments: list[str], said: str) -> None:
    ran = cli("sae", "search", folder, *TEXTS, *arguments)
    assert is_refused(ran) and said in ran.err, ran.err


def test_an_sae_of_pictures_is_searched_by_find(cli: Cli, tmp_path: Path) -> None:
    from circuits import load
    from sae.data.vision_site import VisionSite

    site = VisionSite(load("scenes", device="cpu"), "mixed4a")
    sae.save(
        tmp_path / "parts", sae.train(site.stream("scenes:3", batch_size=64), sae.TopK(latents=64, k=4), steps=1)[0]
    )
    ran = cli("sae", "search", tmp_path / "parts", "--says", "car")
    assert is_refused(ran) and "circuits find scenes --sae" in ran.err
