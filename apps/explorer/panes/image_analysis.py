"""One image in a layer: activations at a position, class attribution, and the activation grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
import torch
from numpy.typing import NDArray

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, number
from apps.explorer.components.gallery import gallery
from apps.explorer.components.image_map import pick_position
from apps.explorer.panes.crops import heatmap
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.server.security import MAX_UPLOAD, checked_image, plain
from apps.explorer.session import figures, links, state
from apps.explorer.session.figures import ScreenFigure, screen_figure
from apps.explorer.session.state import Location
from circuits import plot
from circuits.activations.semantic_dictionary import activation_grid, semantic_dictionary
from circuits.activations.spatial_attribution import check_positions
from circuits.attribution.attribute import attribute
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import capture
from circuits.network.layer import Layer
from circuits.network.model import Model
from circuits.plot.drawing import crops
from circuits.plot.drawing.wording import minus
from zoo.images.sources import Images, open_images

CLASSES, UNITS, STEPS = 6, 10, 48
GRID_TILE = 48
_LARGEST, _SIDE = 1024, 420


@dataclass(frozen=True)
class SelectedImage:
    """The image of a page.

    Attributes:
        images: it alone; name: its id; key: digest of its pixels.
        index: its number among the scanned images, or None for an uploaded one.
    """

    images: Images
    name: str
    key: str
    index: int | None


def selected_image(at: Location, default: int = 0) -> SelectedImage:
    """The image of the address, or the one that was uploaded; `default` where the address names none.

    Raises:
        UploadError: no such image, or an upload that is refused.
    """
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    file = right.file_uploader(
        "Or your own image", ["png", "jpg", "jpeg", "webp"], key="own", max_upload_size=MAX_UPLOAD // 2**20
    )
    if file is not None:
        return uploaded(file.getvalue())
    images = state.images_of(at)
    last = len(images) - 1
    index = number(f"Image (0 to {last})", "image", 0, last, default, left, clear=("position",))
    return SelectedImage(images.subset([index]), images.ids[index], f"{images.digest[:12]}-{index}", index)


def where(at: Location, image: SelectedImage) -> dict[str, Any]:
    """Where results on an image are kept; those on an image of the visitor's own nowhere."""
    return {} if image.index is None else {"folder": at.results, "images": image.images}


def uploaded(data: bytes) -> SelectedImage:
    """An uploaded image, checked; only its pixels are used.

    Raises:
        UploadError: it is refused.
    """
    image = checked_image(data)
    image.thumbnail((_LARGEST, _LARGEST))
    digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    return SelectedImage(open_images(image), "your image", digest, None)


def position_of_address(at: Location, layer: str) -> tuple[int, int] | None:
    """The position of the address; None where it names none of this layer."""
    size = at.model.layers[layer].size or (1, 1)
    y, _, x = (links.param("position", 20) or "").partition(",")
    if y.isdecimal() and x.isdecimal() and int(y) < size[0] and int(x) < size[1]:
        return int(y), int(x)
    return None


def _heatmap_uri(image: NDArray[np.float32] | torch.Tensor, values: torch.Tensor) -> str:
    """An image under a map, of which the largest absolute value is opaque, as a data URI."""
    shares = (values / values.abs().max().clamp(min=1e-30)).numpy()
    return uri(jpeg(heatmap(crops.pixels(image, len(image)), shares), _SIDE))


# -- a position -------------------------------------------------------------------------------------------------------


def layer_response(model: Model, layer: str, images: Images, at: tuple[int, int] | None) -> dict[str, Any]:
    """The most active units of a layer at a position of an image, and the norm of its activations everywhere."""
    dictionary = semantic_dictionary(model, layer, images, at=at, top=UNITS, steps=0)
    base = model.resolve(layer).layer
    norms = capture(model, images, [base])[base][0].float().norm(dim=0).cpu()
    return {"dictionary": dictionary, "norms": norms.tolist(), "src": _heatmap_uri(dictionary.image, norms)}


def show_position(at: Location, image: SelectedImage) -> None:
    """The image, of which a position can be clicked, and the most active units there."""
    layer, position = at.unit.space, position_of_address(at, at.unit.layer)
    response = page_frame.background_result(
        ("position", at.model.digest, layer, image.key, position),
        f"activations of {layer}",
        lambda report: layer_response(at.model, layer, image.images, position),
        model=at.model,
        **where(at, image),
    )
    if response is None:
        return
    entry, size = response["dictionary"].entries[0], at.model.layers[at.unit.layer].size or (1, 1)
    left, right = st.columns([4, 8], gap="large")
    with left:
        alt = f"{image.name}, and the norm of the activations of {layer} at each position"
        clicked = pick_position(
            response["src"], size, entry.position, key="position-map", alt=alt, values=response["norms"], width=380
        )
        st.caption(plain(f"Click a position. Orange: large activations of {layer} (L2 norm over its units)."))
    if clicked is not None and clicked != entry.position:
        links.change(position=f"{clicked[0]},{clicked[1]}")
        st.rerun()
    with right:
        y, x = entry.position
        st.markdown(f"##### Activations of {plain(layer)} at {y},{x}")
        st.caption(
            f"These units have {100 * entry.share:.0f} % of the squared activations at this position. Below each: its "
            "activation here, and its average."
        )
        labels = state.names_of(at)
        tiles = [
            unit_tile(at, unit, labels, f"{v:.3g}, average {t:.3g}")
            for unit, v, t in zip(entry.units, entry.values, entry.typical, strict=True)
            if v > 0
        ]
        gallery(tiles, "position-units", size=112, label=f"most active units at {y},{x}")


