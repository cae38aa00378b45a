"""Contributions to the pre-activation of a unit at one position of an image, which add up to its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st
from numpy.typing import NDArray

from apps.explorer import page_frame
from apps.explorer.components.contributions import contributions as waterfall
from apps.explorer.components.image_map import pick_position
from apps.explorer.panes.crops import heatmap, unit_maps
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Location
from circuits.attribution.attribute import attribute
from circuits.attribution.expanded_weights import expanded_weights
from circuits.dataset.scan_results import UnitScan
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.plot.circuit.waterfall import Step, running_steps
from circuits.plot.drawing import crops
from circuits.tracing.circuit import Edge
from zoo.images.sources import Images

SOURCES = 8


@dataclass(frozen=True)
class Contributions:
    """Contributions to one unit at one position of one image.

    Attributes:
        steps: of the waterfall, from zero to the pre-activation; source: the layer that contributes.
        map: activations of the unit at all positions, `(h, w)`; src: the image under that map, as a data URI.
    """

    steps: tuple[Step, ...]
    source: str
    map: NDArray[Any]
    src: str

    @property
    def error(self) -> float:
        """Absolute difference between the sum of the terms and the pre-activation."""
        return abs(sum(s.value for s in self.steps if s.kind != "sum") - self.steps[-1].value)


def contributions_at(model: Model, unit: Unit, images: Images, image: int, position: tuple[int, int]) -> Contributions:
    """The contributions of the units of the layer before; without steps for a unit of the first layer.

    Raises:
        CircuitsError: the layers between are not linear up to ReLUs and pools.
    """
    source, alone = model.before(unit.layer), images.subset([image])
    activations = unit_maps(model, unit, alone)[0]
    pixels = crops.pixels(alone.tensor(model.input)[0], model.input.channels)
    src = uri(jpeg(heatmap(pixels, activations / (float(abs(activations).max()) or 1.0)), 320))
    if source is None:
        return Contributions((), "", activations, src)
    attribution = attribute(model, alone, source=source, target=unit, method="weight*act", at=position)
    kernels = expanded_weights(model, source=source, target=unit).kernels[0].detach().cpu().float().numpy()
    values = attribution.units[0].double().cpu()
    order = values.abs().argsort(descending=True, stable=True)[:SOURCES].tolist()
    sources = []
    for channel in order:
        address, value = str(model.resolve(Unit(source, channel))), float(values[channel])
        edge = Edge(address, str(unit), 1 if value >= 0 else -1, 0.0, value, kernels[channel])
        sources.append((address, value, edge))
    others = f"{len(values) - len(order):,} other units"
    terms = {"biases": float(attribution.bias[0]), "ReLUs in between": float(attribution.remainder[0])}
    steps = running_steps(sources, others, None, float(values.sum()), terms, float(attribution.response[0]))
    return Contributions(tuple(steps), source, activations, src)


def show(at: Location, scanned: UnitScan | None) -> None:
    """The image, of which a position can be clicked, and the contributions there."""
    images = state.images_of(at)
    image, position = position_of_address(at, scanned, len(images))
    model, unit = at.model, at.unit.channel
    result = page_frame.background_result(
        ("contributions", model.digest, images.name, str(unit), image, position),
        "contributions",
        lambda report: contributions_at(model, unit, images, image, position),
        model=model,
    )
    if result is None:
        return
    size, name = model.layers[unit.layer].size or (1, 1), images.ids[image]
    left, right = st.columns([3, 8], gap="large")
    with left:
        alt = f"{name}, and the activations of {unit.short}"
        clicked = pick_position(
            result.src, size, position, key="contributions-map", alt=alt, values=result.map.tolist()
        )
        st.caption(plain(f"{name}: click a position, or an example above. Orange: where the unit is active."))
    if clicked is not None and clicked != position:
        links.change(image=image, position=f"{clicked[0]},{clicked[1]}")
        st.rerun()
    with right:
        if not result.steps:
            st.caption(f"The input of {unit.short} is the image itself: no units contribute.")
            return
        location = f"at {position[0]},{position[1]}"
        st.caption(plain(f"Contributions of {result.source} {location}; they add up to within {result.error:.1g}."))
        thumbs = {s.edge.source: state.thumb_of(at, Unit.parse(s.edge.source)) for s in result.steps if s.edge}
        waterfall(result.steps, thumbs, state.names_of(at), key="contributions")


def position_of_address(at: Location, scanned: UnitScan | None, count: int) -> tuple[int, tuple[int, int]]:
    """The image and the position of the address; by default those of the top activating image."""
    size = at.model.layers[at.unit.layer].size or (1, 1)
    top = scanned.top[0] if scanned is not None and scanned.top else None
    image = links.param("image") or str(top.image if top else 0)
    default = top.position if top is not None and str(top.image) == image else (size[0] // 2, size[1] // 2)
    text = links.param("position") or f"{default[0]},{default[1]}"
    y, _, x = text.partition(",")
    if not (image.isdecimal() and y.isdecimal() and x.isdecimal() and len(text) < 20 and len(image) < 10):
        raise UploadError("an image and a position are given as ?image=3&position=4,5")
    if int(image) >= count or int(y) >= size[0] or int(x) >= size[1]:
        raise UploadError(f"there are images 0 to {count - 1}, and positions up to {size[0] - 1},{size[1] - 1}")
    return int(image), (int(y), int(x))
