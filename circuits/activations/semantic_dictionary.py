"""The activation vectors of a layer at positions of one image, and visualizations of them.

The semantic dictionary and the activation grid of Olah et al., *The Building Blocks of Interpretability*, Distill
2018. Its neuron groups are in `circuits.activations.neuron_groups`; its attribution to a class is
`circuits.attribute` (`by_position` and `units` of its result), that between positions of two layers in
`circuits.activations.spatial_attribution`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from circuits.activations.direction_icons import direction_icons
from circuits.activations.whitening import Whitening
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.hooks import capture
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.visualization.render import visualize
from circuits.visualization.result import Visualization
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.common.results import Result
from zoo.images.sources import Images, open_images
from zoo.progress import Progress

# -- the semantic dictionary --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Entry:
    """The most active units of a layer at one position.

    Attributes:
        position: row and column on the layer's map.
        box: `(top, left, bottom, right)` of the receptive field there, in pixels of the model's input.
        units: addresses, strongest first; values: their activations here.
        typical: mean activation of each over the positions of the image: the control.
        share: of the squared norm of the activation vector here that the listed units hold, in [0, 1].
        icons: visualization of each unit; empty with steps=0.
    """

    position: Pair
    box: tuple[int, int, int, int]
    units: tuple[str, ...]
    values: tuple[float, ...]
    typical: tuple[float, ...]
    share: float
    icons: tuple[Visualization, ...] = ()


@dataclass(frozen=True, eq=False)
class SemanticDictionary(Result):
    """Positions of an image by the most active units of a layer; see `semantic_dictionary`.

    Attributes:
        layer: address of the layer (and basis).
        id: name of the image; image: `(C, H, W)` in [0, 1], at the network's input size.
        size: rows and columns of the layer's map.
        entries: one per position.
        provenance: weights, image, seed, versions.
    """

    layer: str
    id: str
    image: Tensor
    size: Pair
    entries: tuple[Entry, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Everything but pixels, ready for JSON."""
        return {
            "layer": self.layer,
            "picture": self.id,
            "entries": [
                {
                    "position": list(e.position),
                    "box": list(e.box),
                    "share": e.share,
                    "units": [
                        {"unit": u, "value": v, "typical": t}
                        for u, v, t in zip(e.units, e.values, e.typical, strict=True)
                    ],
                }
                for e in self.entries
            ],
            "provenance": dict(self.provenance),
        }


