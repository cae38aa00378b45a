"""How much of each part lies in the cell of each position of a layer: masks of pixels on the grid of activations.

A position stands for the pixels of the model's input that are nearer to the center of its receptive field than to that
of any other position: the cell of activations enlarged to pixels by the nearest value. A part counts in a cell by the
pixels that show it. Why not "the center is on the part": a mirror or a lamp is smaller than the 16 pixels between the
positions of a deep layer, and would be seen or missed by chance; shares lose no pixel, need no threshold, and make AUC
and IoU those over pixels, as in Network Dissection (Bau et al. 2017, section 3, which enlarges activations likewise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.layer import Layer
from circuits.network.model import Model
from zoo.errors import ImageError
from zoo.images.decoding import center_crop
from zoo.images.sources import Images
from zoo.inputs import InputSpec


@dataclass(frozen=True, eq=False)
class PartShares:
    """The parts of images on the grid of a layer.

    Attributes:
        inside: `(N, parts, h * w)` pixels of each cell that show the part.
        area: `(h * w,)` pixels of each cell; their sum is the model's input.
    """

    inside: Tensor
    area: Tensor


def part_shares(model: Model, layer: Layer, images: Images, parts: Sequence[str]) -> PartShares:
    """The parts of annotated images on the grid of a layer.

    Args:
        model: the model, for the crop of the images that it is fed.
        layer: with positions. Where its receptive fields are unknown or the whole image (squeeze-and-excitation does
            that), the input is divided evenly among the positions.
        images: with annotations.
        parts: names of the parts, in the order of the result.

    Raises:
        ImageError: a mask of another size than its image, or that cannot be read.
        CircuitsError: the layer has no positions.
    """
    if layer.size is None:
        raise CircuitsError(f"{model.name}/{layer.name} has no positions to compare with part masks")
    height, width = model.input.hw
    rows, columns = cell_edges(layer, 0, height), cell_edges(layer, 1, width)
    area = np.outer(np.diff(rows), np.diff(columns))
    inside = torch.zeros(len(images), len(parts), area.size)
    for i in range(len(images)):
        for name, mask in part_masks(images, i).items():
            if name in parts:
                inside[i, parts.index(name)] = torch.from_numpy(cell_sums(on_input(mask, model.input), rows, columns))
    return PartShares(inside, torch.from_numpy(area.ravel()))


def part_masks(images: Images, index: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Part -> mask `(H, W)` of an annotated image, all that bear one name together; parts without pixels are left out.

    A part with a box and no mask fills its box.

    Raises:
        ImageError: a mask of another size than the image, or that cannot be read.
    """
    assert images.annotations is not None
    annotation = images.annotations[index]
    if not annotation.parts:
        return {}
    image = images.pil(index)
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for part in annotation.parts:
        mask = part.mask
        if mask is None:
            x0, y0, x1, y1 = part.box
            mask = np.zeros((image.height, image.width), dtype=np.bool_)
            mask[y0:y1, x0:x1] = True
        if mask.shape != (image.height, image.width):
            raise ImageError(
                f"{images.ids[index]} has {image.width} x {image.height} pixels, and its annotation is of "
                f"{mask.shape[1]} x {mask.shape[0]}: the masks belong to another version of the image"
            )
        if mask.any():
            masks[part.name] = masks[part.name] | mask if part.name in masks else mask
    return masks


def on_input(mask: npt.NDArray[np.bool_], spec: InputSpec) -> npt.NDArray[np.float32]:
    """A mask of an image as its pixels reach the model: resized and cropped alike, `(H, W)` shares in [0, 1]."""
    crop, (height, width) = center_crop(mask.shape[0], mask.shape[1], spec), spec.hw
    if crop.exact:
        left, top, right, bottom = (int(v) for v in crop.box)
        return mask[top:bottom, left:right].astype(np.float32)
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=crop.box))


def cell_edges(layer: Layer, axis: int, length: int) -> npt.NDArray[np.float64]:
    """Where the cells of a layer's positions begin and end along an axis of `length` pixels, `(positions + 1,)`.

    Halfway between the centers of neighboring receptive fields; the outermost cells reach the edges of the input.
    """
    assert layer.size is not None
    count, field = layer.size[axis], layer.receptive_field
    if field is None:
        return np.linspace(0.0, length, count + 1)
    center = field.offset[axis] + field.size[axis] / 2
    between = center + field.stride[axis] * (np.arange(1, count) - 0.5)
    edges: npt.NDArray[np.float64] = np.clip(np.concatenate([[0.0], between, [length]]), 0.0, length)
    return edges


def cell_sums(
    mask: npt.NDArray[np.float32], rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The sum of a mask over each cell, flat: differences of its running sums, straight between pixels."""
    totals: npt.NDArray[np.float64] = mask.astype(np.float64)
    for axis, edges in ((0, rows), (1, columns)):
        cumulated = np.concatenate([np.zeros_like(totals.take([0], axis)), totals.cumsum(axis)], axis)
        low = np.minimum(np.floor(edges).astype(int), totals.shape[axis] - 1)
        rest = np.expand_dims(edges - low, 1 - axis)
        totals = np.diff(cumulated.take(low, axis) * (1 - rest) + cumulated.take(low + 1, axis) * rest, axis=axis)
    return totals.ravel()
