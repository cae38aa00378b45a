"""The activation atlas: a layer's activation vectors on a map on which similar vectors lie close together.

Activation vectors are sampled from many images, laid out in a square, averaged over the cells of a grid, and each
average is visualized by an icon (Carter, Armstrong, Schubert, Johnson, Olah, *Exploring Neural Networks with Activation
Atlases*, Distill 2019). `circuits.activations.atlas_builder` computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from circuits.activations.layout import NeighborSimilarity
from circuits.common.examples import Example
from circuits.errors import CircuitsError
from circuits.network.basis import Directions
from circuits.visualization.modes.checks import refuse
from circuits.visualization.settings import RenderSettings
from zoo.common.checks import number, whole_number
from zoo.common.reading import Count
from zoo.common.results import Result
from zoo.common.settings import check_options, settings_of


@dataclass(frozen=True)
class AtlasSettings:
    """The options of `activation_atlas`.

    Attributes:
        grid: cells a side.
        per_image: positions sampled of each image.
        margin: rows and columns along the border of the map that are not sampled.
        least: cells with fewer samples are left empty.
        steps: of the optimization of icons. The published atlases took 512; 128 give most of it.
        size: pixels of an icon.
        render: pixels that it is optimized at, by default a quarter more: downsampled to `size` it loses the finest
            noise.
        whiten: visualize how a cell differs from all others (see `circuits.activations.whitening`), as the published
            atlases do.
        shrinkage: of the whitening; from 0.01 to 0.3 icons of GoogLeNet differ little.
        cossim_pow: exponent of the cosine that the inner product is multiplied with: how closely an icon follows its
            direction. The published atlases took 4, at one neuron; here the mean over all positions of the icon is
            maximized, which at these sizes gives clearer images.
        perplexity: of t-SNE.
        classes: images on which to measure the effect of each cell on class scores, 0 for none; by default 12 where
            the model names its classes.
        controls: also lay out shuffled data, for `Atlas.similarity`.
        batch_size: icons at once; default 16.
        seed: of everything random.
        icons: further options of `visualize`: transforms, params, rate, redirect, precision.

    Raises:
        CircuitsError: a value that is out of range.
    """

    grid: int = 12
    per_image: int = 4
    margin: int = 1
    least: int = 4
    steps: int = 128
    size: int = 64
    render: int | None = None
    whiten: bool = True
    shrinkage: float = 0.3
    cossim_pow: float = 2.0
    perplexity: float = 30.0
    classes: int | None = None
    controls: bool = True
    batch_size: int | None = None
    seed: int = 0
    icons: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = {"grid": 1, "per_image": 1, "margin": 0, "least": 1, "steps": 1, "size": 1, "render": 1, "classes": 0}
        for name, minimum in {**least, "batch_size": 1}.items():
            if getattr(self, name) is not None or name not in ("render", "classes", "batch_size"):
                whole_number(name, getattr(self, name), least=minimum)
        number("shrinkage", self.shrinkage, least=0, most=1)
        refuse(self.icons, "optimum", "variants")
        check_options(self.icons, (f.name for f in fields(RenderSettings)))


def atlas_settings(settings: AtlasSettings | None, options: Mapping[str, Any]) -> AtlasSettings:
    """Settings of `activation_atlas` from its keywords, which are those of the atlas and of `visualize`.

    Raises:
        CircuitsError: an option of neither, with the nearest names.
    """
    own = [f.name for f in fields(AtlasSettings)]
    check_options(options, dict.fromkeys([*own, *(f.name for f in fields(RenderSettings))]))
    icons = {**(settings.icons if isinstance(settings, AtlasSettings) else {}), **options.get("icons", {})}
    icons |= {name: value for name, value in options.items() if name not in own}
    return settings_of(
        AtlasSettings, settings, {**{n: v for n, v in options.items() if n in own}, "icons": icons}, error=CircuitsError
    )


@dataclass(frozen=True)
class Cell:
    """One cell of an atlas.

    Attributes:
        row, column: on the grid, from the top left.
        count: samples in it.
        examples: samples of different images nearest to its direction; `value` is the cosine.
        units: `(address, score)` of the most distinctive units: by how many standard deviations over all samples
            their mean in this cell lies above their mean over all samples.
        labels: `(class, effect)` of the classes that it raises most: what its direction adds to the class score when
            added at all positions of other images (see `ClassScores.pushes`), less the mean over all cells. Empty
            without `classes`.
    """

    row: Count
    column: Count
    count: Count
    examples: tuple[Example, ...]
    units: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Atlas(Result):
    """An activation atlas; see `activation_atlas`.

    Attributes:
        model, layer: names; `layer` may name a basis (`mixed4a~sae`), whose latents are then the units.
        grid: cells a side.
        xy: `(n, 2)` in [0, 1], the position of each sample on the map: x to the right, y down.
        images, positions: `(n,)`, `(n, 2)` image and position that each sample is from.
        numbers: `(n,)` the cell of each sample, `row * grid + column`, also of cells that are left empty.
        cells: those with enough samples, by row and column.
        directions: `(cells, C)` mean activation vectors.
        icon_directions: `(cells, C)` the directions that the icons are optimized for: whitened with `whiten`.
        icons: `(cells, channels, H, W)` in [0, 1].
        statuses: of each icon: "ok", "dead", "not finite", or "missing" while a run has not come so far.
        similarity: how similar neighbors are, with controls: "samples" (cosine of a sample and the nearest one of
            another image), "cells" (cosine of the directions of adjacent cells), "classes" (the same of their effects
            on classes), and "labels" (share of samples whose nearest one of another image has the same label), as far
            as they are known. Cosines are about the mean.
        settings: `AtlasSettings`, layer, weights and images as JSON holds them.
        provenance: weights, images, seed, versions.
    """

    model: str
    layer: str
    grid: int
    xy: NDArray[np.float32]
    images: NDArray[np.int64]
    positions: NDArray[np.int64]
    numbers: NDArray[np.int64]
    cells: tuple[Cell, ...]
    directions: Tensor
    icon_directions: Tensor
    icons: Tensor
    statuses: tuple[str, ...]
    similarity: tuple[NeighborSimilarity, ...]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def basis(self) -> Directions:
        """The cells' directions, each of length one, as a basis to attach: `layer~name:i` is cell `i`."""
        return Directions(F.normalize(self.directions, dim=1))

    def at(self, row: int, column: int) -> Cell | None:
        """The cell at a row and column of the grid; None where it has too few samples."""
        return next((c for c in self.cells if (c.row, c.column) == (row, column)), None)

    def describe(self) -> dict[str, Any]:
        """Everything but samples and pixels, ready for JSON."""
        return {
            "model": self.model,
            "layer": self.layer,
            "grid": self.grid,
            "samples": len(self.xy),
            "pictures": len(np.unique(self.images)),
            "shown": len(self.cells),
            "samples_shown": sum(c.count for c in self.cells),
            "icons": {s: self.statuses.count(s) for s in dict.fromkeys(self.statuses)},
            "likeness": [s.describe() for s in self.similarity],
            "cells": [
                {
                    "row": c.row,
                    "column": c.column,
                    "count": c.count,
                    "units": [{"unit": u, "score": s} for u, s in c.units],
                    "labels": [{"class": n, "push": p} for n, p in c.labels],
                    "examples": [{"image": e.image, "id": e.id, "position": list(e.position)} for e in c.examples],
                }
                for c in self.cells
            ],
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
        }
