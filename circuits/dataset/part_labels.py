"""Which known part a unit detects, judged by masks: the ground truth of the `scenes` images.

A unit is scored for a part by AUC over positions: those whose receptive field is centered on the part,
against those of images that do not show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuits.common.statistics import auc
from circuits.errors import AddressError, CircuitsError
from circuits.network.address import Unit
from circuits.network.basis import latent_maps
from circuits.network.hooks import read
from circuits.network.layer import Layer
from circuits.network.model import Model
from zoo.images.sources import Images, open_images

_MOST_NEGATIVES = 20_000


@dataclass(frozen=True)
class PartScore:
    """How well one unit detects one part.

    Attributes:
        unit: address; part: name of the part; auc: in [0, 1], 0.5 is chance.
    """

    unit: str
    part: str
    auc: float


@dataclass(frozen=True, eq=False)
class PartGrid:
    """Where the parts of images lie on the map of a layer.

    Attributes:
        parts: their names, sorted.
        inside: `(N, parts, h, w)` whether the receptive field of a position is centered on the part.
        present: `(N, parts)` whether the image shows the part at all, be it between positions.
    """

    parts: tuple[str, ...]
    inside: Tensor
    present: Tensor


def part_grid(model: Model, layer: str, images: Any) -> PartGrid:
    """The parts of images on the grid of a layer, by their masks.

    Args:
        model: the model.
        layer: a layer with positions, or a basis attached to one.
        images: images with parts annotated: `scenes:500`, or a folder written by `circuits images`.

    Raises:
        CircuitsError: the images have no annotations, or the layer has no positions.

    >>> part_grid(load("scenes"), "mixed3b", "scenes:4").inside.shape[2:]
    torch.Size([8, 8])
    """
    _, base = _space(model, layer)
    dataset = open_images(images)
    names = part_names(dataset)
    parts_by_image = [{part.name for part in annotation.parts} for annotation in dataset.annotations or ()]
    return PartGrid(
        tuple(names),
        torch.stack([_on_grid(dataset, i, names, model, base) for i in range(len(dataset))]),
        torch.tensor([[name in parts for name in names] for parts in parts_by_image], dtype=torch.bool),
    )


def part_scores(model: Model, layer: str, images: Any, *, batch_size: int = 32) -> dict[str, Tensor]:
    """AUC of every unit of a layer for every part that the images show: part -> `(units,)`.

    Args:
        model: the model.
        layer: a layer with positions, or a basis attached to one (`mixed3b~sae`), whose latents are then judged.
        images: images with parts annotated: `scenes:500`, or a folder written by `circuits images`.

    Raises:
        AddressError: no such layer or basis. CircuitsError: the images have no annotations, or the layer has no
        positions.

    >>> sorted(part_scores(load("scenes"), "mixed3b", "scenes:20"))[:2]
    ['bus_body', 'car_body']
    """
    unit, base = _space(model, layer)
    dataset = open_images(images)
    grid = part_grid(model, layer, dataset)
    encode = None if unit.basis is None else latent_maps(model.basis(unit.layer, unit.basis).encode)
    parts = []
    with torch.no_grad():
        for _, batch in dataset.batches(model.input, batch_size=batch_size):
            maps = read(model, batch, [base])[base.name]
            parts.append((maps if encode is None else encode(maps)).cpu())
    acts = torch.cat(parts).movedim(1, -1)  # (N, h, w, units)
    scores = {}
    for k, name in enumerate(grid.parts):
        positive, negative = acts[grid.inside[:, k]], acts[~grid.present[:, k]].flatten(0, 2)
        if len(positive) and len(negative):
            scores[name] = auc(positive, negative[:: max(1, len(negative) // _MOST_NEGATIVES)])
    return scores


def part_labels(
    model: Model, layer: str, images: Any, *, at_least: float = 0.0, batch_size: int = 32
) -> list[PartScore]:
    """The best part of every unit of a layer or basis, in their order, where its AUC reaches `at_least`.

    The AUC is of the images that chose the part, and the largest of several: `circuits.label` chooses on one half of
    the images and reports on the other, beside controls.
    """
    scores = part_scores(model, layer, images, batch_size=batch_size)
    if not scores:
        return []
    names, table = list(scores), torch.stack(list(scores.values()))
    best = table.argmax(dim=0).tolist()
    space = _space(model, layer)[0].space
    labels = [PartScore(str(model.resolve(f"{space}:{i}")), names[b], float(table[b, i])) for i, b in enumerate(best)]
    return [f for f in labels if f.auc >= at_least]


def _space(model: Model, name: str) -> tuple[Unit, Layer]:
    """A layer or basis, and the layer whose positions it has."""
    unit = model.resolve(name)
    if unit.index is not None:
        raise AddressError(f"part labels are computed for a whole layer; {unit.short} is one unit of {unit.space}")
    layer = model.layers[unit.layer]
    if layer.size is None or layer.receptive_field is None:
        raise CircuitsError(f"{model.name}/{layer.name} has no positions to compare with part masks")
    return unit, layer


def part_names(dataset: Images) -> list[str]:
    """Names of the parts that images show, sorted.

    Raises:
        CircuitsError: the images have no annotations.
    """
    if dataset.annotations is None:
        raise CircuitsError(f"the images of {dataset.name} have no parts annotated; use scenes:500, for example")
    return sorted({part.name for annotation in dataset.annotations for part in annotation.parts})


def _on_grid(dataset: Images, index: int, names: Sequence[str], model: Model, layer: Layer) -> Tensor:
    """`(parts, h, w)`: whether each position's receptive field is centered on the part."""
    assert dataset.annotations is not None and layer.size is not None and layer.receptive_field is not None
    h, w = layer.size
    field, (height, width) = layer.receptive_field, model.input.hw
    grid = torch.zeros((len(names), h, w), dtype=torch.bool)
    ys = [y * field.stride[0] + field.offset[0] + field.size[0] // 2 for y in range(h)]
    xs = [x * field.stride[1] + field.offset[1] + field.size[1] // 2 for x in range(w)]
    for part in dataset.annotations[index].parts:
        mask = _mask(dataset, index, part)
        # the model sees the image resized on its short side and cropped in the center
        scale = min(mask.shape) / (model.input.resize or min(height, width))
        top, left = (mask.shape[0] / scale - height) / 2, (mask.shape[1] / scale - width) / 2
        rows = [min(max(int((y + top) * scale), 0), mask.shape[0] - 1) for y in ys]
        columns = [min(max(int((x + left) * scale), 0), mask.shape[1] - 1) for x in xs]
        grid[names.index(part.name)] |= mask[rows][:, columns]
    return grid


def _mask(dataset: Images, index: int, part: Any) -> Tensor:
    if part.mask is not None:
        return torch.from_numpy(part.mask)
    image = dataset.pil(index)
    mask = torch.zeros((image.height, image.width), dtype=torch.bool)
    x0, y0, x1, y1 = part.box
    mask[y0:y1, x0:x1] = True
    return mask
