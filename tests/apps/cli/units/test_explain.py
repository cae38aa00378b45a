"""`circuits explain` from one command: it scans first where nothing was scanned."""

from __future__ import annotations

from pathlib import Path

import pytest

import sae
from circuits import load
from circuits.dataset import scan
from sae.data.vision_site import VisionSite
from tests.apps.terminal import Cli, is_refused


def test_a_latent_is_scanned_and_explained_by_one_command(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = VisionSite(load("scenes", device="cpu"), "mixed4a")
    run = sae.train(site.stream("scenes:13", batch_size=256), sae.TopK(latents=64, k=6), steps=5, lr=3e-3)[0]
    sae.save(tmp_path / "parts", run)
    best = int(run.sae.encode(sae.collect(site, "scenes:13").vectors).amax(dim=0).argmax())
    asked = ("explain", f"scenes/mixed4a~parts:{best}", "--sae", tmp_path / "parts", "--store", tmp_path / "store")
    ran = cli(*asked, "--images", "scenes:26@1", "--sections", "steering", "--out", tmp_path / "page", "--json")
    assert ran.code == 0, ran.err
    assert {"responses", "inputs", "outputs", "geometry", "steering"} <= set(ran.json["sections"])
    assert ran.json["provenance"]["n_images"] == 26
    page = (tmp_path / "page" / "index.html").read_text("utf-8")
    for title in ("Top activating images", "Incoming weights", "Geometry", "Steering"):
        assert title in page
    monkeypatch.setattr(scan, "visit", lambda *a: pytest.fail("it was scanned again"))
    again = cli(*asked, "--json")
    assert again.code == 0 and again.json["sections"]["responses"] == ran.json["sections"]["responses"], again.err


def test_nothing_is_scanned_for_a_question_without_an_answer(cli: Cli, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store", "--images", "scenes:2")
    for arguments, said in (
        (("scenes/mixed4a",), "is a layer"),
        (("scenes/mixed4a:99",), "48 channels"),
        (("scenes/mixed4a:11", "--sections", "moods"), "no section 'moods'"),
        (("scenes/mixed4a~none:1",), "none"),
    ):
        assert is_refused(ran := cli("explain", *arguments, *store)) and said in ran.err, ran.err
    assert not (tmp_path / "store").exists()
