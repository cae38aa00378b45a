"""Modes of feature visualization beyond one image per unit.

- `spectrum`: a unit over its range of activations: optima, and natural images in between.
- `decomposed`: a visualization for each position of the expanded weights from an earlier layer to a unit.
- `caricature_strip`: an image whose activations each layer exaggerates.
- `accentuate`: images changed so that a unit's activation rises, and little else changes.
- `trajectory`: an image as it is optimized, step by step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from circuits.attribution.expanded_weights import expanded_weights
from circuits.common.provenance import provenance
from circuits.errors import VisualizationError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.visualization.modes.checks import opened, refuse
from circuits.visualization.modes.shared_start import shared_start
from circuits.visualization.objectives import Objective, caricature, direction
from circuits.visualization.render import visualize
from circuits.visualization.result import Visualization
from circuits.visualization.settings import pixels_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.common.results import Result, remembers
from zoo.images.sources import Source
from zoo.progress import Progress

# -- decomposed feature visualization ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decomposed(Result):
    """A unit's visualizations at each position of its expanded weights from an earlier layer; see `decomposed`.

    Attributes:
        target: address of the unit.
        source: name of the earlier layer.
        directions: expanded weights `(channels, kh, kw)`: at each position a direction of the source layer.
        norms: `(kh, kw)` their norms, divided by the largest: 1 at the position that counts most.
        excitation: `(kh, kw)` norms of their positive parts, divided by the same number.
        largest: the largest norm.
        visualizations: `visualizations[i][j]` for position `i, j`; None where the norm is too small to count, or where
            all weights inhibit.
        offset: row and column of the first position relative to the target's, in positions of the source.
        inhibition: whether the visualizations also minimize what inhibits.
        provenance: weights, seed, versions.
    """

    target: str
    source: str
    directions: Tensor
    norms: Tensor
    excitation: Tensor
    largest: float
    visualizations: tuple[tuple[Visualization | None, ...], ...]
    offset: tuple[int, int]
    inhibition: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def opacity(self) -> Tensor:
        """Opacity at which to draw each visualization, `(kh, kw)`: its weight relative to the largest."""
        size = self.norms if self.inhibition else self.excitation
        return size / size.max().clamp(min=1e-30)


@outside_inference_mode
def decomposed(
    model: Model,
    target: str | Unit,
    source: str,
    *,
    steps: int = 128,
    keep: float = 0.02,
    crop: int | None = None,
    inhibition: bool = False,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> Decomposed:
    """A visualization for each position of the expanded weights from a layer to a unit.

    At each position the weights from all channels are a direction of the source layer. An image is optimized for the
    mean inner product with its positive part. All images start from the same noise, and positions with the same
    weights (those of a pool) share one, so that images differ by their directions only.
    (Decomposed feature visualization: Voss et al., *Visualizing Weights*, and Cammarata et al., *Curve Circuits*,
    Distill 2021.)

    Args:
        model: the model.
        target: the unit.
        source: the earlier layer.
        steps: of the optimization.
        keep: no image is optimized where the norm is below this share of the largest, in [0, 1].
        crop: only so many rows and columns in the middle; layers far apart have large kernels.
        inhibition: optimize for the whole direction, negative weights too. After a ReLU that leaves images gray where
            inhibition prevails; where activations may be negative, negative weights excite too, and it is right.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer or unit. GraphError: no weights between them.
        VisualizationError: all of them are zero, or options that do not fit.

    >>> decomposed(load("scenes"), "mixed3b:4", "mixed3a", steps=1, keep=0.9).norms.max()
    tensor(1.)
    """
    refuse(options, "optimum", "variants")
    number("keep", keep, least=0, most=1, error=VisualizationError)
    unit = model.unit(target)
    weights = expanded_weights(model, source=source, target=unit)
    kernels, offset = weights.kernels[0].detach().float().cpu(), weights.offset
    if crop is not None:
        whole_number("crop", crop, error=VisualizationError)
        start = [max(0, (side - crop) // 2) for side in kernels.shape[1:]]
        kernels = kernels[:, start[0] : start[0] + crop, start[1] : start[1] + crop]
        offset = (offset[0] + start[0], offset[1] + start[1])
    lengths = kernels.norm(dim=0)
    largest = float(lengths.max())
    if not (largest > 0 and math.isfinite(largest)):
        raise VisualizationError(f"the weights from {weights.source} to {unit.short} are all zero, or not finite")
    norms = lengths / largest
    goals = kernels if inhibition else kernels.clamp(min=0)
    # a channel that hardly counts but is active on gray would keep the gradient from being redirected to the others
    goals = torch.where(goals.abs() < 0.01 * goals.abs().amax(0), 0.0, goals)
    parts = goals.norm(dim=0)
    positions = [(i, j) for i, j in ((norms >= max(keep, 1e-12)) & (parts > 0)).nonzero().tolist()]
    distinct, numbers = _distinct([goals[:, i, j] / parts[i, j] for i, j in positions])
    images: list[Visualization] = []
    if distinct:
        options["params"] = shared_start(options.get("params"), seed)
        along = [direction(weights.source, vector) for vector in distinct]
        images = visualize(model, along, steps=steps, seed=seed, progress=progress, **options)
    by_position = {
        p: replace(images[k], unit=f"{unit.short}[{p[0]},{p[1]}]") for p, k in zip(positions, numbers, strict=True)
    }
    height, width = norms.shape
    return Decomposed(
        target=str(unit),
        source=weights.source,
        directions=kernels,
        norms=norms,
        excitation=kernels.clamp(min=0).norm(dim=0) / largest,
        largest=largest,
        visualizations=tuple(tuple(by_position.get((i, j)) for j in range(width)) for i in range(height)),
        offset=offset,
        inhibition=inhibition,
        provenance=provenance(model=model.name, weights=model.digest, seed=seed),
    )


def _distinct(directions: Iterable[Tensor]) -> tuple[list[Tensor], list[int]]:
    """The unit vectors that differ by more than rounding, and for each of `directions` the number of its own."""
    distinct: list[Tensor] = []
    numbers: list[int] = []
    for vector in directions:
        same = next((k for k, other in enumerate(distinct) if float((vector - other).norm()) < 1e-4), len(distinct))
        distinct += [vector] if same == len(distinct) else []
        numbers.append(same)
    return distinct, numbers


# -- caricatures ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Strip(Result):
    """An image and its caricatures by several layers; see `caricature_strip`.

    Attributes:
        image: `(C, H, W)` in [0, 1], at the size given to the network.
        id: its name.
        layers: names of the layers.
        visualizations: the caricature of each.
        similarity: cosine of the activations of the layer on its caricature with those on the image.
        exaggeration: length of the caricature's activations along those of the image, over their norm: 1 for the image.
        provenance: weights, image, seed, versions.
    """

    image: Tensor
    id: str
    layers: tuple[str, ...]
    visualizations: tuple[Visualization, ...]
    similarity: tuple[float, ...]
    exaggeration: tuple[float, ...]
    provenance: dict[str, Any] = field(default_factory=dict)


@remembers("model")
@outside_inference_mode
def caricature_strip(
    model: Model,
    image: Source,
    layers: str | Iterable[str],
    *,
    steps: int = 256,
    cossim_pow: float = 1.0,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> Strip:
    """An image as each layer exaggerates it, which shows what the layer represents of it and what not.

    Each caricature starts from noise and is optimized for the inner product with the layer's activations on the image
    (`circuits.visualization.objectives.caricature`).

    Args:
        model: the model.
        image: one image: whatever `open_images` takes, or a tensor `(C, H, W)`.
        layers: names of layers.
        steps: of the optimizations.
        cossim_pow: power of the cosine that the inner product is multiplied with; larger keeps nearer to the original.
        size: pixels of the image and the caricatures; default the model's own.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer. ImageError: no readable image.
        VisualizationError: not one image, no layers, or a layer that is all zero on it.
    """
    refuse(options, "optimum", "variants", "show")
    names = [model.layer(n).name for n in ([layers] if isinstance(layers, str) else layers)]
    if not names:
        raise VisualizationError("name at least one layer for the strip, for example mixed3b")
    batch, ids, digest = opened(model, image, pixels_of(size, "size") or model.input.hw)
    if len(batch) != 1:
        raise VisualizationError(f"a strip is of one image; {len(batch)} were given")
    with torch.no_grad():
        own = read(model, batch, [model.layers[n] for n in dict.fromkeys(names)])
    silent = [n for n in names if not bool(own[n].any())]
    if silent:
        raise VisualizationError(f"{silent[0]} is all zero on this image: there is nothing to exaggerate")
    pixels = (batch.shape[2], batch.shape[3])
    goals = [caricature(n, own[n], cossim_pow) for n in names]
    results = visualize(model, goals, steps=steps, size=pixels, seed=seed, progress=progress, **options)
    similarity, exaggeration = [], []
    for name, result in zip(names, results, strict=True):
        colors = result.image[: model.input.channels]
        with torch.no_grad():
            acts = read(model, colors[None], [model.layers[name]])[name].flatten().double()
        target = own[name].flatten().double()
        dot = float(acts @ target)
        similarity.append(dot / max(float(acts.norm() * target.norm()), 1e-30))
        exaggeration.append(dot / float(target @ target))
    return Strip(
        image=batch[0].cpu(),
        id=ids[0],
        layers=tuple(names),
        visualizations=tuple(replace(v, unit=f"{model.name}/{n}") for n, v in zip(names, results, strict=True)),
        similarity=tuple(similarity),
        exaggeration=tuple(exaggeration),
        provenance=provenance(model=model.name, weights=model.digest, images=digest, seed=seed, size=list(pixels)),
    )


# -- trajectories -------------------------------------------------------------------------------------------------


@outside_inference_mode
def trajectory(
    model: Model,
    unit: str | Unit | Objective,
    *,
    steps: int = 256,
    frames: int = 16,
    **options: Any,
) -> Visualization:
    """An image as it is optimized: frames after logarithmically spaced steps, from the first to the last.

    Args:
        model: the model.
        unit: a unit, or an objective.
        steps: of the optimization.
        frames: how many, at least 1; no more than there are steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown unit, or a layer. VisualizationError: options that do not fit.

    >>> sorted(trajectory(load("scenes"), "mixed4a:22", steps=8, frames=4).frames)
    [1, 2, 4, 8]
    """
    refuse(options, "variants")
    whole_number("steps", steps, error=VisualizationError)
    target = model.unit(unit) if isinstance(unit, (str, Unit)) else unit
    return visualize(model, [target], steps=steps, frames=log_spaced(steps, frames), **options)[0]


def log_spaced(steps: int, count: int) -> list[int]:
    """`count` different steps (all, if there are fewer) from 1 to `steps`, evenly spaced in their logarithm."""
    whole_number("frames", count, error=VisualizationError)
    count = min(count, steps)
    if count == 1:
        return [steps]
    chosen: list[int] = []
    for i in range(count):
        ideal = round(steps ** (i / (count - 1)))
        chosen.append(max(ideal, chosen[-1] + 1 if chosen else 1))
    return chosen
