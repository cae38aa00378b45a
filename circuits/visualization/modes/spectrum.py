"""The spectrum of a unit's activations: optima and natural images from its lowest activations to its highest."""

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
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.visualization.modes.checks import refuse
from circuits.visualization.objectives import Reading, of_unit
from circuits.visualization.parametrizations import generator
from circuits.visualization.render import visualize
from circuits.visualization.result import Visualization
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.common.results import HIDDEN, Result, remembers
from zoo.images.sources import Images, Source, open_images
from zoo.progress import Progress

SLIGHTLY = 0.25
"""Standard deviations from zero at which a unit is slightly active."""


@dataclass(frozen=True, eq=False)
class Spectrum(Result):
    """A unit from its lowest activations to its highest; see `spectrum`.

    Attributes:
        unit: its address.
        negative, positive: images optimized to minimize and to maximize it.
        minimum, maximum: images with its lowest and highest activations, the most extreme first.
        slightly_negative, slightly_positive: images and positions, sampled at random, with activations near -0.25 and
            +0.25 standard deviations, the nearest first; fewer or none where no activation has that sign.
        layer: where activations are read: before the ReLU where there is one.
        mean, spread: mean and standard deviation of the activations over all positions of all images.
        images: name of the set of images.
        count: how many.
        provenance: weights, images, seed, versions.
    """

    unit: str
    negative: Visualization
    minimum: tuple[Example, ...] = field(metadata=HIDDEN)
    slightly_negative: tuple[Example, ...] = field(metadata=HIDDEN)
    slightly_positive: tuple[Example, ...] = field(metadata=HIDDEN)
    maximum: tuple[Example, ...] = field(metadata=HIDDEN)
    positive: Visualization
    layer: str
    mean: float
    spread: float
    images: str
    count: int
    provenance: dict[str, Any] = field(default_factory=dict)

    described = ("examples",)

    @property
    def examples(self) -> dict[str, tuple[Example, ...]]:
        """The four groups of images from low to high."""
        return {
            "minimum": self.minimum,
            "slightly negative": self.slightly_negative,
            "slightly positive": self.slightly_positive,
            "maximum": self.maximum,
        }


@remembers("model", "images")
@outside_inference_mode
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
    """A channel or a direction from the lowest of its activations to the highest.

    One pass over the images stores three activations of each: the lowest, the highest and that at one position
    sampled at random. (Olah et al., *Feature Visualization*, Distill 2017: the spectrum of activations.)

    Args:
        model: the model.
        unit: a channel, or a direction of a basis (`layer~basis:i`), whose inner product is taken.
        images: natural images.
        k: how many for each group, at least 1.
        steps: of the two optimizations.
        seed: of everything random.
        batch_size: images at once; the result is the same, but for rounding.
        progress: True for a bar, or a function of (done, total): first in images, then in steps, twice.
        **options: of `visualize`, for the two optima.

    Raises:
        AddressError: an unknown unit, or a layer. VisualizationError: a neuron, or options that do not fit.
        ImageError: no readable images.

    >>> spectrum(load("scenes"), "mixed4a:22", "scenes:8", k=2, steps=1).maximum[0].value > 0
    True
    """
    refuse(options, "optimum", "variants", "frames")
    target = model.unit(unit)
    if target.at is not None:
        raise VisualizationError(
            f"{target.short} is a neuron: a spectrum is of a channel; leave out @{target.at[0]},{target.at[1]}"
        )
    whole_number("k", k, error=VisualizationError)
    reading = of_unit(model, target, pre_activation=True)
    assert isinstance(reading, Reading)
    source = open_images(images)
    values = _values(model, reading, source, seed, batch_size, progress)

    def top(rows: Tensor, order: Tensor, limit: int = k) -> tuple[Example, ...]:
        chosen = [(float(rows[i, 0]), i, divmod(int(rows[i, 1]), values.width)) for i in order[:limit].tolist()]
        return examples(model, target, source, chosen)

    def slightly(sign: int) -> tuple[Example, ...]:
        signed = sign * values.sampled[:, 0]
        distance = torch.where(signed > 0, (signed - SLIGHTLY * values.spread).abs(), math.inf)
        return top(values.sampled, distance.argsort(stable=True), min(k, int((signed > 0).sum())))

    low, high = (
        visualize(model, target, steps=steps, optimum=o, seed=seed, progress=progress, **options)[0]
        for o in ("negative", "positive")
    )
    return Spectrum(
        unit=str(target),
        negative=low,
        minimum=top(values.lowest, values.lowest[:, 0].argsort(stable=True)),
        slightly_negative=slightly(-1),
        slightly_positive=slightly(1),
        maximum=top(values.highest, values.highest[:, 0].argsort(stable=True, descending=True)),
        positive=high,
        layer=reading.layer,
        mean=values.mean,
        spread=values.spread,
        images=source.name,
        count=len(source),
        provenance=provenance(model=model.name, weights=model.digest, images=source.digest, seed=seed),
    )


@dataclass(frozen=True, eq=False)
class _Values:
    """Per image an activation and its flat position, `(N, 2)` float64 each, and the moments of all activations."""

    lowest: Tensor
    highest: Tensor
    sampled: Tensor
    width: int
    mean: float
    spread: float


@torch.no_grad()
def _values(model: Model, reading: Reading, images: Images, seed: int, batch_size: int, progress: Progress) -> _Values:
    layer = model.layers[reading.layer]
    samples = torch.rand(len(images), generator=generator(seed, "spectrum"), dtype=torch.float64)
    lowest, highest, sampled = list[Tensor](), list[Tensor](), list[Tensor]()
    total = squares = torch.zeros((), dtype=torch.float64)
    count, width = 0, 1
    for indices, batch in images.batches(model.input, batch_size=batch_size, progress=progress):
        acts = as_maps(read(model, batch, [layer])[layer.name])
        width = acts.shape[3]
        if reading.index is not None:
            maps = acts[:, int(reading.index)]
        else:
            assert reading.along is not None
            maps = torch.einsum("nchw,c->nhw", acts, reading.along[0].to(acts))
        values = maps.flatten(1).double().cpu()
        at = (samples[indices] * values.shape[1]).long()[:, None]
        extremes = values.min(1, keepdim=True), values.max(1, keepdim=True), (values.gather(1, at), at)
        for rows, (value, flat) in zip((lowest, highest, sampled), extremes, strict=True):
            rows.append(torch.cat([value, flat.double()], 1))
        total, squares, count = total + values.sum(), squares + values.square().sum(), count + values.numel()
    mean = float(total) / count
    spread = math.sqrt(max(0.0, float(squares) / count - mean**2))
    return _Values(torch.cat(lowest), torch.cat(highest), torch.cat(sampled), width, mean, spread)
