"""One picture taken apart by where things are: what a layer says at each position, and what that looks like.

The semantic dictionary and the activation grid of Olah et al., *The Building Blocks of Interpretability*, Distill
2018. Its neuron groups are in `circuits.activations.neuron_groups`; its attribution to a class is
`circuits.attribute` (`places` and `units` of what it gives), that between positions of two layers in
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
from zoo.images.sources import Images, open_images
from zoo.progress import Progress

# -- the semantic dictionary --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Entry:
    """What a layer says at one position, by its strongest units.

    Attributes:
        position: row and column on the layer's map.
        box: `(top, left, bottom, right)` of the receptive field there, in pixels of the model's input.
        units: addresses, strongest first; values: what they say here.
        typical: what each says on average over the positions of the picture: the control.
        share: of the squares of all units here that those listed hold, in [0, 1].
        icons: what each unit looks for; empty where not asked for.
    """

    position: Pair
    box: tuple[int, int, int, int]
    units: tuple[str, ...]
    values: tuple[float, ...]
    typical: tuple[float, ...]
    share: float
    icons: tuple[Visualization, ...] = ()


@dataclass(frozen=True, eq=False)
class SemanticDictionary:
    """Positions of a picture in the words of a layer; see `semantic_dictionary`.

    Attributes:
        layer: address of the layer (and basis).
        id: name of the picture; image: `(C, H, W)` in [0, 1], as the network was shown it.
        size: rows and columns of the layer's map.
        entries: one per position.
        provenance: weights, picture, seed, versions.
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


