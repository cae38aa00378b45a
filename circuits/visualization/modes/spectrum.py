"""The spectrum of activations: what a unit answers to, from its lowest values to its highest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.dataset.peak_positions import examples
from circuits.errors import VisualizationError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.visualization.modes.checks import refuse, whole
from circuits.visualization.objectives import Reading, as_maps, of_unit
from circuits.visualization.parametrizations import generator
from circuits.visualization.render import visualize
from circuits.visualization.result import Visualization
from zoo.images.sources import Images, Source, open_images
from zoo.progress import Progress

SLIGHTLY = 0.25
"""Standard deviations from zero at which a unit answers slightly."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What a unit answers to, from its lowest to its highest; see `spectrum`.

    Attributes:
        unit: its address.
        negative, positive: pictures made to lower and to raise it.
        minimum, maximum: photographs with its lowest and highest values, the most extreme first.
        slightly_negative, slightly_positive: photographs and positions drawn at random with values near -0.25 and
            +0.25 standard deviations, the nearest first; fewer or none where no value has that sign.
        layer: where values are read: before the rectifier where there is one.
        mean, spread: of the values over all positions of all photographs; the spread is the standard deviation.
        images: name of the set of photographs.
        count: how many.
        provenance: weights, photographs, seed, versions.
    """

    unit: str
    negative: Visualization
    minimum: tuple[Example, ...]
    slightly_negative: tuple[Example, ...]
    slightly_positive: tuple[Example, ...]
    maximum: tuple[Example, ...]
    positive: Visualization
    layer: str
    mean: float
    spread: float
    images: str
    count: int
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> dict[str, tuple[Example, ...]]:
        """The four groups of photographs from low to high."""
        return {
            "minimum": self.minimum,
            "slightly negative": self.slightly_negative,
            "slightly positive": self.slightly_positive,
            "maximum": self.maximum,
        }

    def describe(self) -> dict[str, Any]:
        """Everything but pixels, ready for JSON."""
        groups = {
            name: [
                {"image": e.image, "id": e.id, "value": e.value, "position": list(e.position), "box": list(e.box)}
                for e in shown
            ]
            for name, shown in self.examples.items()
        }
        return {
            "unit": self.unit,
            "layer": self.layer,
            "mean": self.mean,
            "spread": self.spread,
            "images": self.images,
            "count": self.count,
            "negative": self.negative.describe(),
            "positive": self.positive.describe(),
            "examples": groups,
            "provenance": self.provenance,
        }


def spectrum(
    model: Model,
    unit: str | Unit,
    images: Source,
    *,
    k: int = 4,
    steps: int = 256,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
    **options: Any,
) -> Spectrum:
    """What a channel or a direction answers to, from the lowest of its values to the highest.

    One pass over the photographs keeps three values of each: the lowest, the highest and that at one position drawn
    at random. (Olah et al., *Feature Visualization*, Distill 2017: the spectrum of activations.)

    Args:
        model: the model.
        unit: a channel, or a direction of a basis (`layer~basis:i`), whose inner product is taken.
        images: photographs.
        k: how many for each group, at least 1.
        steps: of the two optimizations.
        seed: of everything random.
        batch_size: photographs at once; the result is the same, but for rounding.
        progress: True for a bar, or a function of (done, total): first in photographs, then in steps, twice.
        **options: of `visualize`, for the two optima.

    Raises:
        AddressError: an unknown unit, or a layer. VisualizationError: a neuron, or options that make no sense.
        ImageError: no readable photographs.

    >>> spectrum(load("scenes"), "mixed4a:22", "scenes:8", k=2, steps=1).maximum[0].value > 0
    True
    """
    refuse(options, "optimum", "variants", "frames")
    found = model.unit(unit)
    if found.at is not None:
        raise VisualizationError(
            f"{found.short} is a neuron: a spectrum is of a channel; leave out @{found.at[0]},{found.at[1]}"
        )
    whole(k, "k")
    reading = of_unit(model, found, before_rectifier=True)
    assert isinstance(reading, Reading)
    pictures = open_images(images)
    seen = _values(model, reading, pictures, seed, batch_size, progress)
    spread = seen.spread

    def most(rows: Tensor, order: Tensor, limit: int = k) -> tuple[Example, ...]:
        chosen = [(float(rows[i, 0]), i, divmod(int(rows[i, 1]), seen.width)) for i in order[:limit].tolist()]
        return examples(model, found, pictures, chosen)

    def slightly(sign: int) -> tuple[Example, ...]:
        values = sign * seen.drawn[:, 0]
        far = torch.where(values > 0, (values - SLIGHTLY * spread).abs(), math.inf)
        return most(seen.drawn, far.argsort(stable=True), min(k, int((values > 0).sum())))

    low, high = (
        visualize(model, found, steps=steps, optimum=o, seed=seed, progress=progress, **options)[0]
        for o in ("negative", "positive")
    )
    return Spectrum(
        unit=str(found),
        negative=low,
        minimum=most(seen.lowest, seen.lowest[:, 0].argsort(stable=True)),
        slightly_negative=slightly(-1),
        slightly_positive=slightly(1),
        maximum=most(seen.highest, seen.highest[:, 0].argsort(stable=True, descending=True)),
        positive=high,
        layer=reading.layer,
        mean=seen.mean,
        spread=spread,
        images=pictures.name,
        count=len(pictures),
        provenance=provenance(model=model.name, weights=model.digest, images=pictures.digest, seed=seed),
    )


@dataclass(frozen=True, eq=False)
class _Values:
    """Per photograph a value and its flat position, `(N, 2)` float64 each, and the moments of all values."""

    lowest: Tensor
    highest: Tensor
    drawn: Tensor
    width: int
    mean: float
    spread: float


@torch.no_grad()
def _values(
    model: Model, reading: Reading, pictures: Images, seed: int, batch_size: int, progress: Progress
) -> _Values:
    layer = model.layers[reading.layer]
    places = torch.rand(len(pictures), generator=generator(seed, "spectrum"), dtype=torch.float64)
    rows: list[list[Tensor]] = [[], [], []]
    total = squares = torch.zeros((), dtype=torch.float64)
    count, width = 0, 1
    for indices, batch in pictures.batches(model.input, batch_size=batch_size, progress=progress):
        acts = as_maps(read(model, batch, [layer])[layer.name])
        width = acts.shape[3]
        if reading.index is not None:
            said = acts[:, int(reading.index)]
        else:
            assert reading.along is not None
            said = torch.einsum("nchw,c->nhw", acts, reading.along[0].to(acts))
        values = said.flatten(1).double().cpu()
        at = (places[indices] * values.shape[1]).long()[:, None]
        for kept, (value, flat) in zip(
            rows, (values.min(1, keepdim=True), values.max(1, keepdim=True), (values.gather(1, at), at)), strict=True
        ):
            kept.append(torch.cat([value, flat.double()], 1))
        total, squares, count = total + values.sum(), squares + values.square().sum(), count + values.numel()
    mean = float(total) / count
    spread = math.sqrt(max(0.0, float(squares) / count - mean**2))
    lowest, highest, drawn = (torch.cat(kept) for kept in rows)
    return _Values(lowest, highest, drawn, width, mean, spread)
