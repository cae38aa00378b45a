"""Which known part a unit answers to, judged by masks: the ground truth of the `scenes` pictures.

A unit is scored for a part by AUC over positions: those whose receptive field is centred on the part,
against those of pictures that do not show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuits.address import Unit
from circuits.errors import CircuitsError
from circuits.finding import auc
from circuits.hooks import read
from circuits.model import Layer, Model
from zoo.images import Images, open_images

_MOST_NEGATIVES = 20_000


@dataclass(frozen=True)
class PartScore:
    """How well one unit tells where one part is.

    Attributes:
        unit: address; part: name of the part; auc: in [0, 1], 0.5 is chance.
    """

    unit: str
    part: str
    auc: float


def part_scores(model: Model, layer: str, images: Any, *, batch_size: int = 32) -> dict[str, Tensor]:
    """AUC of every channel of a layer for every part that the pictures show: part -> `(C,)`.

    Args:
        model: the model.
        layer: a layer with positions.
        images: pictures with parts annotated: `scenes:500`, or a folder written by `circuits images`.

    Raises:
        CircuitsError: the pictures have no annotations, or the layer has no positions.
    """
    where = model.layer(layer)
    pictures = open_images(images)
    names = part_names(pictures)
    field = where.receptive_field
    if where.size is None or field is None:
        raise CircuitsError(f"{model.name}/{where.name} has no positions to compare with part masks")
    kept, masks = [], []
    with torch.no_grad():
        for indices, batch in pictures.batches(model.input, batch_size=batch_size):
            kept.append(read(model, batch, [where])[where.name].cpu())
            masks.append(torch.stack([_on_grid(pictures, i, names, model, where) for i in indices]))
    acts = torch.cat(kept).movedim(1, -1)  # (N, h, w, C)
    inside = torch.cat(masks)  # (N, parts, h, w)
    scores = {}
    for k, name in enumerate(names):
        absent = torch.tensor([not _shows(pictures, i, name) for i in range(len(pictures))])
        positive, negative = acts[inside[:, k]], acts[absent].flatten(0, 2)
        if len(positive) and len(negative):
            scores[name] = auc(positive, negative[:: max(1, len(negative) // _MOST_NEGATIVES)])
    return scores


def part_labels(
    model: Model, layer: str, images: Any, *, at_least: float = 0.0, batch_size: int = 32
) -> list[PartScore]:
    """The best part of every channel of a layer, in channel order, where its AUC reaches `at_least`."""
    scores = part_scores(model, layer, images, batch_size=batch_size)
    if not scores:
        return []
    names, table = list(scores), torch.stack(list(scores.values()))
    best = table.argmax(dim=0).tolist()
    name = model.layer(layer).name
    found = [PartScore(str(model.resolve(Unit(name, c))), names[b], float(table[b, c])) for c, b in enumerate(best)]
    return [f for f in found if f.auc >= at_least]


def part_names(pictures: Images) -> list[str]:
    """Names of the parts that pictures show, sorted.

    Raises:
        CircuitsError: the pictures have no annotations.
    """
    if pictures.annotations is None:
        raise CircuitsError(f"the pictures of {pictures.name} have no parts annotated; use scenes:500, for example")
    return sorted({part.name for annotation in pictures.annotations for part in annotation.parts})


def _shows(pictures: Images, index: int, name: str) -> bool:
    assert pictures.annotations is not None
    return any(part.name == name for part in pictures.annotations[index].parts)


def _on_grid(pictures: Images, index: int, names: Sequence[str], model: Model, layer: Layer) -> Tensor:
    """`(parts, h, w)`: whether each position's receptive field is centred on the part."""
    assert pictures.annotations is not None and layer.size is not None and layer.receptive_field is not None
    h, w = layer.size
    field, (height, width) = layer.receptive_field, model.input.hw
    grid = torch.zeros((len(names), h, w), dtype=torch.bool)
    ys = [y * field.stride[0] + field.offset[0] + field.size[0] // 2 for y in range(h)]
    xs = [x * field.stride[1] + field.offset[1] + field.size[1] // 2 for x in range(w)]
    for part in pictures.annotations[index].parts:
        mask = _mask(pictures, index, part)
        # the model sees the picture resized on its short side and cropped in the centre
        scale = min(mask.shape) / (model.input.resize or min(height, width))
        top, left = (mask.shape[0] / scale - height) / 2, (mask.shape[1] / scale - width) / 2
        rows = [min(max(int((y + top) * scale), 0), mask.shape[0] - 1) for y in ys]
        columns = [min(max(int((x + left) * scale), 0), mask.shape[1] - 1) for x in xs]
        grid[names.index(part.name)] |= mask[rows][:, columns]
    return grid


def _mask(pictures: Images, index: int, part: Any) -> Tensor:
    if part.mask is not None:
        return torch.from_numpy(part.mask)
    picture = pictures.pil(index)
    mask = torch.zeros((picture.height, picture.width), dtype=torch.bool)
    x0, y0, x1, y1 = part.box
    mask[y0:y1, x0:x1] = True
    return mask
