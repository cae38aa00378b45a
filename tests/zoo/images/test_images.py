"""Pictures of every kind reach a network as a viewer shows them, in order, or the error names the file."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import ImageError
from zoo.images.decoding import MAX_PIXELS, LazyImage, center_crop
from zoo.images.sources import Images, open_images, reopen
from zoo.inputs import InputSpec

SPEC = InputSpec(size=8)


def picture(width: int = 8, height: int = 8, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def flat(color: tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, color)


def first_pixel(path: Path, spec: InputSpec = SPEC) -> list[int]:
    values = open_images(path).tensor(spec)[0, :, 0, 0] * 255
    return [round(float(v)) for v in values]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, in two folders, among other files."""
    root = tmp_path / "pictures"
    (root / "b").mkdir(parents=True)
    for index, name in enumerate(["c.png", "a.png", "b/2.PNG", "b/1.png", "d.png"]):
        picture(seed=index).save(root / name)
    (root / "notes.txt").write_text("not a picture")
    (root / "manifest.json").write_text('{"somebody": "else"}')
    (root / "._a.png").write_bytes(b"a resource fork")
    return root


def test_a_folder_is_searched_through_in_the_order_of_names(folder: Path) -> None:
    images = open_images(folder)
    assert images.ids == ["a.png", "b/1.png", "b/2.PNG", "c.png", "d.png"]
    assert images.name == "pictures" and images.labels is None and images.annotations is None
    assert np.array_equal(np.asarray(images[3]), np.asarray(picture(seed=0)))


def test_pixels_arrive_unchanged_when_no_resize_is_needed(folder: Path) -> None:
    values = open_images(folder).tensor(SPEC)
    assert values.shape == (5, 3, 8, 8) and values.dtype == torch.float32
    expected = torch.from_numpy(np.asarray(picture(seed=0)).copy()).permute(2, 0, 1) / 255
    assert torch.equal(values[3], expected)


def test_the_center_is_cut_as_torchvision_cuts_it() -> None:
    from torchvision import transforms

    image = picture(256, 341)
    cut = transforms.functional.center_crop(image, [224, 224])
    ours = open_images([image]).tensor(InputSpec(size=224, resize=256))
    assert torch.equal(ours[0], transforms.functional.to_tensor(cut))


@pytest.mark.parametrize("size", [(300, 400), (1000, 333), (40, 50), (17, 900)])
def test_a_resized_picture_is_torchvisions_up_to_subpixel_placement(size: tuple[int, int]) -> None:
    from torchvision import transforms

    y, x = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    smooth = np.stack([x, y, 0.5 + 0.5 * np.sin(6 * x + 4 * y)], axis=-1)
    image = Image.fromarray((smooth / smooth.max() * 255).astype(np.uint8))
    reference = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(56), transforms.ToTensor()])
    ours = open_images([image]).tensor(InputSpec(size=56, resize=64))[0]
    assert float((ours - reference(image)).abs().max()) < 0.03


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (3, 7), (8, 8), (9, 8), (4000, 4001)])
@pytest.mark.parametrize("spec", [SPEC, InputSpec(size=(5, 13)), InputSpec(size=(13, 5), resize=16)])
def test_the_crop_lies_within_the_picture_and_has_the_inputs_shape(height: int, width: int, spec: InputSpec) -> None:
    left, top, right, bottom = center_crop(height, width, spec).box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert (right - left) / (bottom - top) == pytest.approx(spec.hw[1] / spec.hw[0])
    assert left + right == pytest.approx(width, abs=1.01) and top + bottom == pytest.approx(height, abs=1.01)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 3)])
def test_tiny_and_thin_pictures_are_scaled_to_fill_the_input(size: tuple[int, int], tmp_path: Path) -> None:
    flat((200, 100, 50), size=size).save(tmp_path / "thin.png")
    for spec in (SPEC, InputSpec(size=(5, 13), resize=16)):
        values = open_images(tmp_path / "thin.png").tensor(spec)
        assert values.shape == (1, 3, *spec.hw)
        assert torch.allclose(values * 255, torch.tensor([200.0, 100, 50]).view(1, 3, 1, 1).expand_as(values), atol=0.6)


