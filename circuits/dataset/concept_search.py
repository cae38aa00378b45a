"""Find the units that detect a concept, given images with it and without it.

Each unit is ranked by AUC: the probability that its response to an image with the concept is larger
than to one without (0.5 is chance, below 0.5 it detects the absence). The best of many units owes part of its AUC to
the choice, so a random half of the images ranks the units, and the AUCs, with their intervals, are of the other half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from circuits.common.provenance import provenance
from circuits.common.statistics import auc, bootstrap
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.network.responses import Pool, layer_or_basis, pooled_responses
from zoo.common.results import HIDDEN, Listed, Result
from zoo.images.sources import Images, open_images
from zoo.progress import Progress

_TOP = 10
"""Top images listed for a unit."""


@dataclass(frozen=True)
class TopImage(Result):
    """One of the images that activate a unit most.

    Attributes:
        image: its name; value: the pooled response; positive: whether it shows the concept.
    """

    image: str
    value: float
    positive: bool


@dataclass(frozen=True)
class Finding(Result):
    """How well one unit detects a concept.

    Attributes:
        unit: address; pool: how its map was reduced to one number an image.
        auc: in [0, 1], on the images that did not rank the units; low, high: its 95 % bootstrap interval (None where
            it was not computed).
        mean_positive, mean_negative: mean of the pooled response, over all images.
        chosen_auc: on the images that ranked the units.
        top: of the images that did not, those that activate the unit most, strongest first (empty where the interval
            was not computed).
    """

    unit: str
    auc: float
    pool: str = field(metadata=HIDDEN)
    mean_positive: float
    mean_negative: float
    low: float | None = None
    high: float | None = None
    chosen_auc: float | None = None
    top: tuple[TopImage, ...] = ()


@dataclass(frozen=True)
class Findings(Listed[Finding]):
    """Units ranked for a concept, best first by one half of the images; their AUCs are of the other half.

    Attributes:
        rows: one per unit; layers, n_positive, n_negative: of what, in both halves.
        chance: the largest AUC among all units when the labels of the reporting half are shuffled, a control for the
            number of units compared.
    """

    rows: tuple[Finding, ...]
    layers: tuple[str, ...]
    n_positive: int
    n_negative: int
    chance: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    _inputs: ClassVar[str] = "images"

    def __repr__(self) -> str:
        concept = f"{self.n_positive} {self._inputs} with the concept, {self.n_negative} without"
        best = f"best {self[0].unit} with AUC {self[0].auc:.3f} (chance {self.chance:.3f})" if self.rows else "no unit"
        return f"{type(self).__name__}({len(self)} units on {concept}: {best})"

    @property
    def best(self) -> Finding:
        """The unit with the highest AUC on the images that rank."""
        return self[0]


def find(
    model: Model,
    *,
    positive: Any,
    negative: Any,
    layer: str | None = None,
    layers: Sequence[str] | None = None,
    pool: Pool = "max",
    intervals: int = 20,
    draws: int = 200,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Findings:
    """Rank units for a concept: how to find "the car detector" in a net of your own.

    A random half of the images of either side ranks the units; AUCs, intervals and top images are of the other half.

    Args:
        model: the model.
        positive, negative: images with and without the concept, at least two each, in any form that `capture` takes.
        layer, layers: where to look (default: every layer of the trunk), in one pass over the images; a basis
            attached to a layer (`mixed4a~sae`) is looked through latent by latent.
        pool: "max" or "mean" of a unit's map over positions.
        intervals: compute bootstrap intervals, and list top images, for this many of the best units.
        draws: bootstrap draws per interval.
        seed: for the halves, the bootstrap and the shuffled control.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        AddressError: unknown layer. CircuitsError: fewer than two images on one side, or an unknown pool.

    >>> find(load("scenes"), positive="scenes:5@1", negative="scenes:5@2", layer="mixed4a").rows[0].pool
    'max'
    """
    if pool not in ("max", "mean"):
        raise CircuitsError(f"pool={pool!r}: use 'max' or 'mean'")
    names = [layer] if layer is not None else list(layers) if layers is not None else model.trunk
    if not names:
        raise CircuitsError("name at least one layer to look in")
    spaces = list(dict.fromkeys(layer_or_basis(model, name) for name in names))
    with_concept, without = _side(positive, "positive"), _side(negative, "negative")
    a = pooled_responses(model, with_concept, spaces, pool=pool, batch_size=batch_size, progress=progress)
    b = pooled_responses(model, without, spaces, pool=pool, batch_size=batch_size, progress=progress)
    x, y = torch.cat([a[n] for n in spaces], dim=1), torch.cat([b[n] for n in spaces], dim=1)
    units = [model.resolve(f"{n}:{i}") for n in spaces for i in range(a[n].shape[1])]
    generator = torch.Generator().manual_seed(seed)
    (rank_x, test_x), (rank_y, test_y) = halves(len(x), seed), halves(len(y), seed)
    chosen, areas = auc(x[rank_x], y[rank_y]), auc(x[test_x], y[test_y])
    order = chosen.argsort(descending=True, stable=True).tolist()
    best = order[:intervals]
    held_x, held_y = x[test_x], y[test_y]
    low, high = bootstrap(held_x[:, best], held_y[:, best], draws=draws, generator=generator) if best else (None, None)
    ids = [(with_concept.ids[i], True) for i in test_x.tolist()] + [(without.ids[i], False) for i in test_y.tolist()]
    rows = []
    for rank, i in enumerate(order):
        between: tuple[float | None, float | None] = (None, None)
        top: tuple[TopImage, ...] = ()
        if low is not None and high is not None and rank < len(best):
            between = float(low[rank]), float(high[rank])
            values, at = torch.cat([held_x[:, i], held_y[:, i]]).sort(descending=True, stable=True)
            top = tuple(
                TopImage(ids[j][0], v, ids[j][1]) for v, j in zip(values[:_TOP].tolist(), at.tolist(), strict=False)
            )
        means = float(x[:, i].mean()), float(y[:, i].mean())
        rows.append(Finding(str(units[i]), float(areas[i]), pool, *means, *between, float(chosen[i]), top))
    shuffled = torch.cat([held_x, held_y])[torch.randperm(len(held_x) + len(held_y), generator=generator)]
    return Findings(
        rows=tuple(rows),
        layers=tuple(spaces),
        n_positive=len(x),
        n_negative=len(y),
        chance=float(auc(shuffled[: len(held_x)], shuffled[len(held_x) :]).max()),
        provenance=provenance(
            weights=model.digest, positive=with_concept.digest, negative=without.digest, pool=pool, seed=seed
        ),
    )


def _side(images: Any, which: str) -> Images:
    if images is None:
        raise CircuitsError(f"find needs {which} images")
    dataset = open_images(images)
    if len(dataset) == 0:
        raise CircuitsError(f"there is no {which} image in {dataset.name}")
    if len(dataset) == 1:
        raise CircuitsError(
            f"there is one {which} image in {dataset.name}; find needs two: one half ranks the units, the other tests"
        )
    return dataset


def halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of a random half, and of the others; the same for two sides of one size, so that pairs stay together."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // 2].sort().values, order[count // 2 :].sort().values
