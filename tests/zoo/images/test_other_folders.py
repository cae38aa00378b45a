"""Folders and files as other systems leave them: hidden, linked, of many bits, with names of any bytes."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.common.files import write_text_atomically
from zoo.errors import ImageError
from zoo.images import Images, open_images
from zoo.inputs import InputSpec

SPEC, GRAY = InputSpec(size=8), InputSpec(size=8, channels=1)


def save(path: Path, value: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return path


HIDDEN = [
    "cat/.ipynb_checkpoints/0-checkpoint.png", ".Trash-1000/files/deleted.png", "cat/._0.png", ".DS_Store",
    "__MACOSX/cat/0.png", "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/S-1-5/$R1.png", ".cache/x.jpg",
]  # fmt: skip


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    root = tmp_path / ".datasets" / "pets"  # hidden above the folder that was given
    for i in range(3):
        save(root / f"cat/{i}.png", 40 * i)
    for name in HIDDEN:
        save(root / name) if name != ".DS_Store" else (root / name).write_bytes(b"x")
    return root


def test_hidden_files_and_folders_are_no_images(littered: Path) -> None:
    assert open_images(littered).ids == ["cat/0.png", "cat/1.png", "cat/2.png"]
    assert Images([], "none").ids == []


def test_nor_are_they_in_an_archive(littered: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(littered, ".")
    assert open_images(tmp_path / "pets.tar").ids == ["cat/0.png", "cat/1.png", "cat/2.png"]


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    for name in ("bird", "cat", "dog"):
        for i in range(4):
            save(tmp_path / "all" / name / f"{i}.png")
    subset = tmp_path / "subset"
    save(subset / "bird" / "0.png")
    (subset / "cat").symlink_to(tmp_path / "all" / "cat")
    (subset / "kitten").symlink_to(tmp_path / "all" / "cat")  # the same again, under another name
    cats = [f"cat/{i}.png" for i in range(4)]
    assert open_images(subset).ids == ["bird/0.png", *cats, *[f"kitten/{i}.png" for i in range(4)]]
    shutil.rmtree(subset / "bird")
    assert len(open_images(subset)) == 8


def test_a_link_to_a_folder_above_it_ends(tmp_path: Path) -> None:
    save(tmp_path / "f" / "a" / "0.png")
    save(tmp_path / "f" / "b" / "0.png")
    (tmp_path / "f" / "a" / "up").symlink_to(tmp_path / "f")
    (tmp_path / "f" / "a" / "itself").symlink_to(tmp_path / "f" / "a")
    (tmp_path / "f" / "a" / "b").symlink_to(tmp_path / "f" / "b")
    (tmp_path / "f" / "b" / "a").symlink_to(tmp_path / "f" / "a")
    assert open_images(tmp_path / "f").ids == ["a/0.png", "a/b/0.png", "b/0.png", "b/a/0.png"]


def test_a_wide_gray_is_resized_as_floats_and_so_is_a_tensor(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (11, 13)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    whole, spec = Image.fromarray(np.float32(values / 65535)), InputSpec(size=8, channels=1)
    box = ((13 - 11) / 2, 0, 13 - (13 - 11) / 2, 11)  # the largest square in the center
    right = np.asarray(whole.resize((8, 8), Image.Resampling.BILINEAR, box=box))
    tensor = torch.from_numpy(np.float32(values / 65535))[None, None]
    for source in (tmp_path / "x.png", tensor):
        assert np.array_equal(open_images(source).tensor(spec)[0, 0].numpy(), right)
    eight = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, 11, 12), dtype=np.uint8))
    as_image = open_images(Image.fromarray(eight[0].permute(1, 2, 0).numpy())).tensor(SPEC)
    # cut between pixels as well; Pillow rounds bytes twice, after rows and after columns
    assert float((open_images(eight).tensor(SPEC) - as_image).abs().max()) <= 1.01 / 255


def brightest(path: Path) -> float:
    return float(open_images(path).tensor(SPEC).max())


@pytest.mark.parametrize("top", [200, 255, 256, 4095, 60000, 65535])
def test_a_gray_of_16_bits_is_as_bright_as_its_type_says(top: int, tmp_path: Path) -> None:
    values = np.tile(np.linspace(0, top, 8).astype(np.uint16), (8, 1))
    Image.fromarray(values).save(tmp_path / "x.png")
    Image.fromarray(values).save(tmp_path / "short.tif")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "x.tif")
    (tmp_path / "x.pgm").write_bytes(b"P5\n8 8\n65535\n" + values.astype(">u2").tobytes())
    for name in ("x.png", "short.tif", "x.tif", "x.pgm"):
        images = open_images(tmp_path / name)
        assert np.array_equal(images.tensor(SPEC)[0, 1].numpy(), np.float32(values / 65535)), name
        assert np.array_equal(np.asarray(images.pil(0))[:, :, 0], np.rint(values / 257)), name  # as it is shown
    in_memory = open_images([Image.fromarray(values.astype(np.int32))])
    assert np.array_equal(in_memory.tensor(GRAY)[0, 0].numpy(), np.float32(values / 65535))


@pytest.mark.parametrize("top", [100, 2000, 4095])
def test_a_pgm_of_12_bits_is_as_bright_as_it_says(top: int, tmp_path: Path) -> None:
    values = np.tile(np.linspace(0, top, 8).astype(">u2"), (8, 1))
    (tmp_path / "x.pgm").write_bytes(b"P5\n8 8\n4095\n" + values.tobytes())
    assert brightest(tmp_path / "x.pgm") == pytest.approx(top / 4095, abs=0.51 / 65535)


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """A little-endian TIFF of one strip, 12 bits a pixel, two pixels in three bytes."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = bytes(b for a, c in pairs for b in (a >> 4, (a & 15) << 4 | c >> 8, c & 255))
    height, width = values.shape
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1),
        (278, 4, height), (279, 4, len(packed)),
    ]  # fmt: skip
    out = io.BytesIO(b"II*\0" + (8).to_bytes(4, "little"))
    out.seek(8)
    out.write(len(entries).to_bytes(2, "little"))
    for tag, kind, value in entries:
        for number, size in ((tag, 2), (kind, 2), (1, 4), (value, 4)):
            out.write(number.to_bytes(size, "little"))
    out.write(bytes(4))
    out.write(bytes(200 - out.tell()) + packed)
    return out.getvalue()


