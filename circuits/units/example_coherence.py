"""Similarity of a unit's top activating images in a later layer: a measure of monosemanticity."""

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
    """Mean cosine between pairs of examples of each unit, of a later layer's activations there, less the mean of all.

    Examples that have nothing in common give about 0. A later layer on the grid of the units is read at the position of
    an example, one on another grid is averaged over its map.

    Args:
        model: the model.
        examples: unit -> positions at which it is active, two or more.
        images: the images that they are of.
        layer: the later layer.
        batch_size: images per forward pass.

    Raises:
        AddressError: an unknown layer. CircuitsError: a unit with fewer than two examples.
    """
    if not examples or any(len(some) < 2 for some in examples.values()):
        raise CircuitsError("coherence is of units with two examples or more")
    later, dataset = model.layer(layer), open_images(images)
    by_image: dict[int, list[tuple[str, int]]] = {}
    for unit, some in examples.items():
        for i, example in enumerate(some):
            by_image.setdefault(example.image, []).append((unit, i))
    responses: dict[tuple[str, int], Tensor] = {}
    for indices, batch in dataset.batches(model.input, batch_size=batch_size, indices=sorted(by_image)):
        maps = read(model, batch.to(model.device), [later])[later.name].float().cpu()
        for index, acts in zip(indices, maps, strict=True):
            for unit, i in by_image[index]:
                y, x = examples[unit][i].position
                inside = y < acts.shape[1] and x < acts.shape[2] and acts.shape[1:] != (1, 1)
                same_grid = model.layers[model.unit(unit).layer].size == model.layers[layer].size
                responses[unit, i] = acts[:, y, x] if inside and same_grid else acts.mean(dim=(1, 2))
    mean = torch.stack(list(responses.values())).mean(0)
    scores = {}
    for unit, some in examples.items():
        rows = F.normalize(torch.stack([responses[unit, i] for i in range(len(some))]) - mean, dim=1)
        cosines = rows @ rows.T
        n = len(rows)
        scores[unit] = float((cosines.sum() - cosines.diagonal().sum()) / (n * (n - 1)))
    return scores
