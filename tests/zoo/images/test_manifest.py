"""Drawn scenes can be opened by name or written to a folder, and are the same pictures either way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.errors import ImageError
from zoo.images import manifest
from zoo.images.manifest import export_scenes
from zoo.images.sources import open_images
from zoo.inputs import InputSpec


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "scenes"
    export_scenes(15, folder, seed=3)
    return folder


def test_a_written_folder_holds_the_pictures_that_the_name_gives(exported: Path) -> None:
    drawn, written = open_images("scenes:15@3"), open_images(exported)
    spec = InputSpec(size=drawn.pil(0).size[0])
    assert torch.equal(drawn.tensor(spec), written.tensor(spec))
    assert drawn.labels == written.labels and drawn.classes == written.classes
    assert drawn.annotations is not None and written.annotations is not None
    for a, b in zip(drawn.annotations, written.annotations, strict=True):
        assert (a.label, a.arrangement) == (b.label, b.arrangement)
        assert [(p.name, p.box) for p in a.parts] == [(p.name, p.box) for p in b.parts]
    assert open_images(exported / "manifest.json").ids == written.ids


def test_masks_lie_in_their_boxes() -> None:
    annotations = open_images("scenes:15@3").annotations
    assert annotations is not None
    parts = [part for annotation in annotations for part in annotation.parts]
    assert parts
    for part in parts:
        assert part.mask is not None and part.mask.any()
        x0, y0, x1, y1 = part.box
        outside = part.mask.copy()
        outside[y0:y1, x0:x1] = False
        assert not outside.any()


def test_the_seed_is_in_the_name() -> None:
    assert open_images("scenes:3").name == open_images("scenes:3@0").name == "scenes:3@0"
    assert open_images("scenes:3").digest == open_images("scenes:3@0").digest != open_images("scenes:3@1").digest
    labels = open_images("scenes:40", limit=10).labels
    assert labels is not None and len(labels) == 10


@pytest.mark.parametrize(
    "source", ["scenes", "scenes:", "scenes:x", "scenes:0", "scenes:-1", "scenes:9999999", "scenes:3@"]
)
def test_a_bad_number_of_scenes_is_an_error(source: str) -> None:
    with pytest.raises(ImageError, match="scenes"):
        open_images(source)


def test_the_manifest_says_what_it_is(exported: Path) -> None:
    described = json.loads((exported / "manifest.json").read_text())
    assert described["schema"] == 1 and described["name"] == "scenes:15@3"
    assert len(described["images"]) == 15 == len(list(exported.glob("*.png")))
    assert {"file", "label", "label_index", "parts", "seed"} <= set(described["images"][0])


def test_writing_twice_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_scenes(4, folder)
    export_scenes(2, folder)
    assert len(list(folder.glob("*.png"))) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_scenes(1, tmp_path / "empty")
    export_scenes(1, tmp_path / "new" / "deep")
    assert len(open_images(tmp_path / "empty")) == len(open_images(tmp_path / "new" / "deep")) == 1


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ImageError, match="other things"):
        export_scenes(1, tmp_path)
    with pytest.raises(ImageError, match="is a file"):
        export_scenes(1, tmp_path / "thesis.txt")
    with pytest.raises(ImageError, match="cannot write"):
        export_scenes(1, tmp_path / "thesis.txt" / "below")
    with pytest.raises(ImageError, match="at least one"):
        export_scenes(0, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_was_added_to_drawn_scenes_is_not_deleted(tmp_path: Path) -> None:
    export_scenes(2, tmp_path / "out")
    (tmp_path / "out" / "mine.png").write_bytes(b"mine")
    with pytest.raises(ImageError, match=r"has other things in it \(mine.png\)"):
        export_scenes(2, tmp_path / "out")
    assert (tmp_path / "out" / "mine.png").read_bytes() == b"mine"


def test_drawing_that_is_killed_while_it_replaces_images_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_scenes(9, out)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(manifest, "move_files", lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt))
        export_scenes(3, out, seed=1)
    with pytest.raises(ImageError, match="stopped before the end"):  # no labels of images that are not there
        open_images(out)
    export_scenes(3, out, seed=1)
    export_scenes(3, tmp_path / "right", seed=1)
    written = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (out, tmp_path / "right")]
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["../thesis.txt", "{folder}/thesis.txt", "..\\thesis.txt"])
def test_a_strangers_manifest_has_nothing_removed_elsewhere(tmp_path: Path, name: str) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("ten years of work")
    path = export_scenes(2, tmp_path / "out")
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"unfinished": [name.format(folder=tmp_path)]}))
    with pytest.raises(ImageError, match="outside its folder"):
        export_scenes(2, tmp_path / "out")
    assert thesis.read_text() == "ten years of work"


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_scenes(2, tmp_path / "out")

    def interrupt(n: int, folder: Path, seed: int) -> None:
        folder.mkdir()
        (folder / "half.png").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "_draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_scenes(5, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        export_scenes(5, tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert len(open_images(tmp_path / "out")) == 2


@pytest.mark.parametrize("file", ["/etc/passwd", "../secret.png", "a/../../secret.png", "C:\\secret.png", "..\\x.png"])
def test_a_manifest_cannot_name_files_outside_its_folder(file: str, exported: Path, tmp_path: Path) -> None:
    described = json.loads((exported / "manifest.json").read_text())
    described["images"][0]["file"] = file
    (tmp_path / "manifest.json").write_text(json.dumps(described))
    with pytest.raises(ImageError, match="outside its folder"):
        open_images(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": None},
        {"images": []},
        {"images": [{}]},
        {"images": [{"file": 5, "label": "car"}]},
        {"images": [{"file": "a.png", "label": "spaceship"}]},
        {"images": [{"file": "a.png", "label": "car", "parts": [{"name": "wheel", "box": [1, 2]}]}]},
        {"images": 5},
        {"classes": 5},
    ],
)
def test_a_damaged_manifest_is_one_clear_line(change: dict[str, object], exported: Path, tmp_path: Path) -> None:
    described = json.loads((exported / "manifest.json").read_text()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(described))
    with pytest.raises(ImageError, match=r"manifest\.json") as error:
        open_images(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, '{"kind": "other"}', "\x00"])
def test_somebody_elses_json_is_no_manifest(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ImageError, match="no image in the folder"):
        open_images(tmp_path)
    with pytest.raises(ImageError, match="not a manifest"):
        open_images(tmp_path / "manifest.json")


def test_pictures_are_readable_by_others_as_usual(exported: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert exported.stat().st_mode & 0o777 == 0o777 & ~umask
    assert np.asarray(open_images(exported).pil(0)).ndim == 3
