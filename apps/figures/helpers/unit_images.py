"""Images of units for figures: feature visualizations, and crops of top activating images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.figures.context import FigureContext

if TYPE_CHECKING:
    from circuits.plot.drawing.crops import Crop


def visualizations(
    context: FigureContext, units: Sequence[str], *, variants: int = 1, whole_map: bool = False
) -> dict[str, list[Crop]]:
    """Feature visualizations, unit -> its variants; an empty image where optimization does not activate the unit.

    Args:
        context: of the figure.
        units: addresses; visualizations of the same list are computed once for all figures.
        variants: visualizations per unit, with a diversity term.
        whole_map: maximize the mean over all positions, so that the feature repeats over the image; otherwise one
            position, in an image of the size of its receptive field.
    """
    from circuits.plot.drawing.crops import pixels

    crops: dict[str, list[Crop]] = {}
    by_layer: dict[str, list[str]] = {}
    for unit in units:
        by_layer.setdefault(context.model.unit(unit).layer, []).append(unit)
    for layer, members in by_layer.items():
        options: dict[str, Any] = {"variants": variants} if variants > 1 else {}
        objectives = members
        center = None if whole_map else _center(context, layer)
        if center is not None:
            options["size"], at = center
            objectives = [f"{unit}@{at},{at}" for unit in members]
        for result in context.visualize(objectives, steps=context.size(128, 48, 4), **options):
            crop = pixels(result.image, result.channels) if result.status == "ok" else np.zeros((0, 0, 3), np.uint8)
            crops.setdefault(result.unit.partition("@")[0], []).append(crop)
    return crops


def _center(context: FigureContext, layer: str) -> tuple[int, int] | None:
    """Image size that the receptive field of a layer needs, at most 128, and the central position of its map."""
    field, most = context.model.layers[layer].receptive_field, min(context.model.input.hw)
    if field is None:
        return None
    stride = max(field.stride)
    need = min(most, 48 if context.effort == "test" else 128, max(32, *field.size))
    size = min(most, -(-need // stride) * stride)
    return size, size // stride // 2


def top_crops(context: FigureContext, units: Sequence[str], n: int) -> dict[str, list[Crop]]:
    """Receptive-field crops of the at most `n` top activating images of each unit."""
    from circuits.plot.drawing.crops import cut_examples

    return cut_examples({u: context.scan.unit(u).top[:n] for u in units}, context.images, context.model.input)