def test_each_color_model_becomes_the_rgb_that_a_viewer_shows(tmp_path: Path) -> None:
    red = flat((255, 0, 0))
    cases = {
        "gray.png": (flat((77,), "L"), [77, 77, 77]),
        "bilevel.png": (flat((1,), "1"), [255, 255, 255]),
        "palette.png": (red.convert("P", palette=Image.Palette.ADAPTIVE), [255, 0, 0]),
        "half.png": (flat((255, 0, 0, 128), "RGBA"), [255, 127, 127]),
        "clear.png": (flat((0, 0, 0, 0), "RGBA"), [255, 255, 255]),
        "gray-alpha.png": (flat((0, 0), "LA"), [255, 255, 255]),
        "cmyk.tif": (flat((0, 255, 255, 0), "CMYK"), [255, 0, 0]),
        "ycc.jpg": (red, [254, 0, 0]),
        "float.tif": (Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), [128, 128, 128]),
        "int.tif": (Image.fromarray(np.full((8, 8), 200 * 257, dtype=np.int32)), [200, 200, 200]),
        "deep.png": (Image.fromarray(np.full((8, 8), 51 * 257, dtype=np.uint16)), [51, 51, 51]),
        "deep.tif": (Image.fromarray(np.full((8, 8), 65535, dtype=np.uint16)), [255, 255, 255]),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        found = first_pixel(tmp_path / name)
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1, (name, found)


def test_a_cmyk_photograph_is_not_inverted(tmp_path: Path) -> None:
    flat((0, 0, 0, 0), "CMYK").save(tmp_path / "white.jpg")
    assert min(first_pixel(tmp_path / "white.jpg")) >= 250


def test_a_palette_with_a_transparent_entry_lies_on_white(tmp_path: Path) -> None:
    image = flat((0,), "P")
    image.putpalette([10, 20, 30] + [0] * 765)
    image.save(tmp_path / "clear.png", transparency=0)
    image.save(tmp_path / "clear.gif", transparency=0)
    for name in ("clear.png", "clear.gif"):
        assert first_pixel(tmp_path / name) == [255, 255, 255]


def test_a_camera_held_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 8), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = open_images(tmp_path / "turned.jpg").pil(0)
    assert upright.size == (8, 16)
    top, bottom = np.asarray(upright)[1, 4], np.asarray(upright)[14, 4]
    assert top[0] > 200 > bottom[0] and bottom[2] > 200 > top[2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow says so
def test_damaged_exif_is_no_reason_to_refuse_a_picture(tmp_path: Path) -> None:
    flat((9, 9, 9)).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert first_pixel(tmp_path / "x.jpg") == [9, 9, 9]


def test_a_model_of_one_channel_sees_gray(tmp_path: Path) -> None:
    flat((255, 0, 0)).save(tmp_path / "red.png")
    values = open_images(tmp_path / "red.png").tensor(InputSpec(size=8, channels=1))
    assert values.shape == (1, 1, 8, 8) and float(values[0, 0, 0, 0]) == pytest.approx(76 / 255)


def test_a_picture_does_not_fit_a_model_of_five_channels() -> None:
    with pytest.raises(ImageError, match=r"takes 5: give a tensor \(N, 5, H, W\)"):
        open_images([picture()]).tensor(InputSpec(size=8, channels=5))


def test_an_animation_shows_its_first_frame(tmp_path: Path) -> None:
    flat((255, 0, 0)).save(tmp_path / "x.gif", save_all=True, append_images=[flat((0, 255, 0))])
    assert first_pixel(tmp_path / "x.gif") == [255, 0, 0]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is `width` by `height`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_600, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int, tmp_path: Path) -> None:
    assert side * side > MAX_PIXELS
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    with pytest.raises(ImageError, match=r"bomb\.png: it is too large"):
        open_images(tmp_path).tensor(SPEC)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "flipped"])
