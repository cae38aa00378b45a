"""The page of sparse autoencoders, run without a browser: one, several, those of other models and damaged ones."""

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
from apps.explorer.resources import saes as dictionaries
from sae.data.attach import attach_folder
from sae.data.vision_site import VisionSite
from sae.formats.saelens import write_density
from tests.apps.explorer.conftest import Open, texts
from tests.apps.explorer.pages.test_pages import check_names

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
    settings(made_store, saes=[["parts", str(folder)]])
    yield opened


def text_of(at: AppTest) -> str:
    """All that stands on a page, without the marks that keep text from being Markdown."""
    return texts(at).replace("\\", "")


def test_without_an_sae_the_page_says_which_command_trains_one(opened: Open) -> None:
    at = opened("sae", unit="scenes/mixed4a:11")
    assert not at.error and not at.exception
    assert "circuits sae train scenes/mixed4a" in text_of(at)


def test_the_metrics_of_an_sae_are_shown(with_sae: Open, folder: Path) -> None:
    at = with_sae("sae")
    assert not at.error and not at.exception
    row = at.dataframe[0].value.iloc[0]
    assert (row["layer"], row["architecture"], row["latents"], row["k"]) == (LAYER, "topk", LATENTS, 4)
    assert (row["FVU"], row["L0"], row["dead"]) == (0.25, 4.0, 7), "of the last whole line of the reports"
    assert f"7 of {LATENTS} latents were active on no input" in text_of(at)
    assert f"circuits sae features {folder}" in text_of(at), "latents that were not scanned"
    check_names(at.code[0].value)


def test_scanned_latents_are_shown_and_lead_to_their_units(with_sae: Open, folder: Path) -> None:
    model = circuits.load("scenes")
    attach_folder(model, folder)
    space = f"{LAYER}~parts"
    circuits.scan(model, "scenes:20", folder / "scan", layers=[space])
    try:
        at = with_sae("sae", sort="dense")
        assert not at.error and not at.exception
        layer = circuits.read_scan(folder / "scan", "scenes").layer(space)
        assert f"{int((layer.active_images > 0).sum())} of {LATENTS} latents are active on 20 images" in text_of(at)
        most = int(np.argmax(layer.density))
        assert f"scenes/{space}:{most}" in text_of(at) and "data:image/jpeg" in text_of(at)
    finally:
        import shutil

        shutil.rmtree(folder / "scan")


def test_a_channel_is_taken_apart_into_latents(with_sae: Open) -> None:
    at = with_sae("sae", section="channel", channel=46)
    assert not at.error and not at.exception
    table = at.dataframe[1].value
    assert all(entry.startswith(f"scenes/{LAYER}~parts:") for entry in table["latent"])
    shares = table["share of the response"].tolist()
    assert shares == sorted(shares, reverse=True)


def test_a_scan_that_calls_latents_by_their_folder_is_found_under_another_name(
    opened: Open, settings: Callable[..., None], made_store: Path, folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "parts")
    model = circuits.load("scenes")
    attach_folder(model, tmp_path / "parts")
    circuits.scan(model, "scenes:12", tmp_path / "parts" / "scan", layers=[f"{LAYER}~parts"])
    settings(made_store, saes=[["mine", str(tmp_path / "parts")]])
    assert "latents are active on 12 images" in text_of(opened("sae"))
    for section in ("weights", "similar"):
        at = opened("unit", unit=f"scenes/{LAYER}~mine:3", section=section)
        assert not at.error and not at.exception, at.error
        assert "of 12 images" in text_of(at) and "branch" not in text_of(at)
        if section == "weights":
            rows = [json.loads(e.proto.json) for e in at.get("bidi_component") if "kernel" in e.proto.json]
            assert any(row["src"] for entry in rows for row in entry.get("rows", [])), "thumbnails of its inputs"


@pytest.mark.parametrize("channel", ["48", "-1", "<script>", "9" * 30])
def test_a_channel_that_is_not_there_is_one_line(with_sae: Open, channel: str) -> None:
    at = with_sae("sae", section="channel", channel=channel)
    assert len(at.error) == 1 and not at.exception


def test_damaged_reports_and_densities_leave_the_sae_readable(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "parts")
    for name in (dictionaries.REPORTS, dictionaries.DENSITIES):
        (tmp_path / "parts" / name).write_bytes(b"\xff\x00 no such thing")
    opened_sae = dictionaries.open_sae("parts", tmp_path / "parts")
    assert opened_sae.report == {} and opened_sae.densities is None
    assert opened_sae.row()["latents"] == LATENTS


def _copy(folder: Path, to: Path, **metadata: object) -> Path:
    """An SAE whose files say something else of where it is from."""
    import shutil

    shutil.copytree(folder, to)
    path = to / "cfg.json"
    config = json.loads(path.read_text())
    metadata_ = config if "weights_digest" in config else config["metadata"]
    metadata_ |= metadata
    path.write_text(json.dumps(config))
    return to


def test_several_saes_stand_in_one_table_and_those_that_do_not_fit_say_why(
    opened: Open, settings: Callable[..., None], made_store: Path, folder: Path, tmp_path: Path
) -> None:
    other = _copy(folder, tmp_path / "other", model="squeezenet-1.1", model_name="squeezenet-1.1")
    weights = _copy(folder, tmp_path / "weights", weights_digest="0" * 64)
    words = _copy(folder, tmp_path / "words", site="language", model="tales")
    (tmp_path / "nothing").mkdir()
    known = {"other": other, "weights": weights, "words": words, "nothing": tmp_path / "nothing", "parts": folder}
    settings(made_store, saes=[[name, str(path)] for name, path in known.items()])
    at = opened("sae", unit="scenes/mixed4a")
    assert not at.error and not at.exception
    rows = {row["SAE"]: row["note"] for row in at.dataframe[0].value.to_dict("records")}
    assert set(rows) == set(known) and rows["parts"] == ""
    assert "squeezenet-1.1" in rows["other"] and "another weights" in rows["weights"]
    assert "language model" in rows["words"] and rows["nothing"]
    assert at.selectbox(key="sae").value == "parts", "the one that reads the open model comes first"
    assert "7 of 96 latents were active" in text_of(at)
    at = opened("sae", sae="other", unit="scenes/mixed4a")
    assert not at.error and not at.exception and "it is of squeezenet-1.1" in text_of(at)


def test_an_sae_that_was_not_given_is_one_line(with_sae: Open) -> None:
    for name in ("../../etc/passwd", "x" * 40_000, "<script>"):
        at = with_sae("sae", sae=name)
        assert len(at.error) == 1 and not at.exception


def test_latents_of_two_saes_of_one_layer_are_both_units(
    opened: Open, settings: Callable[..., None], made_store: Path, folder: Path
) -> None:
    settings(made_store, saes=[["one", str(folder)], ["two", str(folder)]])
    for name in ("one", "two"):
        at = opened("steering", unit=f"scenes/{LAYER}~{name}:5", edits="5:set:1")
        assert not at.error and not at.exception
        assert at.sidebar.selectbox(key="pick_layer").value == f"{LAYER}~{name}"
