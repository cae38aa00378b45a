"""Thumbnails of units, saved in the store as one file per layer.

The thumbnail of a unit is the receptive-field crop of its top activating image, as JPEG.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
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

Thumbs = tuple[str | None, ...]
"""Data URIs by unit; None for a unit that is never active."""


def stored(scan: Scan, layer: str) -> Thumbs | None:
    """The saved thumbnails of a layer, or None where there are none of this scan."""
    path = _path(scan, layer)
    try:
        if not path.is_file() or SCANS.read_about(path).get("scan") != scan.manifest["digest"]:
            return None
        arrays = SCANS.read_tensors(path, framework="numpy")
    except StoreError:
        return None  # a damaged file is made again
    ends = arrays["ends"].tolist()
    parts = [arrays["bytes"][begin:end].tobytes() for begin, end in zip([0, *ends], ends, strict=False)]
    return tuple(uri(part) if part else None for part in parts)


def make(scan: Scan, images: Images, layers: Sequence[str], progress: Progress = None) -> dict[str, Thumbs]:
    """Make the thumbnails of some layers, and save them in the store if it can be written.

    Every image is decoded once for all layers, and only thumbnails stay in memory.

    Args:
        scan: of the model.
        images: that were scanned.
        layers: names of scanned layers.
        progress: True for a bar, or a function of (done, total) images.
    """
    needed: dict[int, list[tuple[str, int, tuple[int, int, int, int]]]] = {}
    encoded: dict[str, list[bytes]] = {layer: [b""] * scan.layers[layer] for layer in layers}
    for layer in layers:
        for index, (image, box) in enumerate(_first(scan, layer)):
            if image >= 0:
                needed.setdefault(image, []).append((layer, index, box))
    decoded = 0
    with reporter(progress, "img") as report:
        for indices, batch in images.batches(scan.input_spec, batch_size=16, indices=sorted(needed)):
            for image, pixels in zip(indices, batch.numpy(), strict=True):
                image_pixels = crops.pixels(pixels, len(pixels))
                for layer, index, box in needed[image]:
                    encoded[layer][index] = jpeg(crops.cut(image_pixels, box))
            decoded += len(indices)
            report(decoded, len(needed))
    for layer, parts in encoded.items():
        _save(scan, layer, parts)
    return {layer: tuple(uri(part) if part else None for part in parts) for layer, parts in encoded.items()}


def _first(scan: Scan, layer: str) -> Iterable[tuple[int, tuple[int, int, int, int]]]:
    scanned = scan.layer(layer)
    for index in range(len(scanned)):
        top = scanned.unit(index).top
        yield (top[0].image, top[0].box) if top else (-1, (0, 0, 1, 1))


def _save(scan: Scan, layer: str, parts: Sequence[bytes]) -> None:
    arrays: Mapping[str, np.ndarray] = {
        "bytes": np.frombuffer(b"".join(parts) or b"\0", np.uint8),
        "ends": np.cumsum([len(part) for part in parts], dtype=np.int64),
    }
    try:
        SCANS.write_tensors(_path(scan, layer), arrays, {"scan": scan.manifest["digest"], "side": SIDE})
    except FileError:
        pass  # a store that cannot be written can still be shown


def _path(scan: Scan, layer: str) -> Path:
    return scan.folder / FOLDER / f"{layer}.safetensors"


def jpeg(crop: crops.Crop, side: int = SIDE, quality: int = 86) -> bytes:
    """A square crop as JPEG, at most `side` pixels wide."""
    small = crops.resized(crop, min(side, max(crop.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def uri(data: bytes, kind: str = "jpeg") -> str:
    """Bytes of an image file as a data URI."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
