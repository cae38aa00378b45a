"""Activation Atlas: the activations of a layer on a map."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.chosen_images import layer_of


@figure(
    "A1",
    "activation-atlas",
    "An activation atlas",
    paper="atlas",
    shows="Activation vectors of many images, laid out by similarity, averaged and visualized: a map of a layer's "
    "activations.",
    cost=180,
)
def draw(context: FigureContext) -> FigureResult:
    """Sample activation vectors, lay them out, average over cells, and make an icon of each cell."""
    from circuits.activations.atlas_builder import activation_atlas
    from circuits.plot import atlas_figure

    layer = layer_of(context, "mixed4c", "mixed4a")
    grid = context.size(10, 5, 4)
    atlas = activation_atlas(
        context.model, layer, context.images, grid=grid, steps=context.size(96, 24, 2), size=context.size(64, 40, 32),
        per_image=context.size(4, 2, 2), classes=context.size(8, 8, 0), controls=True, seed=context.seed,
        perplexity=context.size(30.0, 20.0, 15.0),
    )  # fmt: skip
    statements = {
        "samples": "neighboring vectors are similar: cosine",
        "cells": "neighboring cells are similar: cosine",
        "classes": "neighboring cells contribute to the same classes: cosine",
        "labels": "neighboring vectors are of images with the same label: share",
    }
    labels = context.images.labels or []
    labels_repeat = len(set(labels)) <= len(labels) / 2  # with one image per class no neighbor can share its label
    claims = [
        Claim.above(
            statements.get(test.quantity, test.quantity),
            test.neighbors,
            test.random if test.shuffled is None else max(test.random, test.shuffled),
            "pairs at random" if test.shuffled is None else "the larger of pairs at random and shuffled channels",
        )
        for test in atlas.similarity
        if test.neighbors == test.neighbors and (labels_repeat or test.quantity != "labels")
    ]
    caption = (
        f"{len(atlas.cells)} cells of {layer}, by t-SNE of {len(atlas.xy)} activation vectors; each icon shows how "
        "the mean of its cell differs from the layer's mean activation."
    )
    drawing = atlas_figure(atlas, tile=context.size(72, 84, 84), labels=bool(atlas.cells and atlas.cells[0].labels))
    return FigureResult({"": drawing}, atlas.describe() | {"xy": atlas.xy.round(3)}, caption, claims)
