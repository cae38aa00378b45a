"""An activation atlas as a figure, and as a page with the contents of every cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.activations.atlas import Atlas
from circuits.activations.layout import NeighborSimilarity
from circuits.plot.drawing import canvas, crops, html_page
from circuits.plot.drawing.wording import minus
from zoo.images.sources import Source, open_images
from zoo.inputs import InputSpec

MARGIN = 24
_SMALLEST = 0.45  # side of the icon of a cell with hardly any samples, as a share of the fullest's

SIMILARITIES = {
    "samples": "samples and the nearest of another image, cosine",
    "cells": "directions of neighboring cells, cosine",
    "classes": "class attributions of neighboring cells, cosine",
    "labels": "samples whose nearest of another image has their label, share",
}


def atlas_figure(atlas: Atlas, *, tile: int = 64, density: bool = True, labels: bool = False) -> Figure:
    """The atlas as one figure: an icon for each cell, at its position.

    Args:
        atlas: of `circuits.activation_atlas`.
        tile: pixels of a cell.
        density: draw cells smaller that hold fewer samples: the area goes with the logarithm of their number.
        labels: write under each icon the class that its cell has the largest attribution to.
    """
    row = tile + (14 if labels else 0)
    width, height = atlas.grid * tile, atlas.grid * row
    figure, axes = canvas.page(max(2 * MARGIN + width, 560), MARGIN + 50 + height + 68)
    room = int((max(2 * MARGIN + width, 560) - 2 * MARGIN) / 5.8)
    count = len(np.unique(atlas.images))
    about = f"{len(atlas.xy)} activation vectors of {count} images, averaged over a {atlas.grid}×{atlas.grid} grid"
    canvas.heading(axes, f"Atlas of {atlas.layer} in {atlas.model}", about, limit=60, room=room)
    top = MARGIN + 46
    scale = sizes(atlas) if density else np.ones(len(atlas.cells))
    for i, cell in enumerate(atlas.cells):
        side = tile * float(scale[i]) * 0.97
        x = MARGIN + cell.column * tile + (tile - side) / 2
        y = top + cell.row * row + (tile - side) / 2
        if atlas.statuses[i] != "ok":
            canvas.mark(axes, x, y, side, atlas.statuses[i])
        else:
            canvas.place_image(axes, crops.pixels(atlas.icons[i], atlas.icons.shape[1]), x, y, side, side)
        if labels and cell.labels:
            name, at = cell.labels[0][0].split(",")[0], MARGIN + (cell.column + 0.5) * tile
            limit = max(4, int(tile / 5))
            canvas.write(axes, at, top + cell.row * row + tile + 9, name, size=8.5, align="center", limit=limit)
    below = ["size: number of samples in a cell"] if density else []
    below += [_similarity(row) for row in atlas.similarity if row.quantity in _SIMILARITY]
    for i, text in enumerate(below):
        canvas.note(axes, MARGIN, top + height + 18 + 17 * i, text, size=11, limit=room)
    return figure


def sizes(atlas: Atlas) -> NDArray[np.float64]:
    """Side of each cell's icon as a share of the largest, in [0.45, 1]: areas go with logarithms of counts."""
    counts = np.log1p(np.array([c.count for c in atlas.cells], dtype=np.float64))
    share = counts / max(float(counts.max(initial=0.0)), 1e-12)
    return np.asarray(np.maximum(_SMALLEST, np.sqrt(share)))


_SIMILARITY = {"cells": "cosine of neighboring cells", "classes": "cosine of the class attributions of neighbors"}


def _similarity(row: NeighborSimilarity) -> str:
    shuffled = "" if row.shuffled is None else f"; in shuffled data {row.shuffled:.2f}"
    return minus(f"{_SIMILARITY[row.quantity]}: {row.neighbors:.2f} (any two {row.random:.2f}{shuffled})")


def atlas_page(
    atlas: Atlas, *, command: str, python: str, photographs: Mapping[int, Sequence[crops.Crop]] | None = None
) -> str:
    """The atlas as one self-contained HTML page, light and dark: point at a cell, or tab to it, to see what it holds.

    Args:
        atlas: of `circuits.activation_atlas`.
        command: the shell command that reproduces it.
        python: the Python that does.
        photographs: cell number (its position in `atlas.cells`) -> crops of its examples.
    """
    facts = [
        ("images", len(np.unique(atlas.images))),
        ("samples", len(atlas.xy)),
        ("grid", f"{atlas.grid}×{atlas.grid}"),
        ("cells shown", len(atlas.cells)),
        ("samples shown", f"{sum(c.count for c in atlas.cells) / len(atlas.xy):.0%}"),
        ("icons", f"{atlas.settings['size']} pixels, {atlas.settings['steps']} steps"),
    ]
    return html_page.page(
        "atlas.html",
        title=f"Atlas of {atlas.layer} in {atlas.model}",
        atlas=atlas,
        facts=facts,
        cells=list(zip(atlas.cells, atlas.statuses, sizes(atlas), strict=True)),
        icon=lambda i: crops.data_uri(crops.pixels(atlas.icons[i], atlas.icons.shape[1]), photograph=True),
        photographs=photographs or {},
        similarities=[
            (
                SIMILARITIES.get(row.quantity, row.quantity),
                [*map(_number, (row.neighbors, row.random, row.shuffled)), row.pairs],
            )
            for row in atlas.similarity
        ],
        command=command,
        python=python,
        provenance=dict(atlas.provenance),
    )


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else minus(f"{value:.2f}")


def example_crops(atlas: Atlas, images: Source, spec: InputSpec, n: int = 4) -> dict[int, list[crops.Crop]]:
    """The receptive fields that a cell's examples were sampled at: cell number -> crops, as `atlas_page` takes them.

    Args:
        atlas: of `circuits.activation_atlas`.
        images: the images it was made of.
        spec: the model's input.
        n: at most so many a cell.

    Raises:
        CircuitsError: these are not the images that the atlas was made of.
    """
    examples = {str(i): cell.examples[:n] for i, cell in enumerate(atlas.cells)}
    return {int(i): cut for i, cut in crops.cut_examples(examples, open_images(images), spec).items()}
