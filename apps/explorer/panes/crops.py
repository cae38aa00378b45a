"""Examples cut out of the pictures that were scanned, as small pictures for the screen."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.session import state
from apps.explorer.session.state import Here
from circuits.common.examples import Example
from circuits.network.address import Unit
from circuits.network.hooks import capture
from circuits.network.model import Model
from circuits.plot.drawing import crops, palette
from zoo.images.sources import Images
from zoo.inputs import InputSpec
from zoo.progress import Progress

Shown = Literal["field", "whole", "heat"]
SIDE = 176
_OPAQUE = 0.8


@st.cache_resource(max_entries=400, show_spinner=False)
def _cut(
    digest: str, examples: tuple[Example, ...], shown: Shown, _images: Images, _spec: InputSpec
) -> tuple[str, ...]:
    return tuple(uri(jpeg(crop, SIDE)) for crop in cut_arrays(examples, shown, _images, _spec))


def cut_arrays(examples: Sequence[Example], shown: Shown, images: Images, spec: InputSpec) -> list[crops.Crop]:
    """The receptive fields of examples, or whole pictures with the fields marked."""
    if shown == "field":
        return crops.cut_examples({"": examples}, images, spec)[""]
    found = images.tensor(spec, [example.image for example in examples])
    return [
        _marked(crops.pixels(picture, len(picture)), example.box)
        for picture, example in zip(found, examples, strict=True)
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


def cut(at: Here, examples: Sequence[Example], shown: Shown) -> tuple[str, ...]:
    """Examples as data URIs."""
    scan = at.scanned
    return _cut(scan.manifest["digest"], tuple(examples), shown, state.pictures_of(at), scan.input_spec)


def heated(
    model: Model, unit: Unit, examples: Sequence[Example], images: Images, spec: InputSpec, progress: Progress = None
) -> tuple[str, ...]:
    """Whole pictures, and over them in orange where the unit responds, against its strongest response among them."""
    chosen = [example.image for example in examples]
    whole = images.tensor(spec, chosen)
    maps = unit_maps(model, unit, images.subset(chosen), progress)
    most = float(maps.max()) or 1.0
    return tuple(
        uri(jpeg(warm(crops.pixels(picture, len(picture)), one / most), SIDE))
        for picture, one in zip(whole, maps, strict=True)
    )


def unit_maps(model: Model, unit: Unit, images: Images, progress: Progress = None) -> NDArray[np.float32]:
    """What a unit says at every position of some pictures, `(N, h, w)`."""
    acts = capture(model, images, [unit.layer], batch_size=8, progress=progress)[unit.layer].float()
    if unit.basis is not None:
        rows = model.basis(unit.layer, unit.basis).encode(acts.movedim(1, -1).flatten(0, -2))
        acts = rows.view(len(acts), *acts.shape[2:], -1).movedim(-1, 1)
    return np.asarray(acts[:, unit.index].detach().cpu().numpy())


def warm(pixels: crops.Crop, heat: NDArray[np.float32]) -> crops.Crop:
    """A picture in gray with a map over it in the signed colors, as opaque as the map is large; 1 is opaque."""
    height, width = pixels.shape[:2]
    gray = 60 + 0.72 * pixels[..., :3].astype(np.float32).mean(axis=2, keepdims=True)
    small = Image.fromarray(np.clip(heat, -1, 1).astype(np.float32), mode="F")
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))[..., None]
    color = palette.encode(np.where(large[..., 0] < 0, -1.0, 1.0), 1.0).astype(np.float32)
    share = np.clip(np.abs(large), 0, 1) * _OPAQUE
    return np.asarray(np.rint(gray * (1 - share) + color * share), dtype=np.uint8)


def decoded(src: str) -> crops.Crop:
    """The pixels of a data URI that was made here, RGB."""
    data = base64.b64decode(src.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
