"""`circuits tune`: tables, pictures and one JSON document; and the search for detectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.apps.terminal import Cli, is_refused, written

FEW = ("--orientations", "8")


def test_tune_says_what_units_prefer(cli: Cli) -> None:
    ran = cli("tune", "scenes/conv2d1", "--stimuli", "lines", *FEW)
    assert ran.code == 0, ran.err
    assert "scenes/conv2d1:" in ran.out and "angle" in ran.out and "24 units, 8 stimuli" in ran.out
    document = cli("tune", "scenes/conv2d1:4", "scenes/conv2d1:7", "--stimuli", "curves", *FEW, "--json").json
    assert [u["unit"] for u in document["units"]] == ["scenes/conv2d1:4", "scenes/conv2d1:7"]
    assert {"peak", "at", "echo", "width", "direction", "concentration"} <= set(document["units"][0])
    assert document["axes"][1]["values"][-1] == "straight" and document["model"] == "scenes"


@pytest.mark.parametrize("stimuli", ["edges", "angles", "circles", "gratings", "high-low", "color-contrast"])
def test_every_kind_of_stimulus_can_be_asked_for(cli: Cli, stimuli: str) -> None:
    ran = cli("tune", "scenes/conv2d0:3", "--stimuli", stimuli, *FEW, "--pre")
    assert ran.code == 0 and "scenes/conv2d0:3" in ran.out, ran.err


def test_tune_fills_a_folder(cli: Cli, tmp_path: Path) -> None:
    ran = cli("tune", "scenes/conv2d1", *FEW, "--top", "2", "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    names = written(tmp_path / "out")
    assert {"tune.json", "radial.png", "orientations.png", "stimuli.png"} < names
    assert len(names) == 6 and len([n for n in names if n.startswith("conv2d1-")]) == 2
    assert json.loads((tmp_path / "out" / "tune.json").read_text("utf-8")) == ran.json
    circles = cli("tune", "scenes/conv2d1", "--stimuli", "circles", "--top", "1", "--out", tmp_path / "round")
    assert circles.code == 0 and not (tmp_path / "round" / "radial.png").exists()


def test_a_search_lists_detectors_beside_chance(cli: Cli, tmp_path: Path) -> None:
    options = ("--search", "line", "--orientations", "12", "--threshold", "0.3", "--out", tmp_path, "--seed", "1")
    ran = cli("tune", "scenes/conv2d0", "scenes/conv2d1", *options)
    assert ran.code == 0, ran.err
    assert "untrained" in ran.out and "with --images" in ran.out
    document = json.loads((tmp_path / "tune.json").read_text("utf-8"))
    assert document["kind"] == "line" and [entry["layer"] for entry in document["layers"]] == ["conv2d0", "conv2d1"]
    for entry in document["layers"]:
        assert entry["detectors"] == sum(d["layer"] == entry["layer"] for d in document["detectors"])
        assert (tmp_path / f"{entry['layer']}.png").exists() == bool(entry["detectors"])
    assert document["detectors"], "the embedded network has line detectors in its stem"
    again = cli("tune", "scenes/conv2d0", "scenes/conv2d1", *options, "--json")
    assert again.json["detectors"] == document["detectors"]


def test_a_search_is_measured_by_pictures_where_they_are_given(cli: Cli) -> None:
    options = (
        "--search",
        "color-contrast",
        "--orientations",
        "8",
        "--control",
        "none",
        "--images",
        "scenes:20",
        "--json",
    )
    document = cli("tune", "scenes/conv2d0", *options).json
    assert document["provenance"]["images"].startswith("scenes") and document["layers"][0]["control_best"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scenes/nowhere"], "no layer"),
        (["mixed3a"], "does not name its model"),
        (["scenes/conv2d1:99"], "24 channels"),
        (["scenes/conv2d1:3@2,2"], "without a position"),
        (["scenes/conv2d1", "scenes/conv2d0"], "one layer"),
        (["scenes/conv2d1", "squeezenet-1.1/fire2"], "one model"),
        (["scenes/conv2d1", "--top", "0"], "--top"),
        (["scenes/conv2d1", "--reach", "-1"], "--reach"),
        (["scenes/conv2d1", "--orientations", "1"], "--orientations"),
        (["scenes/conv2d1", "--images", "scenes:3"], "--search"),
        (["scenes/conv2d1", "--limit", "3"], "--images"),
        (["scenes/conv2d1", "--stimuli", "dots"], "curves"),
        (["scenes/conv2d1:3", "--search", "line"], "whole layers"),
        (["scenes/conv2d1", "--search", "line", "--pre"], "--pre"),
        (["scenes/conv2d1", "--search", "line", "--orientations", "10"], "multiple of 4"),
    ],
)
def test_tune_refuses_what_it_cannot_do_in_one_line(cli: Cli, tmp_path: Path, arguments: list[str], says: str) -> None:
    ran = cli("tune", *arguments, "--out", tmp_path / "out")
    assert is_refused(ran), ran
    assert says in ran.err and not (tmp_path / "out").exists()
