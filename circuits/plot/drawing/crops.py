"""Crops of images: the receptive fields of examples, and how to put them together."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from circuits.common.examples import Example
from circuits.errors import CircuitsError, shorten
from circuits.plot.drawing import palette
from circuits.tracing.circuit import Circuit
from zoo.images.sources import Images, Source, open_images
from zoo.inputs import InputSpec

if TYPE_CHECKING:
    from circuits.visualization.result import Visualization

Crop = NDArray[np.uint8]
Crops = Mapping[str, Sequence[Crop]]

_OUTSIDE = 150  # gray beyond the image's border
_BATCH = 32


def crops(circuit: Circuit, images: Images, spec: InputSpec, n: int = 6) -> dict[str, list[Crop]]:
    """Cut the receptive field of each example of the units of a circuit.

    A crop is a square: centered on a box that reaches beyond the image, gray out there; moved inwards for a
    box that was cut off at the border. A field larger than the image gives the whole image.

    Args:
        circuit: the circuit; its examples hold the image and the box.
        images: the images it was traced on.
        spec: the model's input, in whose pixels boxes are given.
        n: at most so many crops a unit.

    Returns:
        Unit address -> crops `(side, side, 3)` uint8, strongest first.

    Raises:
        CircuitsError: these are not the images that the circuit was traced on.
    """
    examples = {node.unit: node.examples[:n] for node in circuit.nodes}
    return _cut_all(examples, images, spec, "the circuit was", "traced")


def exemplars(results: Iterable[Visualization], images: Images, spec: InputSpec, n: int = 9) -> dict[str, list[Crop]]:
    """Cut the top activating photographs of visualized units, as `crops` does for a circuit.

    Args:
        results: with their evidence, as `circuits.visualization.examine` gives it; those without are left out.
        images: the photographs it was gathered on.
        spec: the model's input.
        n: at most so many crops a unit.

    Raises:
        CircuitsError: these are not the photographs that the evidence was gathered on.
    """
    examples = {r.unit: r.evidence.examples[:n] for r in results if r.evidence is not None}
    return _cut_all(examples, images, spec, "the evidence was", "gathered")


def cut_examples(
    examples: Mapping[str, Sequence[Example]], images: Source, spec: InputSpec, *, limit: int | None = None
) -> dict[str, list[Crop]]:
    """Cut the receptive fields of examples, as `crops` does: name -> crops, in the order given.

    With `limit` those larger than so many pixels a side are made as small as that at once, which saves memory.

    Raises:
        CircuitsError: an example is of an image that is not at its position in `images`.
    """
    return _cut_all(examples, open_images(images), spec, "the examples were", "found", limit=limit)


def _cut_all(
    examples: Mapping[str, Sequence[Example]], images: Images, spec: InputSpec, *verbs: str, limit: int | None = None
) -> dict[str, list[Crop]]:
    by_image: dict[int, list[tuple[str, int, Example]]] = {}
    results: dict[str, list[Crop]] = {}
    for unit, items in examples.items():
        results[unit] = [np.zeros((0, 0, 3), np.uint8)] * len(items)
        for slot, example in enumerate(items):
            _check(images, example, *verbs)
            by_image.setdefault(example.image, []).append((unit, slot, example))
    for indices, batch in images.batches(spec, batch_size=_BATCH, indices=sorted(by_image)):
        for index, image in zip(indices, batch.numpy(), strict=True):
            pixels = _rgb(image)
            for unit, slot, example in by_image[index]:
                crop = cut(pixels, example.box)
                results[unit][slot] = crop if limit is None or len(crop) <= limit else resized(crop, limit)
    return results


def _check(images: Images, example: Example, subject: str, verb: str) -> None:
    if not 0 <= example.image < len(images) or images.ids[example.image] != example.id:
        raise CircuitsError(
            f"{subject} {verb} on an image {shorten(example.id)!r} at position {example.image}, which is not in "
            f"{shorten(images.name)} ({len(images)} images): give the images that it was {verb} on"
        )


def pixels(image: Any, channels: int = 3) -> Crop:
    """An image `(channels [+ 1], H, W)` in [0, 1], a tensor or an array, as bytes `(H, W, 3 or 4)`.

    One channel more is an opacity. Other numbers of channels than three are shown as their mean in gray.
    """
    values = np.asarray(image, dtype=np.float32)
    if len(values) == channels:
        return _rgb(values)
    opacity = np.asarray(np.rint(np.clip(values[-1:], 0, 1) * 255).transpose(1, 2, 0), dtype=np.uint8)
    return np.concatenate([_rgb(values[:-1]), opacity], axis=2)


def _rgb(image: NDArray[np.float32]) -> Crop:
    """An image `(C, H, W)` in [0, 1] as RGB bytes; other numbers of channels are shown as their mean in gray."""
    three = image if image.shape[0] == 3 else np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0)
    return np.asarray(np.rint(np.clip(three, 0, 1) * 255).transpose(1, 2, 0), dtype=np.uint8)


def cut(image: Crop, box: tuple[int, int, int, int]) -> Crop:
    """The square around `box` `(top, left, bottom, right)` of an image `(H, W, 3)`; see `crops`."""
    top, bottom = _span(box[0], box[2], image.shape[0])
    left, right = _span(box[1], box[3], image.shape[1])
    side = max(bottom - top, right - left)
    top, left = _widen(top, bottom, side, image.shape[0]), _widen(left, right, side, image.shape[1])
    square = np.full((side, side, 3), _OUTSIDE, np.uint8)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(image.shape[0], top + side), min(image.shape[1], left + side)
    if y1 > y0 and x1 > x0:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return square


def _widen(start: int, stop: int, side: int, size: int) -> int:
    """Where a range of length `side` around `start` to `stop` starts: inside of the image if the range was."""
    widened = start - (side - (stop - start)) // 2
    if side > stop - start and side <= size and start >= 0 and stop <= size:
        return min(max(widened, 0), size - side)
    return widened


def _span(start: int, stop: int, size: int) -> tuple[int, int]:
    """A range of at least one pixel; the whole axis when it is longer than that."""
    stop = max(stop, start + 1)
    return (0, size) if stop - start >= size else (start, stop)


def of(images: Crops, unit: str) -> Sequence[Crop]:
    """The crops of a unit by full address, else by the address without the model's name; empty when missing."""
    unit_crops = images.get(unit)
    if unit_crops is None:
        unit_crops = images.get(unit.rpartition("/")[2], ())
    return [crop for crop in unit_crops if crop.ndim == 3 and crop.size]