def position_result(at: Location, image: SelectedImage) -> Any:
    """The semantic dictionary of the address's position, for exports."""
    position = position_of_address(at, at.unit.layer)
    return layer_response(at.model, at.unit.space, image.images, position)["dictionary"]


# -- a class ----------------------------------------------------------------------------------------------------------


def classes(model: Model, images: Images, most: int | None = CLASSES) -> list[tuple[int, str, float]]:
    """The classes with the largest scores, or all: number, name, and probability by softmax."""
    scores = capture(model, images, ["logits"])["logits"][0].flatten(1).mean(dim=1).float().cpu()
    probabilities = torch.softmax(scores, dim=0)
    order = scores.argsort(descending=True, stable=True)[:most].tolist()
    names = model.classes
    return [(k, names[k].split(",")[0] if k < len(names) else str(k), float(probabilities[k])) for k in order]


def show_class(at: Location, image: SelectedImage) -> None:
    """Attribution of a class to units of the layer, and of one of those units to units of the layer before."""
    model, layer = at.model, at.unit.layer
    key = ("classes", model.digest, image.key)
    scores = page_frame.background_result(
        key, "class scores", lambda report: classes(model, image.images), model=model, **where(at, image)
    )
    if scores is None:
        return
    chosen = choose("Class", {str(k): f"{name}  {100 * share:.0f} %" for k, name, share in scores}, "class")
    attribution = _attribution(at, image, layer, f"{model.logits}:{chosen}")
    if attribution is None:
        return
    _row(at, image, attribution, {str(k): name for k, name, _ in scores}[chosen], "class-units", pick=True)
    check = page_frame.background_result(
        ("check", model.digest, layer, image.key, chosen),
        "ablating each position in turn",
        lambda report: check_positions(model, image.images, attribution),
        model=model,
        **where(at, image),
    )
    if check is not None:
        st.caption(
            f"Control: ablating each position in turn correlates with this map, r = "
            f"{minus(f'{check.correlation:.2f}')}; with positions shuffled, r = {minus(f'{check.shuffled:.2f}')}."
        )
    via = links.param("via", 100)
    if via:
        unit = model.unit(via)
        before = model.before(unit.layer)
        if before is None:
            st.caption(plain(f"The input of {unit.short} is the image itself."))
            return
        attribution = _attribution(at, image, before, str(unit))
        if attribution is not None:
            _row(at, image, attribution, unit.short, "unit-units", pick=False)


def _attribution(at: Location, image: SelectedImage, layer: str, target: str) -> Any:
    """Attribution of the target to units and positions of a layer, to first order."""
    return page_frame.background_result(
        ("attribution", at.model.digest, layer, image.key, target),
        f"attribution of {target} to {layer}",
        lambda report: attribute(at.model, image.images, source=layer, target=target, method="grad*act"),
        model=at.model,
        **where(at, image),
    )


def _row(at: Location, image: SelectedImage, attribution: Any, target: str, key: str, *, pick: bool) -> None:
    layer = attribution.source
    left, right = st.columns([3, 9], gap="large")
    src = _heatmap_uri(image.images.tensor(at.model.input)[0], attribution.by_position[0].float().cpu())
    left.image(src, width=260, alt=f"attribution of {target} to positions of {layer}")
    with right:
        st.markdown(f"##### Attribution of {plain(target)} to {plain(layer)}")
        total, value = float(attribution.values.sum()), float(attribution.response[0])
        st.caption(
            f"Gradient times activation: {minus(f'{total:+.3g}')} in total, for a value of {minus(f'{value:+.3g}')}. "
            "Orange: positive. Blue: negative." + (" Click a unit to attribute it to the layer before." if pick else "")
        )
        labels = state.names_of(at)
        tiles = [
            unit_tile(at, str(at.model.resolve(Unit(layer, channel))), labels, minus(f"{value:+.3g}"), pick=pick)
            for channel, value in attribution.top(UNITS)
        ]
        clicked = gallery(tiles, key, size=92, label=f"units of {layer} with the largest attribution")
        if clicked:
            links.change(via=clicked)
            st.rerun()


# -- the grid ---------------------------------------------------------------------------------------------------------


def grid_pooling(layer: Layer) -> int:
    """Positions a side that one tile of the grid stands for: at most eight tiles a side."""
    return -(-max(layer.size or (1, 1)) // 8)


def show_grid(at: Location, image: SelectedImage) -> None:
    """The activation grid: a feature visualization of the activations at every position."""
    if at.unit.basis is not None:
        raise CircuitsError("an activation grid is of a layer's own activations: choose a layer")
    model, layer = at.model, at.model.layers[at.unit.layer]
    if layer.size is None:
        raise CircuitsError(f"{layer.name} has no positions")
    pooled = grid_pooling(layer)

    def work(report: Any) -> ScreenFigure:
        grid = activation_grid(
            model, layer.name, image.images, pooled=pooled, steps=STEPS, size=GRID_TILE, progress=report
        )
        return screen_figure(lambda: plot.grid_figure(grid))

    key = ("grid", model.digest, layer.name, image.key)
    figure = page_frame.background_result(key, "visualizing each position", work, model=model, **where(at, image))
    if figure is not None:
        figures.show(figure, f"activation grid of {layer.name} on {image.name}")
