"""One picture as a layer sees it: what a place says, what speaks for a class, and what each place looks like."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import streamlit as st
import torch

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.components.gallery import gallery
from apps.explorer.components.spot import spot
from apps.explorer.panes import crops as crop_panes
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.server.security import MAX_UPLOAD, UploadError, checked_picture, plain
from apps.explorer.session import exports, links, state
from apps.explorer.session.state import Here
from circuits import plot
from circuits.activations.semantic_dictionary import activation_grid, semantic_dictionary
from circuits.activations.spatial_attribution import check_positions
from circuits.attribution.attribute import attribute
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import capture
from circuits.network.model import Model
from circuits.plot.drawing import crops
from circuits.plot.drawing.wording import minus
from zoo.images.sources import Images, open_images

CLASSES, UNITS = 6, 10
STEPS = 48
_LARGEST = 1024


@dataclass(frozen=True)
class Shown:
    """The picture that is looked at.

    Attributes:
        images: it alone; name: of it; key: digest of its pixels.
        index: its number among the scanned ones, or None for an uploaded one.
    """

    images: Images
    name: str
    key: str
    index: int | None


def chosen(at: Here, default: int = 0) -> Shown:
    """The picture of the address, or the one that was uploaded; `default` where the address names none.

    Raises:
        UploadError: no such picture, or an upload that is not taken.
    """
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    given = right.file_uploader(
        "Or one of your own", ["png", "jpg", "jpeg", "webp"], key="own", max_upload_size=MAX_UPLOAD // 2**20
    )
    if given is not None:
        return uploaded(given.getvalue())
    found = state.pictures_of(at)
    said = links.asked("picture") or str(default)
    if not (said.isdecimal() and len(said) < 9 and int(said) < len(found)):
        raise UploadError(f"there are pictures 0 to {len(found) - 1}; asked for {said[:20]}")
    index = int(said)
    if st.session_state.get("picture_number") != index:
        st.session_state["picture_number"] = index
    left.number_input(f"Picture (0 to {len(found) - 1})", 0, len(found) - 1, key="picture_number", on_change=_moved)
    return Shown(found.subset([index]), found.ids[index], f"{found.digest[:12]}-{index}", index)


def _moved() -> None:
    links.change(picture=int(st.session_state["picture_number"]), place=None)


def uploaded(data: bytes) -> Shown:
    """An uploaded picture, checked; nothing of the file is kept but its pixels.

    Raises:
        UploadError: it is not taken.
    """
    image = checked_picture(data)
    image.thumbnail((_LARGEST, _LARGEST))
    digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    return Shown(open_images(image), "your picture", digest, None)


def place_of(at: Here, layer: str) -> tuple[int, int] | None:
    """The place of the address; None where it names none of this layer."""
    size = at.model.layers[layer].size or (1, 1)
    y, _, x = (links.asked("place", 20) or "").partition(",")
    if y.isdecimal() and x.isdecimal() and int(y) < size[0] and int(x) < size[1]:
        return int(y), int(x)
    return None


# -- a place ----------------------------------------------------------------------------------------------------------


def said(model: Model, layer: str, images: Images, at: tuple[int, int] | None) -> dict[str, Any]:
    """What a layer says at a place of a picture, by its strongest units, and how much it says everywhere."""
    found = semantic_dictionary(model, layer, images, at=at, top=UNITS, steps=0)
    base = model.resolve(layer).layer
    norms = capture(model, images, [base])[base][0].float().norm(dim=0).cpu()
    pixels = crops.pixels(found.image, len(found.image))
    heat = (norms / norms.max().clamp(min=1e-30)).numpy()
    src = uri(jpeg(crop_panes.warm(pixels, heat), 420))
    return {"entry": found.entries[0], "norms": norms.tolist(), "src": src, "found": found}


def show_place(at: Here, shown: Shown) -> None:
    """The picture, a place of which can be clicked, and the units that say most there."""
    layer, place = at.unit.space, place_of(at, at.unit.layer)
    made = page_frame.settled(
        ("said", at.model.digest, layer, shown.key, place),
        f"reading {layer}",
        lambda report: said(at.model, layer, shown.images, place),
        model=at.model,
    )
    if made is None:
        return
    entry, size = made["entry"], at.model.layers[at.unit.layer].size or (1, 1)
    left, right = st.columns([4, 8], gap="large")
    with left:
        alt = f"{shown.name}, and how much {layer} says at each place"
        clicked = spot(made["src"], size, entry.position, key="place", alt=alt, values=made["norms"], width=380)
        st.caption(plain(f"Click a place. Orange: where {layer} says much."))
    if clicked is not None and clicked != entry.position:
        links.change(place=f"{clicked[0]},{clicked[1]}")
        st.rerun()
    with right:
        y, x = entry.position
        st.markdown(f"##### What {plain(layer)} says at {y},{x}")
        share = f"{100 * entry.share:.0f} %"
        st.caption(f"Its strongest units there hold {share} of the square of all. Below: here, and on average.")
        names = state.names_of(at)
        tiles = [
            unit_tile(at, unit, names, f"{v:.3g}, average {t:.3g}")
            for unit, v, t in zip(entry.units, entry.values, entry.typical, strict=True)
            if v > 0
        ]
        gallery(tiles, "said", size=112, label=f"units that say most at {y},{x}")


# -- a class ----------------------------------------------------------------------------------------------------------


def classes(model: Model, images: Images) -> list[tuple[int, str, float, float]]:
    """The classes with the largest scores: number, name, score, and share by softmax."""
    scores = capture(model, images, ["logits"])["logits"][0].flatten(1).mean(dim=1).float().cpu()
    shares = torch.softmax(scores, dim=0)
    names = model.classes
    order = scores.argsort(descending=True, stable=True)[:CLASSES].tolist()
    plain_names = {k: names[k].split(",")[0] if k < len(names) else str(k) for k in order}
    return [(k, plain_names[k], float(scores[k]), float(shares[k])) for k in order]


def given(model: Model, layer: str, images: Images, target: str) -> dict[str, Any]:
    """What each unit and place of a layer gives to a target on a picture, to first order."""
    found = attribute(model, images, source=layer, target=target, method="grad*act")
    places = found.places[0].float().cpu()
    picture = images.tensor(model.input)[0]
    most = float(places.abs().max()) or 1.0
    src = uri(jpeg(crop_panes.warm(crops.pixels(picture, len(picture)), (places / most).numpy()), 420))
    total, value = float(found.values.sum()), float(found.response[0])
    return {"top": found.top(UNITS), "response": value, "sum": total, "src": src, "found": found}


def show_class(at: Here, shown: Shown) -> None:
    """From the picture to a class, from the class to units of this layer, from one of those to what it reads."""
    model, layer = at.model, at.unit.layer
    key = ("classes", model.digest, shown.key)
    found = page_frame.settled(key, "reading class scores", lambda report: classes(model, shown.images), model=model)
    if found is None:
        return
    options = {str(k): f"{name}  {100 * share:.0f} %" for k, name, _, share in found}
    wanted = choose("Class", options, "class")
    logits = model.logits
    made = _given(at, shown, layer, f"{logits}:{wanted}")
    if made is None:
        return
    _row(at, made, layer, options[wanted].split("  ")[0], "class-units", pick=True)
    check = page_frame.settled(
        ("check", model.digest, layer, shown.key, wanted),
        "silencing each place in turn",
        lambda report, found=made["found"]: check_positions(model, shown.images, found),  # type: ignore[misc]
        model=model,
    )
    if check is not None:
        st.caption(
            f"Silencing each place in turn agrees with the map: r = {minus(f'{check.correlation:.2f}')}; with places "
            f"shuffled it reaches {minus(f'{check.shuffled:.2f}')}."
        )
    asked = links.asked("via", 100)
    if asked:
        unit = model.unit(asked)
        before = model.before(unit.layer)
        if before is None:
            st.caption(plain(f"{unit.short} reads the picture itself."))
            return
        made = _given(at, shown, before, str(unit))
        if made is not None:
            _row(at, made, before, unit.short, "unit-units", pick=False)


def _given(at: Here, shown: Shown, layer: str, target: str) -> dict[str, Any] | None:
    made: dict[str, Any] | None = page_frame.settled(
        ("given", at.model.digest, layer, shown.key, target),
        f"what {layer} gives to {target}",
        lambda report: given(at.model, layer, shown.images, target),
        model=at.model,
    )
    return made


def _row(at: Here, made: dict[str, Any], layer: str, target: str, key: str, *, pick: bool) -> None:
    left, right = st.columns([3, 9], gap="large")
    left.image(made["src"], width=260, alt=f"what places of {layer} give to {target}")
    with right:
        st.markdown(f"##### What units of {plain(layer)} give to {plain(target)}")
        st.caption(
            f"Gradient times activation: {minus(format(made['sum'], '+.3g'))} in all, of a value of "
            f"{minus(format(made['response'], '+.3g'))}. Orange for it, blue against it."
            + (" Click a unit to go on to what it reads." if pick else "")
        )
        names = state.names_of(at)
        tiles = [
            unit_tile(at, str(at.model.resolve(Unit(layer, channel))), names, minus(f"{value:+.3g}"), pick=pick)
            for channel, value in made["top"]
        ]
        clicked = gallery(tiles, key, size=92, label=f"units of {layer} that give most to {target}")
        if clicked:
            links.change(via=clicked)
            st.rerun()


# -- the grid ---------------------------------------------------------------------------------------------------------


def show_grid(at: Here, shown: Shown) -> None:
    """Every place as a picture of what the layer says there."""
    if at.unit.basis is not None:
        raise CircuitsError("a grid is of a layer's own activations: pick a layer")
    layer = at.model.layers[at.unit.layer]
    if layer.size is None:
        raise CircuitsError(f"{layer.name} has no places")
    pooled = -(-max(layer.size) // 8)
    model = at.model

    def work(report: Any) -> tuple[bytes, Any]:
        found = activation_grid(model, layer.name, shown.images, pooled=pooled, steps=STEPS, size=48, progress=report)
        return exports.figure_bytes(lambda: plot.grid_figure(found), "png"), found

    made = page_frame.settled(
        ("grid", model.digest, layer.name, shown.key), "drawing what each place says", work, model=model
    )
    if made is not None:
        st.image(made[0], width="stretch", alt=f"activation grid of {layer.name} on {shown.name}")


def take(at: Here, shown: Shown) -> Any:
    """What a place says, for exports, where it has been found out."""
    place = place_of(at, at.unit.layer)
    return said(at.model, at.unit.space, shown.images, place)["found"]