def test_a_damaged_file_is_named(kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture(64, 64).save(buffer, "PNG")
    good = buffer.getvalue()
    content = {"empty": b"", "text": b"<html>", "cut": good[: len(good) // 2], "flipped": good[:60] + b"\0" * 999}[kind]
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(content)
    images = open_images(tmp_path)
    with pytest.raises(ImageError, match=r"cannot use the image .*b\.png: it is") as error:
        images.tensor(SPEC)
    assert "\n" not in str(error.value)
    assert images.tensor(SPEC, [0]).shape[0] == 1


def test_a_cut_jpeg_is_named_and_not_half_gray(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture(64, 64).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ImageError, match=r"cut\.jpg: it is damaged"):
        open_images(tmp_path).tensor(SPEC)


def test_a_file_that_vanishes_is_named(folder: Path) -> None:
    images = open_images(folder)
    (folder / "c.png").unlink()
    with pytest.raises(ImageError, match=r"c\.png: it is not there"):
        images.tensor(SPEC)
    with pytest.raises(ImageError, match=r"cannot read .*c\.png"):
        _ = images.digest


@pytest.mark.parametrize("source", ["nowhere", "", "\0", "x" * 40_000, "../" * 500, "scenes:nowhere/\u202e"])
def test_a_place_without_pictures_is_a_short_error(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError) as error:
        open_images(source)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_an_empty_folder_and_an_empty_list_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image in the folder"):
        open_images(tmp_path)
    for empty in ([], (), torch.empty(0, 3, 4, 4), np.empty((0, 4, 4, 3))):
        with pytest.raises(ImageError):
            open_images(empty)


@pytest.mark.parametrize("source", [5, None, {"a": 1}, [5], [None], [torch.rand(4)], b"bytes"])
def test_what_is_no_picture_is_named(source: object) -> None:
    with pytest.raises(ImageError):
        open_images(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(limit: int, folder: Path) -> None:
    with pytest.raises(ImageError, match="limit"):
        open_images(folder, limit=limit)


def test_a_limit_draws_from_the_seed_and_keeps_the_order(folder: Path) -> None:
    images = open_images(folder)
    chosen = open_images(folder, limit=3, seed=1).ids
    assert chosen == open_images(images, limit=3, seed=1).ids == sorted(chosen) and len(chosen) == 3
    assert len({tuple(open_images(folder, limit=3, seed=s).ids) for s in range(20)}) > 1
    assert open_images(folder, limit=99).ids == images.ids


def test_a_tensor_passes_through_unchanged() -> None:
    values = torch.rand(3, 5, 8, 8)
    images = open_images(values)
    assert torch.equal(images.tensor(InputSpec(size=8, channels=5)), values)
    assert open_images(images) is images
    with pytest.raises(ImageError, match="5 channels"):
        images.tensor(SPEC)
    with pytest.raises(ImageError, match="cannot be shown"):
        images.pil(0)


def test_a_tensor_of_another_size_is_cut_and_resized() -> None:
    values = torch.rand(2, 3, 10, 8)
    assert torch.equal(open_images(values).tensor(SPEC), values[:, :, 1:9])
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    resized = open_images(ramp).tensor(SPEC)
    assert resized.shape == (1, 3, 8, 8) and (resized[0, 0, 0].diff() > 0).all()


def test_bytes_in_a_tensor_are_divided_by_255() -> None:
    values = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(open_images(values).tensor(SPEC), values / 255)


@pytest.mark.parametrize(
    "values",
    [
        torch.rand(1, 3, 4, 4) * 255,
        torch.rand(1, 3, 4, 4) - 1,
        torch.full((1, 3, 4, 4), float("nan")),
        torch.rand(4, 4),
        torch.ones(1, 3, 4, 4, dtype=torch.int64),
        torch.ones(1, 3, 4, 4, dtype=torch.bool),
        torch.ones(1, 3, 4, 4, dtype=torch.complex64),
    ],
    ids=["bytes as floats", "normalized", "nan", "no batch", "int64", "bool", "complex"],
)
def test_a_tensor_that_is_no_batch_of_pictures_is_refused(values: torch.Tensor) -> None:
    with pytest.raises(ImageError):
        open_images(values)


def test_an_image_without_a_batch_is_no_image_but_a_sequence() -> None:
    with pytest.raises(ImageError, match=r"is a sequence of shape \(4, 4\); the model takes an image"):
        open_images(torch.rand(3, 4, 4)).tensor(SPEC)


def test_a_list_may_mix_paths_pictures_arrays_and_tensors(folder: Path) -> None:
    array = np.asarray(picture(seed=0))
    chw = torch.from_numpy(array.copy()).permute(2, 0, 1)
    images = open_images([folder / "c.png", picture(seed=0), array, array / 255.0, chw / 255, chw])
    values = images.tensor(SPEC)
    assert len(set(images.ids)) == 6
    assert torch.allclose(values, values[:1].expand_as(values), atol=1e-6)


def test_batches_are_in_order_and_hold_what_tensor_holds(folder: Path) -> None:
    images = open_images(folder)
    whole = images.tensor(SPEC)
    for workers in (0, 1, 3):
        seen, parts = [], []
        for indices, batch in images.batches(SPEC, batch_size=2, workers=workers, indices=[4, 0, 1, 3, 2]):
            seen.append(indices)
            parts.append(batch)
        assert seen == [[4, 0], [1, 3], [2]]
        assert torch.equal(torch.cat(parts), whole[[4, 0, 1, 3, 2]])
    assert images.tensor(SPEC, []).shape == (0, 3, 8, 8)


def test_progress_is_told(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    for _ in open_images(folder).batches(SPEC, batch_size=2, progress=lambda done, of: told.append((done, of))):
        pass
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert [len(i) for i, _ in open_images(folder).batches(SPEC, batch_size=4, progress=True)] == [4, 1]


class Counting(LazyImage):
    """A picture that counts how often it was decoded."""

    decoded: list[str] = []

    def pixels(self, spec: InputSpec) -> torch.Tensor:
        self.decoded.append(self.id)
        return torch.zeros(spec.shape)


def test_decoding_runs_ahead_but_not_away_and_stops_with_its_reader() -> None:
    Counting.decoded = []
    images = Images([Counting(str(i)) for i in range(100)], "counting")
    reader = images.batches(SPEC, batch_size=5)
    next(reader)
    time.sleep(0.2)
    assert 5 < len(Counting.decoded) <= 15
    reader.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pictures")]


def test_no_thread_is_left_after_an_error(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"a\.png"):
        open_images(folder).tensor(SPEC)
    assert not [t for t in threading.enumerate() if t.name.startswith("pictures")]


def test_a_subset_keeps_what_belongs_to_each() -> None:
    images = Images([Counting(str(i)) for i in range(4)], "x", labels=[3, 1, 2, 0], classes=list("abcd"))
    part = images.subset([2, 0])
    assert part.ids == ["2", "0"] and part.labels == [2, 3] and part.classes == list("abcd")
    assert images[1:3].ids == ["1", "2"]
    with pytest.raises(ImageError, match="there is no image 4"):
        images.subset([4])


def test_the_digest_sees_names_contents_and_order(folder: Path) -> None:
    images = open_images(folder)
    first = images.digest
    assert first == open_images(folder).digest == images.subset(range(5)).digest
    assert images.subset([1, 0, 2, 3, 4]).digest != first != images.subset([0, 1]).digest
    os.rename(folder / "a.png", folder / "aa.png")
    renamed = open_images(folder).digest
    picture(seed=9).save(folder / "aa.png")
    assert len({first, renamed, open_images(folder).digest}) == 3
    one, two = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    two[0, 0, 0, 0] = 1e-7
    assert open_images(one).digest != open_images(two).digest


def test_a_batch_has_at_least_one_picture(folder: Path) -> None:
    with pytest.raises(ImageError, match="batch_size=0 must be"):
        next(open_images(folder).batches(SPEC, batch_size=0))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A tar of three pictures, one of them in a folder, among files that are none."""
    folder = tmp_path / "unpacked"
    (folder / "in").mkdir(parents=True)
    for i, name in enumerate(["b.png", "a.jpg", "in/c.png"]):
        Image.new("RGB", (10, 8), (60 * i, 100, 20)).save(folder / name)
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.png").write_bytes(b"none")
    path = tmp_path / "pictures.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder, ".")
    return path


def test_pictures_of_an_archive_are_those_of_the_folder(archive: Path) -> None:
    packed, plain = open_images(archive), open_images(archive.parent / "unpacked")
    assert packed.ids == plain.ids == ["a.jpg", "b.png", "in/c.png"]
    assert packed.digest == plain.digest
    spec = InputSpec(size=8)
    assert torch.equal(packed.tensor(spec), plain.tensor(spec))
    assert open_images([archive, archive.parent / "unpacked" / "a.jpg"]).ids[0] == f"{archive}/a.jpg"


def test_archives_that_cannot_be_read_are_refused(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "squeezed.tar.gz", "w:gz") as tar:
        tar.add(archive.parent / "unpacked" / "a.jpg", "a.jpg")
    with pytest.raises(ImageError, match="plain .tar"):
        open_images(tmp_path / "squeezed.tar.gz")
    (tmp_path / "no.tar").write_bytes(b"not an archive" * 100)
    with pytest.raises(ImageError, match="cannot read the archive"):
        open_images(tmp_path / "no.tar")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(ImageError, match="no image in the archive"):
        open_images(tmp_path / "empty.tar")
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for _ in range(2):
            tar.add(archive.parent / "unpacked" / "a.jpg", "a.jpg")
    with pytest.raises(ImageError, match="a.jpg.*twice"):
        open_images(tmp_path / "twice.tar")


def test_pictures_can_be_opened_again_from_where_they_lay(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.parent)
    for source in ("unpacked", "pictures.tar", ["pictures.tar", "unpacked"], "scenes:12@3"):
        images = open_images(source, limit=2, seed=5)
        assert images.origin is not None
        origin = json.loads(json.dumps(images.origin))
        monkeypatch.chdir("/")
        again = reopen(origin)
        monkeypatch.chdir(archive.parent)
        assert again.digest == images.digest or isinstance(source, list)
        assert torch.equal(again.tensor(InputSpec(size=8)), images.tensor(InputSpec(size=8)))
    assert open_images(torch.rand(3, 3, 4, 4)).origin is None
    assert open_images("scenes:12@3").subset([1, 2]).origin is None
    assert open_images("scenes:12@3", limit=2).origin != open_images("scenes:12@3").origin
    with pytest.raises(ImageError, match="does not describe where"):
        reopen({"sources": [3], "limit": None, "seed": 0})


def test_pictures_of_a_folder_in_a_list_have_names_of_their_own(archive: Path) -> None:
    folder = archive.parent / "unpacked"
    found = open_images([folder, archive])
    assert len(set(found.ids)) == len(found) == 6


@pytest.mark.parametrize("most", [12, 13, 26, 100, 259, 260, 400])
def test_some_of_many_images_are_spread_over_all_and_over_classes_that_take_turns(most: int) -> None:
    images = open_images("scenes:260")  # 13 classes in turn: every 13th image is of one
    some = images.spread(most)
    assert len(some) == min(most, 260) and len(set(some.ids)) == len(some)
    places = [images.ids.index(one) for one in some.ids]
    assert places == sorted(places) and places[0] < -(-260 // most) and places[-1] >= 260 - -(-260 // most)
    classes = {image.rpartition("/")[0] for image in some.ids} if some.labels is None else set(some.labels)
    assert len(classes) > 6
    assert images.spread(most).ids == some.ids


def test_arrays_of_floats_are_not_rounded_to_bytes() -> None:
    values = np.random.default_rng(0).random((8, 9, 3))
    exact, gray = InputSpec(size=(8, 9)), InputSpec(size=(8, 9), channels=1, mean=(0.5,), std=(0.5,))
    wanted = torch.from_numpy(values.astype(np.float32)).movedim(2, 0)
    for source in (values, values[None], [values]):
        assert torch.equal(open_images(source).tensor(exact)[0], wanted)
    one = open_images(values[:, :, 0])
    assert torch.equal(one.tensor(exact)[0], wanted[:1].expand(3, -1, -1)) and torch.equal(
        one.tensor(gray)[0], wanted[:1]
    )
    of_pillow = np.asarray(Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("L")) / 255
    np.testing.assert_allclose(open_images(values).tensor(gray)[0, 0].numpy(), of_pillow, atol=1.5 / 255)
    clear = open_images(np.concatenate([values, np.full((8, 9, 1), 0.25)], axis=2)).tensor(exact)[0]
    torch.testing.assert_close(clear, 0.25 * wanted + 0.75)
    bytes_ = np.random.default_rng(1).integers(0, 256, (8, 9, 3), dtype=np.uint8)  # the same either way
    both = [open_images(of).tensor(exact) for of in (bytes_, bytes_.astype(np.float32) / np.float32(255))]
    assert torch.equal(*both)
    with pytest.raises(ImageError, match="must lie in .0, 1."):
        open_images(np.full((8, 9, 3), np.nan))
