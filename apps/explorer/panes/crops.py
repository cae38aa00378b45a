"""Crops of dataset examples for the screen, and heatmaps over images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.server.byte_cache import cached
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.common.examples import Example
from circuits.network.address import Unit
from circuits.network.hooks import capture
from circuits.network.model import Model
from circuits.plot.drawing import crops, palette
from zoo.images.sources import Images
from zoo.inputs import InputSpec
from zoo.progress import Progress

CropKind = Literal["field", "image", "heatmap"]
SIDE = 176
_OPAQUE = 0.8


@cached
def _cut(
    digest: str, examples: tuple[Example, ...], kind: CropKind, _images: Images, _spec: InputSpec
) -> tuple[str, ...]:
    return tuple(uri(jpeg(crop, SIDE)) for crop in cut_arrays(examples, kind, _images, _spec))


def cut_arrays(examples: Sequence[Example], kind: CropKind, images: Images, spec: InputSpec) -> list[crops.Crop]:
    """The receptive fields of examples, or whole images with the receptive fields outlined."""
    if kind == "field":
        return crops.cut_examples({"": examples}, images, spec)[""]
    tensors = images.tensor(spec, [example.image for example in examples])
    return [
        _marked(crops.pixels(tensor, len(tensor)), example.box)
        for tensor, example in zip(tensors, examples, strict=True)
    ]


def _marked(pixels: crops.Crop, box: tuple[int, int, int, int]) -> crops.Crop:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    top, left, bottom, right = max(0, box[0]), max(0, box[1]), min(height, box[2]), min(width, box[3])
    if (top, left, bottom, right) != (0, 0, height, width):
        thick = max(1, round(max(height, width) / 90))
        draw = ImageDraw.Draw(image)
        draw.rectangle((left, top, right - 1, bottom - 1), outline="#ffffff", width=thick + 1)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=palette.EXCITES, width=thick)
    return np.asarray(image)


def cut(at: Location, examples: Sequence[Example], kind: CropKind) -> tuple[str, ...]:
    """Examples as data URIs."""
    scan = at.scanned
    return _cut(scan.manifest["digest"], tuple(examples), kind, state.images_of(at), scan.input_spec)


def heatmaps(
    model: Model, unit: Unit, examples: Sequence[Example], images: Images, spec: InputSpec, progress: Progress = None
) -> tuple[str, ...]:
    """Whole images under heatmaps of the unit's activations, as shares of its maximum on these images."""
    chosen = [example.image for example in examples]
    tensors = images.tensor(spec, chosen)
    maps = unit_maps(model, unit, images.subset(chosen), progress)
    most = float(maps.max()) or 1.0
    return tuple(
        uri(jpeg(heatmap(crops.pixels(tensor, len(tensor)), activation_map / most), SIDE))
        for tensor, activation_map in zip(tensors, maps, strict=True)
    )


def unit_maps(model: Model, unit: Unit, images: Images, progress: Progress = None) -> NDArray[np.float32]:
    """Activations of a unit at every position of images, `(N, h, w)`."""
    acts = capture(model, images, [unit.layer], batch_size=8, progress=progress)[unit.layer].float()
    if unit.basis is not None:
        rows = model.basis(unit.layer, unit.basis).encode(acts.movedim(1, -1).flatten(0, -2))
        acts = rows.view(len(acts), *acts.shape[2:], -1).movedim(-1, 1)
    return np.asarray(acts[:, unit.index].detach().cpu().numpy())


def heatmap(pixels: crops.Crop, values: NDArray[np.float32]) -> crops.Crop:
    """An image in gray under a map in the colors of signs, the more opaque the larger its absolute value, up to 1."""
    height, width = pixels.shape[:2]
    gray = 60 + 0.72 * pixels[..., :3].astype(np.float32).mean(axis=2, keepdims=True)
    small = Image.fromarray(np.clip(values, -1, 1).astype(np.float32), mode="F")
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))[..., None]
    color = palette.encode(np.where(large[..., 0] < 0, -1.0, 1.0), 1.0).astype(np.float32)
    share = np.clip(np.abs(large), 0, 1) * _OPAQUE
    return np.asarray(np.rint(gray * (1 - share) + color * share), dtype=np.uint8)


def decoded(src: str) -> crops.Crop:
    """The pixels of one of our data URIs, RGB."""
    data = base64.b64decode(src.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