def resized(crop: Crop, side: int) -> Crop:
    """A crop as RGB `(side, side, 3)`; one that is not square is padded, not squeezed."""
    height, width = crop.shape[:2]
    if height != width:
        crop = cut(np.ascontiguousarray(crop), (0, 0, height, width))
    # enlarged more than fourfold, honest pixels are clearer than a blur
    method = Image.Resampling.NEAREST if side > 4 * crop.shape[0] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(crop[..., :3])).resize((side, side), method))


def embedded(crop: Crop, limit: int) -> int:
    """The side to embed a crop at: no larger than it is, unless it is so small that its pixels are to be seen."""
    side = max(crop.shape[:2])
    return limit if side >= limit or 4 * side < limit else side


def montage(crops_: Sequence[Crop], rows: int, columns: int, side: int, gap: int) -> NDArray[np.uint8]:
    """Crops in a grid with clear gaps: RGBA `(rows * side + gaps, columns * side + gaps, 4)`, empty cells clear."""
    height, width = rows * (side + gap) - gap, columns * (side + gap) - gap
    sheet = np.zeros((height, width, 4), np.uint8)
    for i, crop in enumerate(crops_[: rows * columns]):
        y, x = (i // columns) * (side + gap), (i % columns) * (side + gap)
        sheet[y : y + side, x : x + side, :3] = resized(crop, side)
        sheet[y : y + side, x : x + side, 3] = 255
    return sheet


def kernel_pixels(kernel: NDArray[np.float32], scale: float, side: int = 96) -> NDArray[np.uint8]:
    """A kernel `(kh, kw)` in the signed colors, RGB, enlarged by whole pixels to about `side`."""
    values = np.atleast_2d(kernel)
    times = max(1, side // max(values.shape))
    return palette.encode(values, scale).repeat(times, axis=0).repeat(times, axis=1)


def data_uri(pixels: NDArray[np.uint8], *, photograph: bool = False) -> str:
    """Pixels `(H, W, 3 or 4)` as a data URI: PNG, or JPEG for a photograph, a tenth of the size."""
    buffer = io.BytesIO()
    if photograph:
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=88)
    else:
        Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    kind = "jpeg" if photograph else "png"
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def uri(crop: Crop, limit: int, *, photograph: bool = True) -> str:
    """A crop as a data URI, a square of at most `limit` pixels."""
    return data_uri(resized(crop, embedded(crop, limit)), photograph=photograph)
