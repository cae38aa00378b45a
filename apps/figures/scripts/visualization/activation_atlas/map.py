"""Activation Atlas: what a layer can say, on a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of

if TYPE_CHECKING:
    from apps.figures.context import FigureContext


@figure(
    "A1",
    "activation-atlas",
    "An activation atlas",
    paper="atlas",
    shows="Activation vectors of many pictures, laid out so that alike ones lie together, and drawn: a map of what a "
    "layer can say.",
    cost=180,
)
def draw(context: FigureContext) -> FigureResult:
    """Sample, lay out, average over cells, and make an icon of each."""
    from circuits.activations.atlas_builder import activation_atlas
    from circuits.plot import atlas_figure

    layer = layer_of(context, "mixed4c", "mixed4a")
    grid = context.size(10, 5, 4)
    atlas = activation_atlas(
        context.model, layer, context.images, grid=grid, steps=context.size(96, 24, 2), size=context.size(64, 40, 32),
        per_image=context.size(4, 2, 2), classes=context.size(8, 8, 0), controls=True, seed=context.seed,
        perplexity=context.size(30.0, 20.0, 15.0),
    )  # fmt: skip
    words = {
        "samples": "vectors that lie next to each other are alike: cosine",
        "cells": "cells side by side are alike: cosine",
        "classes": "cells side by side push the same classes: cosine",
        "labels": "vectors side by side are of pictures with the same label: share",
    }
    labels = context.images.labels or []
    told = len(set(labels)) <= len(labels) / 2  # one picture of each class has none of its own beside it
    claims = [
        Claim(
            words.get(one.quantity, one.quantity),
            one.neighbors,
            one.random if one.shuffled is None else max(one.random, one.shuffled),
            one.neighbors > (one.random if one.shuffled is None else max(one.random, one.shuffled)),
            "pairs at random" if one.shuffled is None else "the larger of pairs at random and shuffled channels",
        )
        for one in atlas.similarity
        if one.neighbors == one.neighbors and (told or one.quantity != "labels")
    ]
    caption = (
        f"{len(atlas.cells)} cells of {layer}, by t-SNE of {len(atlas.xy)} activation vectors; each icon shows what "
        "tells the mean of its cell from the layer's activations in general."
    )
    drawing = atlas_figure(atlas, tile=context.size(72, 84, 84), labels=bool(atlas.cells and atlas.cells[0].labels))
    return FigureResult({"": drawing}, atlas.describe() | {"xy": atlas.xy.round(3)}, caption, claims)
