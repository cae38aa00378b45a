"""`circuits label`: labels are kept with the scan, and units bear them wherever they appear."""

from __future__ import annotations

from pathlib import Path

import pytest

import circuits
from apps.explorer.session.labels import PARTS_AUTHOR, Label, Labels
from circuits.dataset.labels.results import FILE
from circuits.dataset.scan_store import folder_of
from tests.apps.terminal import Cli, is_refused

WHEEL = "scenes/mixed3b:39"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "store"
    labels = circuits.label(circuits.load("scenes"), "scenes:130", layers=["mixed3b"], draws=50)
    labels.save(path)
    return path


def test_labels_are_made_and_kept(cli: Cli, tmp_path: Path) -> None:
    arguments = ("label", "scenes", "--images", "scenes:60", "--layers", "mixed3b", "--store", tmp_path)
    ran = cli(*arguments, "--json")
    assert ran.code == 0, ran.err
    best = ran.json["best"]["wheel"]["mixed3b"]
    assert best["units"][0]["unit"] == WHEEL and ran.json["names"][WHEEL] == "wheel"
    assert set(best["controls"]) == {"random directions", "untrained network", "shuffled masks"}
    assert all(c["auc"] < best["units"][0]["low"] for c in best["controls"].values())
    assert (folder_of(tmp_path, "scenes") / FILE).is_file()
    shown = cli(*arguments)
    assert "units named; 60 images" in shown.out and "crown: not judged" in shown.out, shown.out


def test_units_are_listed_by_part(cli: Cli, store: Path) -> None:
    ran = cli("find", "scenes", "--part", "wheel", "--store", store, "--top", "2", "--json")
    assert [row["unit"] for row in ran.json["rows"]][0] == WHEEL and len(ran.json["rows"]) == 2
    shown = cli("find", "scenes", "--part", "wheel", "--store", store)
    assert shown.code == 0 and "best control" in shown.out and f"circuits trace {WHEEL}" in shown.out
    for arguments, what in (
        (("--part", "weel"), "no part 'weel' is labeled. Nearest: wheel"),
        (("--part", "wheel", "--layers", "mixed4a"), "mixed4a has no part labels"),
        (("--part", "wheel", "--images", "scenes:20"), "leave images and --concept out"),
    ):
        assert is_refused(ran := cli("find", "scenes", *arguments, "--store", store)) and what in ran.err, ran.err
    assert is_refused(ran := cli("find", "scenes", "--part", "wheel", "--store", store / "none"))
    assert "Make some: circuits label scenes" in ran.err


def test_a_traced_circuit_bears_the_labels(cli: Cli, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "car"
    ran = cli(
        "trace", "scenes/mixed4a:11", "--images", "scenes:26", "--no-score", "--store", store, "--json", "--out", out
    )
    assert {n["unit"]: n.get("label") for n in ran.json["nodes"]}[WHEEL] == "wheel"
    assert "wheel (mixed3b:39)" in (out / "index.html").read_text("utf-8")
    none = cli("trace", "scenes/mixed4a:11", "--images", "scenes:26", "--no-score", "--store", tmp_path)
    assert is_refused(none) and "holds no part labels of scenes" in none.err


def test_the_dossier_has_a_section_and_other_weights_are_named_in_it(cli: Cli, store: Path, tmp_path: Path) -> None:
    images = ("--images", "scenes:26", "--store", store)
    assert cli("scan", "scenes", *images, "--layers", "mixed3b", "--top", "9", "--samples", "64").code == 0
    out = tmp_path / "wheel"
    ran = cli("explain", WHEEL, "--store", store, "--out", out, "--json")
    section = ran.json["sections"]["parts"]
    assert section["name"] == "wheel" and section["rows"][0]["part"] == "wheel" and section["rows"][0]["above_controls"]
    page = (out / "index.html").read_text("utf-8")
    assert "It detects wheel:" in page and "best control" in page
    path = folder_of(store, "scenes") / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    try:
        damaged = cli("explain", WHEEL, "--store", store, "--json").json["sections"]["parts"]
    finally:
        path.write_bytes(whole)
    assert "is damaged" in damaged["nothing"]


def test_the_explorer_names_units_after_parts_unless_somebody_wrote_a_label(store: Path) -> None:
    labels = Labels(store)
    assert labels.names("scenes")[WHEEL] == "wheel"
    (judged,) = labels.of(WHEEL)
    assert judged.author == PARTS_AUTHOR and "for wheel, by masks" in judged.evidence and judged.checked() == judged
    assert [x.unit for x in labels.all("scenes") if "wheel" in x.name] == [WHEEL]
    labels.save(Label(WHEEL, "ann", "tire"))
    assert labels.names("scenes")[WHEEL] == "tire"
    assert [x.name for x in labels.of(WHEEL)] == ["tire", "wheel"]
    assert [x["name"] for x in labels.describe("scenes")["labels"]] == ["tire"], "only what people wrote is exported"


def test_bad_options_are_refused(cli: Cli, tmp_path: Path) -> None:
    for arguments, what in (
        (("--group", "glass"), "write NAME=CATEGORY,CATEGORY"),
        (("--group", "a=b", "--group", "a=c"), "--group a is given twice"),
        (("--group", "a=b"), "groups= puts categories of a COCO file together"),
        (("--top", "0"), "--top is at least 1"),
        (("--annotations", tmp_path / "none.json"), "cannot read"),
        (("--annotations", "x.json", "--limit", "3"), "--limit would leave images"),
    ):
        ran = cli("label", "scenes", "--images", "scenes:26", *arguments, "--store", tmp_path)
        assert is_refused(ran) and what in ran.err, ran.err
