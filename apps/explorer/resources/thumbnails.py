"""Thumbnails of units, saved in the store as one file per layer.

The thumbnail of a unit is the receptive-field crop of its top activating image, or a square of four, as JPEG.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from circuits.dataset.scan_results import Scan
from circuits.dataset.scan_store import SCANS, StoreError
from circuits.plot.drawing import crops
from zoo.errors import FileError
from zoo.images.sources import Images
from zoo.progress import Progress, reporter

SIDE = 128
"""Largest side in pixels; smaller crops are not enlarged."""
FOLDER = "thumbs"
_EMPTY = 128

Thumbs = tuple[str | None, ...]
"""Data URIs by unit; None for a unit that is never active."""


def stored(scan: Scan, layer: str, count: int = 1) -> Thumbs | None:
    """The saved thumbnails of a layer, or None where there are none of this scan with `count` images a unit."""
    path = path_of(scan, layer, count)
    try:
        if not path.is_file() or SCANS.read_about(path).get("scan") != scan.manifest["digest"]:
            return None
        arrays = SCANS.read_tensors(path, framework="numpy")
    except StoreError:
        return None  # a damaged file is made again
    ends = arrays["ends"].tolist()
    parts = [arrays["bytes"][begin:end].tobytes() for begin, end in zip([0, *ends], ends, strict=False)]
    return tuple(uri(part) if part else None for part in parts)


def make(
    scan: Scan, images: Images, layers: Sequence[str], progress: Progress = None, *, count: int = 1
) -> dict[str, Thumbs]:
    """Make the thumbnails of some layers, and save them in the store if it can be written.

    Every image is decoded once for all layers, and only thumbnails stay in memory.

    Args:
        scan: of the model.
        images: that were scanned.
        layers: names of scanned layers.
        progress: True for a bar, or a function of (done, total) images.
        count: images of a unit, 1 or 4.
    """
    needed: dict[int, list[tuple[str, int, int, tuple[int, int, int, int]]]] = {}
    encoded: dict[str, list[bytes]] = {layer: [b""] * scan.layers[layer] for layer in layers}
    squares: dict[tuple[str, int], NDArray[np.uint8]] = {}
    for layer in layers:
        scanned = scan.layer(layer)
        for index in range(len(scanned)):
            for rank, example in enumerate(scanned.unit(index).top[:count]):
                needed.setdefault(example.image, []).append((layer, index, rank, example.box))
    decoded = 0
    with reporter(progress, "img") as report:
        for indices, batch in images.batches(scan.input_spec, batch_size=16, indices=sorted(needed)):
            for image, pixels in zip(indices, batch.numpy(), strict=True):
                image_pixels = crops.pixels(pixels, len(pixels))
                for layer, index, rank, box in needed[image]:
                    crop = crops.cut(image_pixels, box)
                    if count == 1:
                        encoded[layer][index] = jpeg(crop)
                    else:
                        square = squares.setdefault((layer, index), np.full((SIDE, SIDE, 3), _EMPTY, np.uint8))
                        y, x = SIDE // 2 * (rank // 2), SIDE // 2 * (rank % 2)
                        square[y : y + SIDE // 2, x : x + SIDE // 2] = crops.resized(crop, SIDE // 2)
            decoded += len(indices)
            report(decoded, len(needed))
    for (layer, index), square in squares.items():
        encoded[layer][index] = jpeg(square)
    for layer, parts in encoded.items():
        _save(scan, layer, parts, count)
    return {layer: tuple(uri(part) if part else None for part in parts) for layer, parts in encoded.items()}


def _save(scan: Scan, layer: str, parts: Sequence[bytes], count: int) -> None:
    arrays: Mapping[str, np.ndarray] = {
        "bytes": np.frombuffer(b"".join(parts) or b"\0", np.uint8),
        "ends": np.cumsum([len(part) for part in parts], dtype=np.int64),
    }
    try:
        SCANS.write_tensors(path_of(scan, layer, count), arrays, {"scan": scan.manifest["digest"], "side": SIDE})
    except FileError:
        pass  # a store that cannot be written can still be shown


def path_of(scan: Scan, layer: str, count: int = 1) -> Path:
    """The file of a layer's thumbnails."""
    return scan.folder / FOLDER / (f"{layer}.safetensors" if count == 1 else f"{layer}.{count}.safetensors")


def jpeg(crop: crops.Crop, side: int = SIDE, quality: int = 86) -> bytes:
    """A square crop as JPEG, at most `side` pixels wide."""
    small = crops.resized(crop, min(side, max(crop.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def uri(data: bytes, kind: str = "jpeg") -> str:
    """Bytes of an image file as a data URI."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
