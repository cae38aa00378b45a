"""The activation atlas: what a layer can say, laid out so that what is alike lies together.

Activation vectors are sampled from many pictures, laid out in a square, averaged over the cells of a grid, and each
average is shown by a picture made by optimization (Carter, Armstrong, Schubert, Johnson, Olah, *Exploring Neural
Networks with Activation Atlases*, Distill 2019). `circuits.activations.atlas_builder` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from circuits.activations.layout import Likeness
from circuits.common.examples import Example
from circuits.network.basis import Directions


@dataclass(frozen=True)
class Cell:
    """One cell of an atlas.

    Attributes:
        row, column: on the grid, from the top left.
        count: samples in it.
        examples: samples of different pictures nearest to its direction; `value` is the cosine.
        units: `(address, score)` of the units that tell it from the rest of the atlas: by how many standard
            deviations over all samples their mean in this cell lies above their mean over all samples.
        labels: `(class, push)` of the classes that it pushes most: what its direction adds to the class score when
            added everywhere in other pictures (see `ClassScores.pushes`), less the mean over all cells. Empty where
            not asked for.
    """

    row: int
    column: int
    count: int
    examples: tuple[Example, ...]
    units: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Atlas:
    """An activation atlas; see `activation_atlas`.

    Attributes:
        model, layer: names; `layer` may name a basis (`mixed4a~sae`), whose latents are then the units.
        grid: cells a side.
        xy: `(n, 2)` in [0, 1] where each sample lies: x to the right, y down.
        images, positions: `(n,)`, `(n, 2)` what each sample is of.
        numbers: `(n,)` the cell of each sample, `row * grid + column`, also of cells that are not shown.
        cells: those with enough samples, by row and column.
        directions: `(cells, C)` mean activation vectors; drawn: what the icons show of them, whitened where asked.
        icons: `(cells, channels, H, W)` in [0, 1].
        statuses: of each icon: "ok", "dead", "not finite", or "missing" while a run has not come so far.
        likeness: how alike neighbors are, with controls: "samples" (cosine of a sample and the nearest one of another
            picture), "cells" (cosine of the directions of cells side by side), "classes" (the same of their class
            pushes), and "labels" (share of samples whose nearest one of another picture has its
            label), as far as they are known. Cosines are about the mean.
        settings: what it was made with, as JSON holds it.
        provenance: weights, pictures, seed, versions.
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
    drawn: Tensor
    icons: Tensor
    statuses: tuple[str, ...]
    likeness: tuple[Likeness, ...]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def basis(self) -> Directions:
        """The cells' directions, each of length one, as a basis to attach: `layer~name:i` is cell `i`."""
        return Directions(F.normalize(self.directions, dim=1))

    def at(self, row: int, column: int) -> Cell | None:
        """The cell at a place of the grid; None where too few samples lie."""
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
            "likeness": [vars(one) for one in self.likeness],
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
