"""Outlines in COCO's form: masks are those worked by hand, and what does not fit together is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zoo.errors import ImageError
from zoo.images.coco import open_annotated, polygon_mask, run_length_mask

SIZE = (6, 8)
PIXELS = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 1, 0],
        [0, 1, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 1],
    ],
    dtype=bool,
)


def counts_of(mask: np.ndarray[Any, Any]) -> list[int]:
    """Run lengths down the columns, outside first."""
    runs, inside = [0], False
    for pixel in mask.T.ravel():
        if pixel != inside:
            runs.append(0)
            inside = bool(pixel)
        runs[-1] += 1
    return runs


def packed(counts: list[int]) -> str:
    """`rleToString` of COCO's maskApi.c."""
    text = ""
    for i, count in enumerate(counts):
        x, more = count - counts[i - 2] if i > 2 else count, True
        while more:
            digit = x & 31
            x >>= 5
            more = x != -1 if digit & 16 else x != 0
            text += chr((digit | 32 if more else digit) + 48)
    return text


def test_run_lengths_go_down_the_columns() -> None:
    counts = counts_of(PIXELS)
    assert counts[:6] == [5, 1, 1, 3, 3, 1]
    for form in (counts, packed(counts)):
        assert (run_length_mask({"size": list(SIZE), "counts": form}, SIZE) == PIXELS).all()


def test_packed_run_lengths_hold_long_and_falling_runs() -> None:
    mask = np.zeros((120, 90), dtype=bool)
    mask[3:117, 2:80] = True
    mask[50:52] = False
    mask[:, 40] = np.arange(120) % 3 == 0
    assert (run_length_mask({"size": [120, 90], "counts": packed(counts_of(mask))}, (120, 90)) == mask).all()


def test_a_polygon_holds_the_pixels_whose_centers_it_encloses() -> None:
    triangle = [0.0, 0.0, 4.0, 0.0, 0.0, 4.0]  # x + y < 4: centers .5 + .5 ... on the hypotenuse excepted
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    inside = polygon_mask([[v - 1e-6 if v == 4.0 else v for v in triangle]], (4, 4))
    assert inside.astype(int).tolist() == expected
    beside = polygon_mask([[-2, -2, 3, -2, 3, 2, -2, 2], [6, 4, 20, 4, 20, 9, 6, 9]], SIZE)
    expected_pixels = np.zeros(SIZE, dtype=bool)
    expected_pixels[:2, :3] = expected_pixels[4:, 6:] = True
    assert (beside == expected_pixels).all(), "what lies outside of the image is cut off, and polygons add up"


def test_polygons_agree_with_pillow_up_to_their_outline() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(8, 28, 9)
        corners = np.stack([32 + radii * np.cos(angles), 32 + radii * np.sin(angles)], axis=1)
        mask = polygon_mask([corners.ravel().tolist()], (64, 64))
        # 16 times as fine, with the outline that Pillow draws around it a sixteenth of a pixel wide
        fine = Image.new("1", (1024, 1024))
        ImageDraw.Draw(fine).polygon([tuple(c) for c in corners * 16], fill=1)
        share = np.asarray(fine, dtype=float).reshape(64, 16, 64, 16).mean(axis=(1, 3))
        assert mask[share > 0.999].all() and not mask[share < 0.001].any()
        assert abs(mask.sum() - share.sum()) < 12


