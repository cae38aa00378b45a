"""The sum behind a response: at a place of a picture, what each source adds, up to the unit's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.spot import spot
from apps.explorer.components.steps import steps
from apps.explorer.panes import crops
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Here
from circuits.attribution.attribute import attribute
from circuits.attribution.expanded_weights import expanded_weights
from circuits.dataset.scan_results import UnitScan
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.plot.circuit.waterfall import Step
from circuits.plot.drawing import crops as pixels
from circuits.tracing.circuit import Edge
from zoo.images.sources import Images

SOURCES = 8


@dataclass(frozen=True)
class Summed:
    """What makes a unit say what it says at one place of one picture.

    Attributes:
        steps: from nothing to the value before its rectifier; source: layer that is summed over.
        map: what the unit says everywhere on the picture; src: the picture with that map over it.
    """

    steps: tuple[Step, ...]
    source: str
    map: Any
    src: str

    @property
    def error(self) -> float:
        """How far the terms are from the value, which they should add up to."""
        return abs(sum(s.value for s in self.steps if s.kind != "sum") - self.steps[-1].value)


def summed(model: Model, unit: Unit, images: Images, image: int, place: tuple[int, int]) -> Summed:
    """The sum at one place; sources are the units of the layer before.

    Raises:
        CircuitsError: no layer lies before, or the network is not known well enough.
    """
    source = model.before(unit.layer)
    one = images.subset([image])
    found_map = crops.unit_maps(model, unit, one)[0]
    most = float(abs(found_map).max()) or 1.0
    picture = pixels.pixels(one.tensor(model.input)[0], model.input.channels)
    src = uri(jpeg(crops.warm(picture, found_map / most), 320))
    if source is None:
        return Summed((), "", found_map, src)
    found = attribute(model, one, source=source, target=unit, method="weight*act", at=place)
    kernels = expanded_weights(model, source=source, target=unit).kernels[0].detach().cpu().float().numpy()
    each = found.units[0].double().cpu()
    order = each.abs().argsort(descending=True, stable=True)[:SOURCES].tolist()
    made: list[Step] = []
    run = 0.0
    for channel in order:
        address, value = str(model.resolve(Unit(source, channel))), float(each[channel])
        edge = Edge(address, str(unit), 1 if value >= 0 else -1, 0.0, value, kernels[channel])
        made.append(Step(address, value, run, run + value, "source", edge))
        run += value
    total, bias, left = float(each.sum()), float(found.bias[0]), float(found.remainder[0])
    made.append(Step(f"{len(each) - len(order):,} other units", total - run, run, total, "rest"))
    made.append(Step("all sources", total, 0.0, total, "sum"))
    made.append(Step("biases", bias, total, total + bias, "term"))
    made.append(Step("rectifiers in between", left, total + bias, total + bias + left, "term"))
    value = float(found.response[0])
    made.append(Step("before its rectifier", value, 0.0, value, "sum"))
    return Summed(tuple(made), source, found_map, src)


def show(at: Here, found: UnitScan | None) -> None:
    """The picture, in which a place can be clicked, and the sum there."""
    images = state.pictures_of(at)
    image, place = _where(at, found, len(images))
    model, unit = at.model, at.unit.channel
    made = page_frame.settled(
        ("sum", model.digest, images.name, str(unit), image, place),
        "adding up",
        lambda report: summed(model, unit, images, image, place),
        model=model,
    )
    if made is None:
        return
    size = model.layers[unit.layer].size or (1, 1)
    left, right = st.columns([3, 8], gap="large")
    with left:
        alt = f"{images.ids[image]}, and where {unit.short} responds"
        clicked = spot(made.src, size, place, key="sum-spot", alt=alt, values=made.map.tolist())
        st.caption(
            plain(f"{images.ids[image]}: click a place. Orange: where it responds. Examples above can be clicked, too.")
        )
    if clicked is not None and clicked != place:
        links.change(picture=image, place=f"{clicked[0]},{clicked[1]}")
        st.rerun()
    with right:
        if not made.steps:
            st.caption(f"{unit.short} reads the picture itself: there are no units to add up.")
            return
        st.caption(
            plain(f"What units of {made.source} add at {place[0]},{place[1]}; all sums up to within {made.error:.1g}.")
        )
        thumbs = {s.edge.source: state.thumb_of(at, Unit.parse(s.edge.source)) for s in made.steps if s.edge}
        steps(made.steps, thumbs, state.names_of(at), key="sum-steps")


def _where(at: Here, found: UnitScan | None, count: int) -> tuple[int, tuple[int, int]]:
    """The picture and the place of the address; by default those of the strongest example."""
    size = at.model.layers[at.unit.layer].size or (1, 1)
    top = found.top[0] if found is not None and found.top else None
    image = links.asked("picture") or str(top.image if top else 0)
    default = top.position if top is not None and str(top.image) == image else (size[0] // 2, size[1] // 2)
    place = links.asked("place") or f"{default[0]},{default[1]}"
    y, comma, x = place.partition(",")
    if not (image.isdecimal() and y.isdecimal() and x.isdecimal() and len(place) < 20 and len(image) < 10):
        raise UploadError("a place is given as ?picture=3&place=4,5")
    if int(image) >= count or int(y) >= size[0] or int(x) >= size[1]:
        raise UploadError(f"there are pictures 0 to {count - 1}, and places up to {size[0] - 1},{size[1] - 1}")
    return int(image), (int(y), int(x))
