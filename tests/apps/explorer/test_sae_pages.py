"""The pages of sparse autoencoders, of steering and of language models, run without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import circuits
import sae
from apps.explorer import dictionaries
from sae.formats.native import write_density
from sae.vision import VisionSite
from tests.apps.explorer.conftest import Open, texts

LAYER, LATENTS = "mixed3b", 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SAE of the built-in model, with its reports and densities, as `circuits sae train` leaves one."""
    folder = tmp_path_factory.mktemp("sae") / "parts"
    site = VisionSite(circuits.load("scenes"), LAYER)
    stream = site.stream("scenes:40", batch_size=256)
    run = sae.train(stream, sae.TopK(latents=LATENTS, k=4), steps=30, lr=3e-3)[0]
    sae.save(folder, run)
    density = torch.full((LATENTS,), 0.01)
    density[:7] = 0
    write_density(folder, density)
    report = {"step": 30, "fvu": 0.25, "l0": 4.0, "dead": 7 / LATENTS}
    (folder / "reports.jsonl").write_text(json.dumps(report) + '\n{"half', encoding="utf-8")
    return folder


@pytest.fixture
def with_sae(opened: Open, settings: Callable[..., None], made_store: Path, folder: Path) -> Iterator[Open]:
    """Opens pages of a server that was given the SAE."""
    settings(made_store, sae=str(folder))
    yield opened


def said(at: AppTest) -> str:
    """All that stands on a page, without the marks that keep text from being Markdown."""
    return texts(at).replace("\\", "")


def test_without_an_sae_the_page_says_which_command_trains_one(opened: Open) -> None:
    at = opened("sae", unit="scenes/mixed4a:11")
    assert not at.error and not at.exception
    assert "circuits sae train scenes/mixed4a" in said(at)


def test_what_the_files_say_of_an_sae_is_told(with_sae: Open, folder: Path) -> None:
    at = with_sae("sae")
    assert not at.error and not at.exception
    row = at.dataframe[0].value.iloc[0]
    assert (row["layer"], row["architecture"], row["latents"], row["k"]) == (LAYER, "topk", LATENTS, 4)
    assert (row["FVU"], row["L0"], row["dead"]) == (0.25, 4.0, 7), "of the last whole line of the reports"
    assert f"7 of {LATENTS} latents fired on no input" in said(at)
    assert f"circuits sae features {folder}" in said(at), "latents that were not scanned"


def test_scanned_latents_are_shown_and_lead_to_their_units(with_sae: Open, folder: Path) -> None:
    model = circuits.load("scenes")
    sae.vision.attach_folder(model, folder)
    space = f"{LAYER}~parts"
    circuits.scan(model, "scenes:20", folder / "scan", layers=[space])
    try:
        at = with_sae("sae", sort="often")
        assert not at.error and not at.exception
        layer = circuits.read_scan(folder / "scan", "scenes").layer(space)
        assert f"{int((layer.fires_on > 0).sum())} of {LATENTS} latents fire on 20 pictures" in said(at)
        most = int(np.argmax(layer.density))
        assert f"scenes/{space}:{most}" in said(at) and "data:image/jpeg" in said(at)
    finally:
        import shutil

        shutil.rmtree(folder / "scan")


def test_a_channel_is_taken_apart_into_latents(with_sae: Open) -> None:
    at = with_sae("sae", section="channel", channel=46)
    assert not at.error and not at.exception
    table = at.dataframe[1].value
    assert all(one.startswith(f"scenes/{LAYER}~parts:") for one in table["latent"])
    shares = table["share of the response"].tolist()
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("channel", ["48", "-1", "<script>", "9" * 30])
def test_a_channel_that_is_not_there_is_one_line(with_sae: Open, channel: str) -> None:
    at = with_sae("sae", section="channel", channel=channel)
    assert len(at.error) == 1 and not at.exception


def test_damaged_reports_and_densities_leave_the_sae_readable(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "parts")
    for name in (dictionaries.REPORTS, dictionaries.DENSITIES):
        (tmp_path / "parts" / name).write_bytes(b"\xff\x00 no such thing")
    found = dictionaries.given(tmp_path / "parts")
    assert found is not None and found.report == {} and found.densities is None
    assert found.row()["latents"] == LATENTS
