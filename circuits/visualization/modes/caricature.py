"""Modes of feature visualization beyond one picture per unit.

- `spectrum`: what a unit answers to from its lowest to its highest: optima, and photographs in between.
- `decomposed`: what a unit looks for where: a picture for each position of the weights that it reads a layer with.
- `caricature_strip`: a photograph as each layer exaggerates it.
- `accentuate`: photographs changed so that a unit answers more, and little else changes.
- `trajectory`: a picture as it comes about, step by step.
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
from circuits.visualization.modes.accentuation import accentuate
from circuits.visualization.modes.checks import opened, refuse, whole
from circuits.visualization.modes.shared_start import alike
from circuits.visualization.modes.spectrum import SLIGHTLY, Spectrum, spectrum
from circuits.visualization.objectives import Objective, caricature, direction
from circuits.visualization.render import pixels_of, visualize
from circuits.visualization.result import Visualization
from zoo.images.sources import Source
from zoo.progress import Progress

# -- decomposed feature visualization ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decomposed:
    """What a unit looks for where, in terms of an earlier layer; see `decomposed`.

    Attributes:
        target: address of the unit.
        source: name of the earlier layer.
        directions: expanded weights `(channels, kh, kw)`: at each position a direction of the source layer.
        norms: `(kh, kw)` their lengths, divided by the largest: 1 at the position that counts most.
        excitation: `(kh, kw)` lengths of what of them lies above zero, divided by the same number.
        largest: the largest length.
        visualizations: `visualizations[i][j]` for position `i, j`; None where the norm is too small to count, or where
            all weights inhibit.
        offset: row and column of the first position relative to the target's, in positions of what is read.
        inhibition: whether the pictures also lower what inhibits.
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
    """A picture for each position of the expanded weights from a layer to a unit.

    At each position the weights from all channels are a direction of the source layer; what raises the mean inner
    product with its positive part is what the unit looks for there. All pictures start from the same noise, and
    positions with the same weights (those of a pool) share one, so that what differs is what is looked for.
    (Decomposed feature visualization: Voss et al., *Visualizing Weights*, and Cammarata et al., *Curve Circuits*,
    Distill 2021.)

    Args:
        model: the model.
        target: the unit.
        source: the earlier layer.
        steps: of the optimization.
        keep: no picture is made where the norm is below this share of the largest, in [0, 1].
        crop: only so many rows and columns in the middle; layers far apart have large kernels.
        inhibition: also lower what inhibits, by the whole direction. Of a rectified layer that leaves pictures gray
            where inhibition prevails; of one that goes below zero, negative weights may excite too, and it is right.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer or unit. GraphError: no weights between them.
        VisualizationError: all of them are zero, or options that make no sense.

    >>> decomposed(load("scenes"), "mixed3b:4", "mixed3a", steps=1, keep=0.9).norms.max()
    tensor(1.)
    """
    refuse(options, "optimum", "variants")
    if not 0 <= keep <= 1:
        raise VisualizationError(f"keep is a share from 0 to 1, not {keep!r}")
    unit = model.unit(target)
    weights = expanded_weights(model, source=source, target=unit)
    kernels, offset = weights.kernels[0].detach().float().cpu(), weights.offset
    if crop is not None:
        whole(crop, "crop")
        start = [max(0, (side - crop) // 2) for side in kernels.shape[1:]]
        kernels = kernels[:, start[0] : start[0] + crop, start[1] : start[1] + crop]
        offset = (offset[0] + start[0], offset[1] + start[1])
    lengths = kernels.norm(dim=0)
    largest = float(lengths.max())
    if not (largest > 0 and math.isfinite(largest)):
        raise VisualizationError(f"the weights from {weights.source} to {unit.short} are all zero, or not finite")
    norms = lengths / largest
    looked_for = kernels if inhibition else kernels.clamp(min=0)
    # a channel that hardly counts but is on in gray would keep the gradient from being redirected to those that do
    looked_for = torch.where(looked_for.abs() < 0.01 * looked_for.abs().amax(0), 0.0, looked_for)
    parts = looked_for.norm(dim=0)
    places = [(i, j) for i, j in ((norms >= max(keep, 1e-12)) & (parts > 0)).nonzero().tolist()]
    kinds, which = _kinds(torch.stack([looked_for[:, i, j] / parts[i, j] for i, j in places]) if places else None)
    along = [direction(weights.source, one) for one in kinds]
    start_alike = alike(options.pop("params", None), seed)
    made = (
        visualize(model, along, steps=steps, seed=seed, params=start_alike, progress=progress, **options)
        if along
        else []
    )
    named = {p: replace(made[k], unit=f"{unit.short}[{p[0]},{p[1]}]") for p, k in zip(places, which, strict=True)}
    height, width = norms.shape
    return Decomposed(
        target=str(unit),
        source=weights.source,
        directions=kernels,
        norms=norms,
        excitation=kernels.clamp(min=0).norm(dim=0) / largest,
        largest=largest,
        visualizations=tuple(tuple(named.get((i, j)) for j in range(width)) for i in range(height)),
        offset=offset,
        inhibition=inhibition,
        provenance=provenance(model=model.name, weights=model.digest, seed=seed),
    )


def _kinds(directions: Tensor | None) -> tuple[list[Tensor], list[int]]:
    """Directions `(n, C)` of length one that differ by more than rounding, and which of them each one is."""
    kinds: list[Tensor] = []
    which: list[int] = []
    for one in [] if directions is None else directions:
        same = next((k for k, kind in enumerate(kinds) if float((one - kind).norm()) < 1e-4), len(kinds))
        kinds += [one] if same == len(kinds) else []
        which.append(same)
    return kinds, which


# -- caricatures ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Strip:
    """A photograph and what layers make of it; see `caricature_strip`.

    Attributes:
        image: the photograph `(C, H, W)` in [0, 1], as the network was shown it.
        id: its name.
        layers: names of the layers.
        visualizations: the caricature of each.
        similarity: cosine of the activations of the layer on its caricature with those on the photograph.
        exaggeration: how many times as much of that the caricature has: 1 for the photograph itself.
        provenance: weights, photograph, seed, versions.
    """

    image: Tensor
    id: str
    layers: tuple[str, ...]
    visualizations: tuple[Visualization, ...]
    similarity: tuple[float, ...]
    exaggeration: tuple[float, ...]
    provenance: dict[str, Any] = field(default_factory=dict)


def caricature_strip(
    model: Model,
    picture: Source,
    layers: str | Iterable[str],
    *,
    steps: int = 256,
    cossim_pow: float = 1.0,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> Strip:
    """A photograph as each layer exaggerates it: what a layer has seen of it, and what it has left out.

    Each caricature starts from noise and is raised along what its layer says to the photograph
    (`circuits.visualization.objectives.caricature`).

    Args:
        model: the model.
        picture: one photograph: whatever `open_images` takes, or a tensor `(C, H, W)`.
        layers: names of layers.
        steps: of the optimizations.
        cossim_pow: power of the cosine that the inner product is multiplied with; larger keeps nearer to the original.
        size: pixels to show the photograph and the caricatures at; default the model's own.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer. ImageError: no readable picture.
        VisualizationError: not one picture, no layers, or a layer that says nothing to it.
    """
    refuse(options, "optimum", "variants", "show")
    names = [model.layer(n).name for n in ([layers] if isinstance(layers, str) else layers)]
    if not names:
        raise VisualizationError("name at least one layer for the strip, for example mixed3b")
    shown, ids, digest = opened(model, picture, pixels_of(size, "size") or model.input.hw)
    if len(shown) != 1:
        raise VisualizationError(f"a strip is of one photograph; {len(shown)} were given")
    wanted = [model.layers[n] for n in dict.fromkeys(names)]
    with torch.no_grad():
        own = read(model, shown, wanted)
    silent = [n for n in names if not bool(own[n].any())]
    if silent:
        raise VisualizationError(f"{silent[0]} says nothing to this picture: there is nothing to exaggerate")
    pixels = (shown.shape[2], shown.shape[3])
    goals = [caricature(n, own[n], cossim_pow) for n in names]
    made = visualize(model, goals, steps=steps, size=pixels, seed=seed, progress=progress, **options)
    similarity, exaggeration = [], []
    for name, result in zip(names, made, strict=True):
        colors = result.image[: model.input.channels]
        with torch.no_grad():
            said = read(model, colors[None], [model.layers[name]])[name].flatten().double()
        photograph = own[name].flatten().double()
        dot = float(said @ photograph)
        similarity.append(dot / max(float(said.norm() * photograph.norm()), 1e-30))
        exaggeration.append(dot / float(photograph @ photograph))
    return Strip(
        image=shown[0].cpu(),
        id=ids[0],
        layers=tuple(names),
        visualizations=tuple(replace(v, unit=f"{model.name}/{n}") for n, v in zip(names, made, strict=True)),
        similarity=tuple(similarity),
        exaggeration=tuple(exaggeration),
        provenance=provenance(model=model.name, weights=model.digest, images=digest, seed=seed, size=list(pixels)),
    )


# -- how a picture comes about ----------------------------------------------------------------------------------


def trajectory(
    model: Model,
    unit: str | Unit | Objective,
    *,
    steps: int = 256,
    frames: int = 16,
    **options: Any,
) -> Visualization:
    """A picture as it comes about: kept after steps that lie ever further apart, from the first to the last.

    Args:
        model: the model.
        unit: a unit, or an objective.
        steps: of the optimization.
        frames: how many to keep, at least 1; no more than there are steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown unit, or a layer. VisualizationError: options that make no sense.

    >>> sorted(trajectory(load("scenes"), "mixed4a:22", steps=8, frames=4).frames)
    [1, 2, 4, 8]
    """
    refuse(options, "variants")
    whole(steps, "steps")
    what = model.unit(unit) if isinstance(unit, (str, Unit)) else unit
    return visualize(model, [what], steps=steps, frames=log_spaced(steps, frames), **options)[0]


def log_spaced(steps: int, count: int) -> list[int]:
    """`count` different steps (all, if there are fewer) from 1 to `steps`, evenly spaced in their logarithm."""
    whole(count, "frames")
    count = min(count, steps)
    if count == 1:
        return [steps]
    chosen: list[int] = []
    for i in range(count):
        ideal = round(steps ** (i / (count - 1)))
        chosen.append(max(ideal, chosen[-1] + 1 if chosen else 1))
    return chosen


__all__ = [
    "SLIGHTLY",
    "Decomposed",
    "Spectrum",
    "Strip",
    "accentuate",
    "caricature_strip",
    "decomposed",
    "log_spaced",
    "spectrum",
    "trajectory",
]
