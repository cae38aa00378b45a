"""Which pixels a unit's activation comes from: parts of an image are exchanged with those of images of other classes.

The positions of a deep layer are no pixels: each sees most of the image, and what it is active for may lie anywhere in
there. On images of a network without any shortcut, 64 % of the positive attribution of a unit for dogs lay at positions
off the dog, while it took 88 to 100 % of its activation from the dog's own pixels. So pixels are asked.

An image x with its object, and another class's image y in its place: with `a` the unit's mean activation, and x|y the
image whose object is that of x and whose background that of y,

    object     = ((a(x|y) - a(y|y)) + (a(x|x) - a(y|x))) / 2
    background = ((a(y|x) - a(y|y)) + (a(x|x) - a(x|y))) / 2

are the Shapley values of the two (Shapley 1953): what each adds, averaged over the order in which they come. Their sum
is a(x) - a(y), exactly. The object's mask is grown by a sixteenth of the image and its edge is soft, or else the
outline of the object alone would bring evidence into the background: with the exact mask up to 31 % of it was off the
object, with the grown one at most 12 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.dataset.labels.shares import on_input, part_masks
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.tracing.ablation.sources import source_of
from zoo.images.sources import Images, open_images

GROWN = 1 / 16
"""How far a mask is grown, in sides of the image; its edge has half of that as standard deviation."""
GRID = 4
"""Cells along each axis, where there are no masks."""
Activity = Mapping[str, Tensor]
"""Layer or dictionary -> mean activation `(N, units)`."""


def object_masks(images: Images, parts: Sequence[str] | None, model: Model) -> NDArray[np.float32]:
    """Where the object is on each image as the model is fed it, `(N, H, W)` in [0, 1]; NaN without any mask.

    Args:
        images: with annotations.
        parts: which of them together are the object; None: all.
    """
    rows = []
    for i in range(len(images)):
        masks = [mask for name, mask in part_masks(images, i).items() if parts is None or name in parts]
        if masks:
            rows.append(on_input(np.any(masks, axis=0), model.input))
        else:
            rows.append(np.full(model.input.hw, np.nan, dtype=np.float32))
    return np.stack(rows)


def grown(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """A mask `(H, W)` with what is near it, its edge soft."""
    reach = max(1, round(GROWN * min(mask.shape)))
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.GaussianBlur(cv2.dilate(mask, ball), (0, 0), reach / 2).astype(np.float32)


def by_object(
    model: Model, spaces: Sequence[str], images: Images, others: Images, masks: NDArray[np.float32], batch_size: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """What object and background give each unit on each image: layer -> two tensors `(N, units)`.

    Args:
        images: of a class; others: one of another class for each.
        masks: of the objects of `images`, `(N, H, W)`; see `object_masks`.
    """
    inside: list[Activity] = []
    outside: list[Activity] = []
    for own, other, rows in _pairs(model, images, others, batch_size):
        m = torch.from_numpy(np.stack([grown(masks[i]) for i in rows]))[:, None].to(own)
        both = (_activity(model, spaces, x) for x in (own, other, m * own + (1 - m) * other, (1 - m) * own + m * other))
        whole, nothing, only, without = both
        inside.append({s: ((only[s] - nothing[s]) + (whole[s] - without[s])) / 2 for s in spaces})
        outside.append({s: ((without[s] - nothing[s]) + (whole[s] - only[s])) / 2 for s in spaces})
    return {s: (torch.cat([row[s] for row in inside]), torch.cat([row[s] for row in outside])) for s in spaces}


def by_cell(model: Model, spaces: Sequence[str], images: Images, others: Images, batch_size: int) -> dict[str, Tensor]:
    """What each cell of a grid over the image gives each unit: layer -> `(N, units, GRID * GRID)`.

    It is how much the mean activation falls where the cell is that of an image of another class.
    """
    height, width = model.input.hw
    rows: dict[str, list[Tensor]] = {space: [] for space in spaces}
    ys, xs = (np.linspace(0, size, GRID + 1).round().astype(int) for size in (height, width))
    for own, other, _ in _pairs(model, images, others, batch_size):
        whole = _activity(model, spaces, own)
        falls: dict[str, list[Tensor]] = {space: [] for space in spaces}
        for y in range(GRID):
            for x in range(GRID):
                at = (..., slice(ys[y], ys[y + 1]), slice(xs[x], xs[x + 1]))
                changed = own.clone()
                changed[at] = other[at]
                for space, values in _activity(model, spaces, changed).items():
                    falls[space].append(whole[space] - values)
        for space in spaces:
            rows[space].append(torch.stack(falls[space], dim=2))
    return {space: torch.cat(parts) for space, parts in rows.items()}


def before(
    model: Model, objects: Images, masks: NDArray[np.float32], backgrounds: Images, hidden: NDArray[np.float32],
    fillings: Images, batch_size: int,
) -> Images:  # fmt: skip
    """The objects of some images before the backgrounds of others, as the model is fed them, one for each.

    Args:
        model: the model.
        objects: with masks `(N, H, W)`; see `object_masks`.
        backgrounds: whose own objects, the masks `hidden`, are covered by what the images `fillings` have there.
    """
    rows = []
    third = fillings.batches(model.input, batch_size=batch_size)
    for (own, other, numbers), (_, filling) in zip(_pairs(model, objects, backgrounds, batch_size), third, strict=True):
        m, h = (torch.from_numpy(np.stack([grown(some[i]) for i in numbers]))[:, None] for some in (masks, hidden))
        rows.append(m * own + (1 - m) * (h * filling + (1 - h) * other))
    return open_images(torch.cat(rows))


def cell_distances() -> Tensor:
    """Distance of the cells of the grid from the center, the larger of both axes, in [0, 1]; `(GRID * GRID,)`."""
    centers = ((torch.arange(GRID) + 0.5) / GRID * 2 - 1).abs()
    return torch.maximum(centers[:, None], centers[None, :]).flatten()


def _pairs(model: Model, images: Images, others: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Images in batches, each with its partner, and their numbers."""
    second = others.batches(model.input, batch_size=batch_size)
    for (rows, own), (_, other) in zip(images.batches(model.input, batch_size=batch_size), second, strict=True):
        yield own, other, rows


@torch.no_grad()
def _activity(model: Model, spaces: Sequence[str], images: Tensor) -> Activity:
    sources = {space: source_of(model, space) for space in spaces}
    layers = {source.layer: model.layers[source.layer] for source in sources.values()}
    acts = read(model, images, list(layers.values()))
    return {
        space: source.activity(source.parts(acts[source.layer])).mean(dim=(2, 3)).cpu()
        for space, source in sources.items()
    }
