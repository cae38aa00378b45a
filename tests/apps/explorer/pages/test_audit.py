"""The page Audit: suspects beside controls, removal on held-out images, and what is damaged or of something else."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import circuits
from apps.explorer.panes.audit import without
from apps.explorer.resources.audit import networks
from circuits.dataset.audit.audit import INDEX
from circuits.dataset.audit.removal import RESULT
from tests.apps.explorer.conftest import Open, settled, texts
from tests.apps.explorer.pages.test_python import elements, run_code

GROUP = "<b>tag</b>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished audit of two classes of the built-in model; the name of a group is hostile."""
    out = tmp_path_factory.mktemp("audit") / "small"
    model, images = circuits.load("scenes"), "scenes:130@7"
    groups = [GROUP if i % 2 else "none" for i in range(130)]
    result = circuits.audit(
        model,
        images,
        classes=["car", "cat"],
        layers=["mixed4b"],
        groups=groups,
        top=2,
        random=4,
        steps=1,
        describe=1,
        store=out,
    )
    result.save(out / RESULT)
    return out


@pytest.fixture
def audited(made_store: Path, folder: Path, settings: Callable[..., None], opened: Open) -> Open:
    settings(made_store, audits=[["small", str(folder)]])
    return opened


def test_the_suspects_stand_beside_their_controls_and_a_click_selects_one(audited: Open, folder: Path) -> None:
    at, audit = audited("audit"), circuits.Audit.load(folder / RESULT)
    tiles = next(data["tiles"] for data in elements(at) if "suspects" in data.get("label", ""))
    assert [tile["note"].split(", ")[0] for tile in tiles] == [s.unit.partition("/")[2] for s in audit.suspects]
    assert all(tile["src"].startswith("data:image/jpeg") for tile in tiles) and tiles[0]["mark"] == "here"
    first, last = audit.suspects[0], audit.suspects[-1]
    assert f"{first.class_name}: {first.unit.partition('/')[2]}" in texts(at).replace("\\", "")
    at.query_params["suspect"] = tiles[-1]["pick"]
    settled(at.run())
    assert last.reason[1:] in texts(at).replace("\\", "")
    chart = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    assert chart[1]["x"] == [pytest.approx(100 * last.removal.change.value)] and len(chart[0]["y"]) == 4
    at.query_params["panel"] = "classes"
    at.run()
    assert {GROUP, "none"} == set(at.dataframe[1].value["group"]) and not at.exception


def test_removal_is_measured_after_a_click_and_is_that_of_the_python(audited: Open, folder: Path) -> None:
    audit = circuits.Audit.load(folder / RESULT)
    unit = audit.suspects[0].unit.partition("/")[2]
    at = audited("audit", panel="without", remove=f"{unit}@1")
    assert not at.metric
    at.slider(key=f"share-{unit}").set_value(0.5).run()
    assert at.query_params["remove"] == f"{unit}@0.5"
    at.button(key="measure").click().run()
    settled(at)
    scope = run_code(at)
    after = scope["after"]
    assert at.metric[0].label == "Right" and at.metric[0].value == f"{100 * after.edited_top1:.1f} %"
    worst = min(after.by_group, key=lambda row: row["edited"])
    assert at.metric[1].value == f"{100 * worst['edited']:.1f} %"
    assert f"{8} samples change the share" in texts(at)
    heatmap = json.loads(at.get("plotly_chart")[2].proto.spec)["data"][0]
    assert heatmap["text"] == after.confusion(edited=True).astype(str).tolist()
    assert GROUP in set(at.dataframe[0].value[""])


@pytest.mark.slow
def test_the_network_that_is_saved_answers_as_was_measured(audited: Open, folder: Path) -> None:
    unit = circuits.Audit.load(folder / RESULT).suspects[0].unit.partition("/")[2]
    text = f"{unit}@0.5"
    at = audited("audit", panel="without", remove=text, measured=text)
    scope = run_code(at)
    at.button(key="write-network").click().run()
    settled(at)
    assert "about.json" in texts(at).replace("\\", "") and not at.error
    (path,) = Path(networks._folder().name).glob("*/network.zip")
    with zipfile.ZipFile(path) as archive:
        network = torch.export.load(io.BytesIO(archive.read("edited.pt2"))).module()
    model, audited = scope["model"], scope["audited"]
    x = model.input.normalize(audited.held_out.tensor(model.input))
    assert network(x).argmax(1).tolist() == scope["after"].edited.tolist()


def test_what_cannot_be_shown_is_one_line_and_the_rest_works(
    made_store: Path, folder: Path, tmp_path: Path, settings: Callable[..., None], opened: Open
) -> None:
    for name in ("damaged", "foreign", "elsewhere"):
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "damaged" / RESULT).write_bytes(b"\x80nothing")
    circuits.accuracy(circuits.load("scenes"), "scenes:4").save(tmp_path / "foreign" / RESULT)
    document = json.loads((folder / INDEX).read_text())
    document["origin"]["sources"] = [str(tmp_path / "gone")]
    (tmp_path / "elsewhere" / INDEX).write_text(json.dumps(document))
    (tmp_path / "empty").mkdir()
    names = ("small", "damaged", "foreign", "elsewhere", "empty")
    settings(made_store, audits=[[n, str(folder if n == "small" else tmp_path / n)] for n in names])
    wrong = {
        "damaged": "is damaged",
        "foreign": "holds a Accuracy",
        "empty": "holds no audit",
        "nowhere": "no audit of",
    }
    at = opened("audit", audit="elsewhere")
    assert "Without its images" in at.info[0].value and not at.error
    for name, words in wrong.items():
        at.query_params["audit"] = name
        settled(at.run())
        assert words in at.error[0].value.replace("\\", "") and len(at.error) == 1 and not at.exception, name
    at.query_params["audit"], at.query_params["panel"] = "small", "without"
    for bad in ("mixed4b:0@2", "x@1", "mixed4b"):
        at.query_params["remove"] = bad
        settled(at.run())
        assert "are suspects with a share from 0 to 1" in at.error[0].value.replace("\\", "")
    at.query_params["suspect"] = "x"
    assert "has no suspect" in at.run().error[0].value
    settings(made_store)
    at = opened("audit")
    assert any("circuits audit scenes" in block.value for block in at.code) and not at.error


def test_audits_in_the_store_are_found(folder: Path, store: Path, settings: Callable[..., None], opened: Open) -> None:
    shutil.copytree(folder, store / "scenes" / "audits" / "mine")
    settings(store)
    assert "2 classes of scenes looked at" in texts(opened("audit", audit="mine")).replace("\\", "")


def test_shares_are_written_as_they_are_read() -> None:
    audit: Any = type("Audit", (), {"suspects": [type("S", (), {"unit": "m/a:1"})()], "claimed": []})()
    assert (
        without.format_removed({"a:1": 0.35, "b:2": 1.0}) == "a:1@0.35,b:2@1" and without.format_removed({}) == "none"
    )
    assert without.removed(audit, audit.suspects[0]) == {"a:1": 1.0}