def semantic_dictionary(
    model: Model,
    layer: str,
    picture: Any,
    *,
    at: Sequence[Pair] | Pair | None = None,
    top: int = 4,
    steps: int = 128,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> SemanticDictionary:
    """What a layer says at positions of a picture, by the units that say most, each with its icon.

    Args:
        model: the model.
        layer: a layer, or `layer~basis` for the latents of a basis.
        picture: one picture in any form that `capture` takes.
        at: one `(row, column)` or several; by default where the layer says most.
        top: units of each position.
        steps: of the optimization of icons; 0 for none.
        seed: of icons.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `visualize`.

    Raises:
        AddressError: an unknown layer. CircuitsError: not one picture, or a position outside of the map.

    >>> len(semantic_dictionary(load("scenes"), "mixed4a", "scenes:1", top=3, steps=0).entries[0].units)
    3
    """
    unit = model.resolve(layer)
    if unit.index is not None:
        raise CircuitsError(f"name a layer, for example {unit.layer}; {unit.short} is one of its units")
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise CircuitsError(f"top is a whole number from 1, not {top!r}")
    pictures = single_image(picture)
    acts = capture(model, pictures, [unit.layer])[unit.layer].float().cpu()
    size = (acts.shape[2], acts.shape[3])
    places = _asked(at, size, unit.layer) or [strongest_position(acts[0])]
    values = acts[0].movedim(0, -1).flatten(0, 1)
    if unit.basis is not None:
        with torch.no_grad():
            values = model.basis(unit.layer, unit.basis).encode(values).float()
    chosen = [(place, values[place[0] * size[1] + place[1]]) for place in places]
    ranked = [said.argsort(descending=True, stable=True)[:top].tolist() for _, said in chosen]
    names = {i: str(replace(unit, index=i)) for row in ranked for i in row}
    icons: dict[int, Visualization] = {}
    if steps:
        made = visualize(model, list(names.values()), steps=steps, seed=seed, progress=progress, **options)
        icons = dict(zip(names, made, strict=True))
    mean = values.mean(0)
    entries = []
    for (place, said), row in zip(chosen, ranked, strict=True):
        entries.append(
            Entry(
                position=place,
                box=_box(model, unit.layer, place),
                units=tuple(names[i] for i in row),
                values=tuple(said[row].tolist()),
                typical=tuple(mean[row].tolist()),
                share=float(said[row].square().sum() / said.square().sum().clamp(min=1e-30)),
                icons=tuple(icons[i] for i in row) if icons else (),
            )
        )
    return SemanticDictionary(
        layer=str(unit),
        id=pictures.ids[0],
        image=pictures.tensor(model.input)[0],
        size=size,
        entries=tuple(entries),
        provenance=provenance(weights=model.digest, images_digest=pictures.digest, seed=seed, steps=steps),
    )


# -- the activation grid ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ActivationGrid:
    """A picture as a layer sees it, position by position; see `activation_grid`.

    Attributes:
        layer: address of the layer.
        id: name of the picture; image: `(C, H, W)` in [0, 1], as the network was shown it.
        norms: `(h, w)` length of the activation vector of each cell of the grid.
        icons: by row and column; None where nothing is said.
        pooled: how many positions a side one icon stands for: the mean of their vectors is shown.
        whitened: whether the icons show what tells a position from the layer's activations in general.
        provenance: weights, picture, seed, versions.
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
        """`(h, w)` how large to draw each icon's side, 1 for the strongest: areas go with the norms."""
        return (self.norms / self.norms.max().clamp(min=1e-30)).sqrt()


def activation_grid(
    model: Model,
    layer: str,
    picture: Any,
    *,
    whitening: Whitening | None = None,
    pooled: int = 1,
    steps: int = 128,
    size: int = 64,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> ActivationGrid:
    """Every position's activation vector as an icon, all made in one run.

    Args:
        model: the model.
        layer: a layer.
        picture: one picture in any form that `capture` takes.
        whitening: of `circuits.activations.whitening.measure_whitening`, to show what tells a position from others.
        pooled: one icon for so many rows by so many columns, of their mean vector: fewer icons, sooner made.
        steps: of the optimization.
        size: pixels of an icon.
        seed: of everything random.
        progress: True for a bar, or a function of (done, total) in steps.
        **options: of `circuits.activations.direction_icons.direction_icons`.

    Raises:
        AddressError: an unknown layer. CircuitsError: not one picture, or a layer that says nothing to it.

    >>> activation_grid(load("scenes"), "mixed4a", "scenes:1", pooled=4, steps=2).norms.shape
    torch.Size([4, 4])
    """
    found = model.layer(layer)
    if isinstance(pooled, bool) or not isinstance(pooled, int) or pooled < 1:
        raise CircuitsError(f"pooled is a whole number from 1, not {pooled!r}")
    pictures = single_image(picture)
    acts = capture(model, pictures, [found.name])[found.name].float().cpu()
    # ceil_mode: the last rows and columns count too where the grid does not divide the map
    pool = torch.nn.functional.avg_pool2d(acts, pooled, ceil_mode=True)[0]
    norms = pool.norm(dim=0)
    if not bool(torch.isfinite(norms).all()) or float(norms.max()) == 0:
        raise CircuitsError(f"{found.name} says nothing to this picture, or something that is no number")
    speaks = (norms > 0).nonzero().tolist()
    vectors = torch.stack([pool[:, y, x] for y, x in speaks])
    made = direction_icons(
        model, found.name, vectors, whitening=whitening, steps=steps, size=size, seed=seed, progress=progress, **options
    )
    by_place = {(y, x): icon for (y, x), icon in zip(map(tuple, speaks), made, strict=True)}
    return ActivationGrid(
        layer=f"{model.name}/{found.name}",
        id=pictures.ids[0],
        image=pictures.tensor(model.input)[0],
        norms=norms,
        icons=tuple(tuple(by_place.get((y, x)) for x in range(norms.shape[1])) for y in range(norms.shape[0])),
        pooled=pooled,
        whitened=whitening is not None,
        provenance=provenance(weights=model.digest, images_digest=pictures.digest, seed=seed, steps=steps),
    )


# -- what they share ----------------------------------------------------------------------------------------------


def single_image(picture: Any) -> Images:
    """The picture.

    Raises:
        CircuitsError: none, or several.
    """
    if isinstance(picture, Tensor) and picture.ndim == 3:
        picture = picture[None]
    pictures = open_images(picture)
    if len(pictures) != 1:
        raise CircuitsError(f"one picture is taken apart at a time; {pictures.name} holds {len(pictures)}")
    return pictures


def strongest_position(acts: Tensor) -> Pair:
    """Where the activation vector of `(C, h, w)` is longest."""
    flat = int(acts.norm(dim=0).flatten().argmax())
    return flat // acts.shape[2], flat % acts.shape[2]


def _asked(at: Sequence[Pair] | Pair | None, size: Pair, layer: str) -> list[Pair]:
    if at is None:
        return []
    given: list[Any] = [at] if len(at) == 2 and all(isinstance(v, int) for v in at) else list(at)
    asked: list[Pair] = [(int(y), int(x)) for y, x in given]
    for y, x in asked:
        if not (0 <= y < size[0] and 0 <= x < size[1]):
            raise CircuitsError(f"position {y},{x} is outside the {size[0]}x{size[1]} map of {layer}")
    return asked


def _box(model: Model, layer: str, place: Pair) -> tuple[int, int, int, int]:
    found = model.layer(layer).receptive_field
    return (0, 0, *model.input.hw) if found is None else found.box(*place, within=model.input.hw)