def test_a_tiff_of_12_bits_is_as_bright_as_it_says(tmp_path: Path) -> None:
    values = np.tile(np.linspace(0, 2000, 8).astype(np.uint16), (8, 1))
    (tmp_path / "x.tif").write_bytes(tiff_of_12_bits(values))
    assert brightest(tmp_path / "x.tif") == pytest.approx(2000 / 4095, abs=0.51 / 255)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((8, 8), 180.0, np.float32), "span 180 to 180; a gray of float pixels spans 0 to 1"),
        (np.full((8, 8), 70000, np.int32), "span 70000 to 70000; a gray of integer pixels spans 0 to 65535"),
    ],
)
def test_a_gray_whose_range_nobody_declared_is_refused(values: np.ndarray, message: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match=message):
        open_images(tmp_path / "x.tif").tensor(SPEC)


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A folder, and an image in it, whose names a Latin-1 machine wrote."""
    if sys.platform != "linux":
        pytest.skip("names of any bytes are a matter of Linux")
    folder = os.fsencode(tmp_path) + b"/caf\xe9s"
    os.mkdir(folder)
    for name in (b"caf\xe9.png", "grün.png".encode(), b"a.png"):
        shutil.copy(save(tmp_path / "x.png"), folder + b"/" + name)
    return Path(os.fsdecode(folder))


def test_names_that_are_no_utf8_can_be_written_and_read(latin: Path, tmp_path: Path) -> None:
    images = open_images(latin)
    assert images.ids == ["a.png", r"caf\xe9.png", "grün.png"] and images.name == r"caf\xe9s"
    assert images.tensor(SPEC).shape == (3, 3, 8, 8) and len(images.digest) == 64
    assert open_images(sorted(str(p) for p in latin.iterdir())).ids[1].endswith(r"caf\xe9s/caf\xe9.png")
    document = json.dumps({"ids": images.ids, "origin": images.origin}, ensure_ascii=False)
    write_text_atomically(tmp_path / "x.json", document)
    read = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert read["ids"] == images.ids and open_images(read["origin"]["sources"][0]).ids == images.ids
