"""Whether the pictures that a unit answers to are alike to a later layer: a measure of one meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from circuits.common.examples import Example
from circuits.errors import CircuitsError
from circuits.network.hooks import read
from circuits.network.model import Model
from zoo.images.sources import open_images


@torch.no_grad()
def coherence(
    model: Model, examples: Mapping[str, Sequence[Example]], images: Any, layer: str, *, batch_size: int = 32
) -> dict[str, float]:
    """Mean cosine between pairs of examples of each unit, of what a later layer says there, about the mean of all.

    Examples that have nothing in common give about 0. A later layer on the grid of the units is read at the place of
    an example, one on another grid is averaged over its map.

    Args:
        model: the model.
        examples: unit -> places at which it fires, two or more.
        images: the pictures that they are of.
        layer: the later layer.
        batch_size: pictures per forward pass.

    Raises:
        AddressError: an unknown layer. CircuitsError: a unit with fewer than two examples.
    """
    if not examples or any(len(some) < 2 for some in examples.values()):
        raise CircuitsError("coherence is of units with two examples or more")
    found, pictures = model.layer(layer), open_images(images)
    wanted: dict[int, list[tuple[str, int]]] = {}
    for unit, some in examples.items():
        for i, example in enumerate(some):
            wanted.setdefault(example.image, []).append((unit, i))
    said: dict[tuple[str, int], Tensor] = {}
    for indices, batch in pictures.batches(model.input, batch_size=batch_size, indices=sorted(wanted)):
        maps = read(model, batch.to(model.device), [found])[found.name].float().cpu()
        for index, one in zip(indices, maps, strict=True):
            for unit, i in wanted[index]:
                y, x = examples[unit][i].position
                inside = y < one.shape[1] and x < one.shape[2] and one.shape[1:] != (1, 1)
                said[unit, i] = one[:, y, x] if inside and _same_grid(model, unit, layer) else one.mean(dim=(1, 2))
    mean = torch.stack(list(said.values())).mean(0)
    scores = {}
    for unit, some in examples.items():
        rows = F.normalize(torch.stack([said[unit, i] for i in range(len(some))]) - mean, dim=1)
        cosines = rows @ rows.T
        n = len(rows)
        scores[unit] = float((cosines.sum() - cosines.diagonal().sum()) / (n * (n - 1)))
    return scores


def _same_grid(model: Model, unit: str, layer: str) -> bool:
    return model.layers[model.unit(unit).layer].size == model.layers[layer].size