def folder(path: Path, **changes: Any) -> tuple[Path, Path]:
    """Two images of 8 x 6 pixels with a wheel and two lamps, and the COCO file of them, some entries replaced."""
    images = path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 6)).save(images / name)
    document = {
        "images": [{"id": i, "file_name": n, "width": 8, "height": 6} for i, n in ((7, "a.png"), (9, "b.png"))],
        "categories": [{"id": 1, "name": "wheel"}, {"id": 2, "name": "left_lamp"}, {"id": 3, "name": "right_lamp"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
            {"id": 2, "image_id": 7, "category_id": 2, "segmentation": [[4, 0, 6, 0, 6, 2, 4, 2]]},
            {"id": 3, "image_id": 7, "category_id": 3, "segmentation": {"size": [6, 8], "counts": [42, 6]}},
        ],
    }
    file = path / "annotations.json"
    file.write_text(json.dumps({**document, **changes}))
    return images, file


def test_categories_are_parts_and_groups_put_them_together(tmp_path: Path) -> None:
    images, file = folder(tmp_path)
    plain = open_annotated(images, file)
    assert plain.ids == ["a.png", "b.png"] and plain.annotations is not None
    assert [(p.name, p.box) for p in plain.annotations[0].parts] == [
        ("wheel", (0, 0, 2, 2)), ("left_lamp", (4, 0, 6, 2)), ("right_lamp", (7, 0, 8, 6)),
    ]  # fmt: skip
    assert plain.annotations[1].parts == (), "an image without annotations shows no part"
    grouped = open_annotated(images, file, groups={"lamp": ["left_lamp", "right_lamp"], "light": ["left_lamp"]})
    assert grouped.annotations is not None
    assert [p.name for p in grouped.annotations[0].parts] == ["wheel", "lamp", "light", "lamp"]


WHEEL = {"id": 5, "image_id": 7, "category_id": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": []}, "has no annotations"),
        ({"categories": "none"}, "is no COCO file"),
        (
            {"images": [{"id": 7, "width": 8, "height": 6}]},
            "is no COCO file: Object missing required field `file_name`",
        ),
        (
            {"images": [{"id": 7, "file_name": "a.png", "width": 8, "height": 6}]},
            "is 1 image that .* does not list.*b.png",
        ),
        (
            {"images": [{"id": i, "file_name": f"{n}.png", "width": 8, "height": 6} for i, n in enumerate("abc")]},
            "is 1 image listed in .* and not in images: c.png",
        ),
        (
            {"annotations": [{**WHEEL, "image_id": 8, "segmentation": [[0, 0, 1, 0, 1, 1]]}]},
            "5 is of no image listed: 8",
        ),
        ({"annotations": [{**WHEEL, "category_id": 8, "segmentation": [[0, 0, 1, 0, 1, 1]]}]}, "of no category listed"),
        ({"annotations": [WHEEL]}, "annotation 5 .wheel in a.png. has no segmentation"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    images, file = folder(tmp_path, **changes)
    with pytest.raises(ImageError, match=message) as caught:
        open_annotated(images, file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 1, 1, 1, 1]], "enclose nothing"),
        ([[1, 1, 4, 4]], "three pairs of numbers"),
        ([[1, 1, 4, 4, "x", 2]], "three pairs of numbers"),
        ({"size": [6, 8], "counts": [48]}, "cover no pixel"),
        ({"size": [6, 8], "counts": [40, 4]}, "not those of 6 x 8 pixels"),
        ({"size": [6, 8], "counts": [50, -2]}, "not those of 6 x 8 pixels"),
        ({"size": [8, 6], "counts": [40, 8]}, r"an image of \[8, 6\], not \[6, 8\]"),
        ({"size": [6, 8], "counts": "o"}, "cut off"),
        ({"size": [6, 8], "counts": "\u00e9"}, "no packed string"),
        (7, "a list of polygons or run lengths"),
    ],
)
def test_masks_that_are_none_are_refused_where_they_are_used(tmp_path: Path, segmentation: Any, message: str) -> None:
    images, file = folder(tmp_path, annotations=[{**WHEEL, "segmentation": segmentation}])
    annotations = open_annotated(images, file).annotations
    assert annotations is not None
    with pytest.raises(ImageError, match=f"annotation 5 .wheel in a.png.: .*{message}"):
        _ = annotations[0].parts[0].mask


def test_other_files_and_unknown_categories_are_refused(tmp_path: Path) -> None:
    images, file = folder(tmp_path)
    with pytest.raises(ImageError, match="group 'lamp': .* has no category 'left_lam'. Nearest: left_lamp"):
        open_annotated(images, file, groups={"lamp": ["left_lam"]})
    with pytest.raises(ImageError, match="cannot read .*: No such file"):
        open_annotated(images, tmp_path / "none.json")
    file.write_text("{not JSON")
    with pytest.raises(ImageError, match="is no JSON"):
        open_annotated(images, file)
    file.write_text("[]")
    with pytest.raises(ImageError, match="is no COCO file"):
        open_annotated(images, file)