@outside_inference_mode
def semantic_dictionary(
    model: Model,
    layer: str,
    image: Any,
    *,
    at: Sequence[Pair] | Pair | None = None,
    top: int = 4,
    steps: int = 128,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> SemanticDictionary:
    """The most active units of a layer at positions of an image, each with its visualization.

    Args:
        model: the model.
        layer: a layer, or `layer~basis` for the latents of a basis.
        image: one image in any form that `capture` takes.
        at: one `(row, column)` or several; by default where the activation vector is longest.
        top: units of each position.
        steps: of the optimization of icons; 0 for none.
        seed: of icons.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer. CircuitsError: not one image, or a position outside of the map.

    >>> len(semantic_dictionary(load("scenes"), "mixed4a", "scenes:1", top=3, steps=0).entries[0].units)
    3
    """
    unit = model.resolve(layer)
    if unit.index is not None:
        raise CircuitsError(f"name a layer, for example {unit.layer}; {unit.short} is one of its units")
    whole_number("top", top)
    source = single_image(image)
    acts = capture(model, source, [unit.layer])[unit.layer].float().cpu()
    size = (acts.shape[2], acts.shape[3])
    positions = [strongest_position(acts[0])] if at is None else _checked(at, size, unit.layer)
    values = acts[0].movedim(0, -1).flatten(0, 1)
    if unit.basis is not None:
        with torch.no_grad():
            values = model.basis(unit.layer, unit.basis).encode(values).float()
    vectors = [values[y * size[1] + x] for y, x in positions]
    ranked = [vector.argsort(descending=True, stable=True)[:top].tolist() for vector in vectors]
    names = {i: str(replace(unit, index=i)) for row in ranked for i in row}
    icons: dict[int, Visualization] = {}
    if steps:
        results = visualize(model, list(names.values()), steps=steps, seed=seed, progress=progress, **options)
        icons = dict(zip(names, results, strict=True))
    mean = values.mean(0)
    entries = [
        Entry(
            position=position,
            box=_box(model, unit.layer, position),
            units=tuple(names[i] for i in row),
            values=tuple(vector[row].tolist()),
            typical=tuple(mean[row].tolist()),
            share=float(vector[row].square().sum() / vector.square().sum().clamp(min=1e-30)),
            icons=tuple(icons[i] for i in row) if icons else (),
        )
        for position, vector, row in zip(positions, vectors, ranked, strict=True)
    ]
    return SemanticDictionary(
        layer=str(unit),
        id=source.ids[0],
        image=source.tensor(model.input)[0],
        size=size,
        entries=tuple(entries),
        provenance=provenance(weights=model.digest, images_digest=source.digest, seed=seed, steps=steps),
    )


# -- the activation grid ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ActivationGrid(Result):
    """The activation vectors of a layer on one image, position by position; see `activation_grid`.

    Attributes:
        layer: address of the layer.
        id: name of the image; image: `(C, H, W)` in [0, 1], at the network's input size.
        norms: `(h, w)` length of the activation vector of each cell of the grid.
        icons: by row and column; None where the activation vector is zero.
        pooled: how many positions a side one icon stands for, of the mean of their vectors.
        whitened: whether the icons visualize how a position differs from the layer's activations in general.
        provenance: weights, image, seed, versions.
    """

    layer: str
    id: str
    image: Tensor
    norms: Tensor
    icons: tuple[tuple[Visualization | None, ...], ...]
    pooled: int
    whitened: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scales(self) -> Tensor:
        """`(h, w)` side of each icon relative to the largest: areas are proportional to the norms."""
        return (self.norms / self.norms.max().clamp(min=1e-30)).sqrt()


@outside_inference_mode
def activation_grid(
    model: Model,
    layer: str,
    image: Any,
    *,
    whitening: Whitening | None = None,
    pooled: int = 1,
    steps: int = 128,
    size: int = 64,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> ActivationGrid:
    """An icon of the activation vector at every position, all optimized in one run.

    Args:
        model: the model.
        layer: a layer.
        image: one image in any form that `capture` takes.
        whitening: of `circuits.activations.whitening.measure_whitening`, to visualize how a position differs from
            others.
        pooled: one icon for so many rows by so many columns, of their mean vector: fewer icons, in less time.
        steps: of the optimization.
        size: pixels of an icon.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `circuits.activations.direction_icons.direction_icons`.

    Raises:
        AddressError: an unknown layer. CircuitsError: not one image, or a layer that is all zero on it.

    >>> activation_grid(load("scenes"), "mixed4a", "scenes:1", pooled=4, steps=2).norms.shape
    torch.Size([4, 4])
    """
    site = model.layer(layer)
    whole_number("pooled", pooled)
    source = single_image(image)
    acts = capture(model, source, [site.name])[site.name].float().cpu()
    # ceil_mode: the last rows and columns count too where the grid does not divide the map
    pool = torch.nn.functional.avg_pool2d(acts, pooled, ceil_mode=True)[0]
    norms = pool.norm(dim=0)
    if not bool(torch.isfinite(norms).all()) or float(norms.max()) == 0:
        raise CircuitsError(f"{site.name} is all zero on this image, or not finite")
    active = [(y, x) for y, x in (norms > 0).nonzero().tolist()]
    vectors = torch.stack([pool[:, y, x] for y, x in active])
    icons = direction_icons(
        model, site.name, vectors, whitening=whitening, steps=steps, size=size, seed=seed, progress=progress, **options
    )
    by_position = dict(zip(active, icons, strict=True))
    return ActivationGrid(
        layer=f"{model.name}/{site.name}",
        id=source.ids[0],
        image=source.tensor(model.input)[0],
        norms=norms,
        icons=tuple(tuple(by_position.get((y, x)) for x in range(norms.shape[1])) for y in range(norms.shape[0])),
        pooled=pooled,
        whitened=whitening is not None,
        provenance=provenance(weights=model.digest, images_digest=source.digest, seed=seed, steps=steps),
    )


# -- shared ---------------------------------------------------------------------------------------------------------


def single_image(image: Any) -> Images:
    """An image source of one image; a tensor `(C, H, W)` is one.

    Raises:
        CircuitsError: no image, or several.
    """
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image[None]
    images = open_images(image)
    if len(images) != 1:
        raise CircuitsError(f"give one image; {images.name} holds {len(images)}")
    return images


def strongest_position(acts: Tensor) -> Pair:
    """Row and column at which the activation vector of `(C, h, w)` is longest."""
    flat = int(acts.norm(dim=0).flatten().argmax())
    return flat // acts.shape[2], flat % acts.shape[2]


def _checked(at: Sequence[Pair] | Pair, size: Pair, layer: str) -> list[Pair]:
    """One position, or several, as a list."""
    several: list[Any] = [at] if len(at) == 2 and all(isinstance(v, int) for v in at) else list(at)
    positions: list[Pair] = [(int(y), int(x)) for y, x in several]
    for y, x in positions:
        if not (0 <= y < size[0] and 0 <= x < size[1]):
            raise CircuitsError(f"position {y},{x} is outside the {size[0]}x{size[1]} map of {layer}")
    return positions


def _box(model: Model, layer: str, position: Pair) -> tuple[int, int, int, int]:
    field = model.layer(layer).receptive_field
    return (0, 0, *model.input.hw) if field is None else field.box(*position, within=model.input.hw)
