"""Images and archives that strangers made: refused before anything is allocated, started or waited for."""

from __future__ import annotations

import io
import os
import resource
import struct
import tarfile
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from zoo.errors import ImageError
from zoo.images.decoding import MAX_COPIED_PIXELS, MAX_PIXELS, decode
from zoo.images.sources import open_images


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_postscript_named_as_a_jpeg_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **_: started.append(given))
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(ImageError, match="no image of the kinds that are read: PNG, JPEG, WEBP"):
        decode(tmp_path / "a.jpg")
    assert not started


def test_jpeg_2000_is_not_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jp2")
    with pytest.raises(ImageError, match="no image of the kinds"):
        decode(tmp_path / "a.jp2")
    (tmp_path / "a.jp2").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: it is damaged, or no image"):
        open_images(tmp_path).pil(0)


def _webp(kind: bytes, width: int, height: int) -> bytes:
    body = {
        b"VP8X": bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(5),
        b"VP8 ": b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height),
    }[kind]
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBP" + kind + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("kind", [b"VP8X", b"VP8L", b"VP8 "])
def test_a_webp_is_refused_by_the_size_in_its_head(kind: bytes) -> None:
    before = peak()
    with pytest.raises(ImageError, match=r"it is too large \(16383x16383; at most 34 million pixels\)"):
        decode(io.BytesIO(_webp(kind, 16383, 16383)))
    assert peak() - before < 64_000  # kilobytes; the canvas alone has a gigabyte


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}])
def test_sound_webps_are_read(options: dict[str, object]) -> None:
    content = io.BytesIO()
    Image.new("RGB", (31, 17), (200, 0, 0)).save(content, "WEBP", **options)
    image = decode(content)
    assert image.size == (31, 17) and abs(image.getpixel((5, 5))[0] - 200) < 4  # type: ignore[index, operator]


def test_a_png_bomb_is_refused() -> None:
    head = struct.pack(">IIBBBBB", 1 << 15, 1 << 15, 8, 2, 0, 0, 0)
    with pytest.raises(ImageError):
        decode(io.BytesIO(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + bytes(4)))
    assert MAX_COPIED_PIXELS < MAX_PIXELS < 1 << 30


def test_pipes_and_devices_among_images_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    images = open_images(tmp_path)
    for index in (0, 1):
        with pytest.raises(ImageError, match="pipe or a device"):
            images.pil(index)
    with pytest.raises(ImageError, match="pipe or a device"):
        _ = images.digest


@pytest.mark.parametrize("size", [-512, 1 << 40, 100_000])
def test_members_of_impossible_sizes_make_a_damaged_archive(size: int, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    member = tarfile.TarInfo("a.png")
    member.size = size
    # not by TarFile.addfile, which would write as many bytes
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + content.getvalue().ljust(1024, b"\0"))
    with pytest.raises(ImageError, match="damaged|cannot read|no image"):
        open_images(tmp_path / "a.tar")


def test_a_manifest_that_is_no_json_is_not_passed_over(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "manifest.json").write_text('{"kind": "vision-circuits images", "schema"')
    with pytest.raises(ImageError, match="is damaged"):
        open_images(tmp_path)
