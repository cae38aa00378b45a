"""Small pictures of units, kept in the store: of every unit of a layer what it answers to most, as one file a layer.

A picture is what the unit sees in its strongest photograph (the crop that reports show, too), as JPEG.
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
"""Pixels at most; crops that are smaller stay as they are."""
FOLDER = "thumbs"

Thumbs = tuple[str | None, ...]
"""Data URIs by unit; None for one that never fires."""


def stored(scan: Scan, layer: str) -> Thumbs | None:
    """The pictures of a layer's units, or None where they were not made, or for another scan."""
    path = _path(scan, layer)
    try:
        if not path.is_file() or SCANS.read_about(path).get("scan") != scan.manifest["digest"]:
            return None
        arrays = SCANS.read_tensors(path, framework="numpy")
    except StoreError:
        return None  # damaged: they are made again
    ends = arrays["ends"].tolist()
    parts = [arrays["bytes"][begin:end].tobytes() for begin, end in zip([0, *ends], ends, strict=False)]
    return tuple(uri(part) if part else None for part in parts)


def make(scan: Scan, images: Images, layers: Sequence[str], progress: Progress = None) -> dict[str, Thumbs]:
    """Make the pictures of some layers, and keep them in the store where it can be written.

    Every photograph is decoded once for all layers; no more than small pictures are held.

    Args:
        scan: of the model.
        images: the pictures that were scanned.
        layers: names of scanned layers.
        progress: True for a bar, or a function of (done, total) photographs.
    """
    wanted: dict[int, list[tuple[str, int, tuple[int, int, int, int]]]] = {}
    made: dict[str, list[bytes]] = {layer: [b""] * scan.layers[layer] for layer in layers}
    for layer in layers:
        for index, (image, box) in enumerate(_first(scan, layer)):
            if image >= 0:
                wanted.setdefault(image, []).append((layer, index, box))
    done = 0
    with reporter(progress, "img") as report:
        for indices, batch in images.batches(scan.input_spec, batch_size=16, indices=sorted(wanted)):
            for image, picture in zip(indices, batch.numpy(), strict=True):
                whole = crops.pixels(picture, len(picture))
                for layer, index, box in wanted[image]:
                    made[layer][index] = jpeg(crops.cut(whole, box))
            done += len(indices)
            report(done, len(wanted))
    for layer, parts in made.items():
        _keep(scan, layer, parts)
    return {layer: tuple(uri(part) if part else None for part in parts) for layer, parts in made.items()}


def _first(scan: Scan, layer: str) -> Iterable[tuple[int, tuple[int, int, int, int]]]:
    found = scan.layer(layer)
    for index in range(len(found)):
        top = found.unit(index).top
        yield (top[0].image, top[0].box) if top else (-1, (0, 0, 1, 1))


def _keep(scan: Scan, layer: str, parts: Sequence[bytes]) -> None:
    arrays: Mapping[str, np.ndarray] = {
        "bytes": np.frombuffer(b"".join(parts) or b"\0", np.uint8),
        "ends": np.cumsum([len(part) for part in parts], dtype=np.int64),
    }
    try:
        SCANS.write_tensors(_path(scan, layer), arrays, {"scan": scan.manifest["digest"], "side": SIDE})
    except FileError:
        pass  # a store that cannot be written is still one to look at


def _path(scan: Scan, layer: str) -> Path:
    return scan.folder / FOLDER / f"{layer}.safetensors"


def jpeg(crop: crops.Crop, side: int = SIDE, quality: int = 86) -> bytes:
    """A square crop as JPEG, at most `side` pixels wide."""
    small = crops.resized(crop, min(side, max(crop.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def uri(data: bytes, kind: str = "jpeg") -> str:
    """Bytes of a picture as a data URI."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
