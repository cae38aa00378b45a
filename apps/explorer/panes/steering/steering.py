"""Effects of edits: maps over the image, class probabilities, the dose-response curve, and a later layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.components.gallery import gallery
from apps.explorer.components.image_map import Box, pick_box
from apps.explorer.panes import crops as crop_panes
from apps.explorer.panes.charts import CLASSES
from apps.explorer.panes.image_analysis import SelectedImage
from apps.explorer.panes.steering import edit_rows
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.resources import steering_runs
from apps.explorer.resources.steering_runs import Comparison, DoseResponse, SteeringSite
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.session import edit_links, links, state
from apps.explorer.session.edit_links import Edits
from apps.explorer.session.state import Location
from circuits.plot.drawing import crops
from circuits.plot.drawing.wording import minus
from sae.steering import Maxima, inspect

CHANGED, SUGGESTED = 6, 14
OVER = {"this": "This image", "some": "24 images"}
SOME, SIDE, MAP = 24, 250, 74


def edits_of_address(at: Location, site: SteeringSite) -> Edits:
    """The edits of the address; where it has none, the page's unit is ablated.

    Raises:
        UploadError: edits that cannot be read.
    """
    text = links.param("edits", 2 * links.LONGEST)
    if text is None:
        return () if at.unit.index is None else edit_links.parse_edits(f"{at.unit.index}:ablate", site.count, site.size)
    return () if text == "none" else edit_links.parse_edits(text, site.count, site.size)


def default_image(at: Location) -> int:
    """The top activating image of the page's unit."""
    if at.scan is None or at.unit.index is None or at.unit.space not in at.scan.layers:
        return 0
    top = at.scan.unit(at.unit.channel).top
    return top[0].image if top else 0


# -- the image --------------------------------------------------------------------------------------------------------


def show_image(site: SteeringSite, edits: Edits, image: SelectedImage, comparison: Comparison | None) -> None:
    """The image, on which positions of an edit can be selected, and the unit's activations before and after."""
    pixels = crops.pixels(image.images.tensor(site.model.input)[0], site.model.input.channels)
    active = _active(edits)
    if site.size is None or not edits:
        st.image(np.asarray(pixels), width=SIDE, alt=image.name)
    else:
        st.session_state["edit-map"] = site.size
        edit = edits[active]
        alt = f"{image.name}; positions of the edit of {site.space}:{edit.latent}"
        selected = edit.at if edit.on_map else None
        src = uri(jpeg(pixels, 2 * SIDE))
        dragged = pick_box(src, site.size, selected, key="edit-positions", alt=alt, width=SIDE)
        summary = f"unit {edit.latent} is edited at {len(edit.at) if edit.on_map else 'all'} positions"
        st.caption(f"Drag over the image to select positions: {summary}.")
        if dragged is not None:
            _dragged(edits, active, dragged)
    if comparison is not None and edits and site.size is not None:
        _maps(site, pixels, edits[active].latent, comparison)


def _active(edits: Edits) -> int:
    """The edit whose positions and maps are shown."""
    if len(edits) < 2:
        return 0
    options = {str(i): f"{i + 1}: unit {edit.latent}" for i, edit in enumerate(edits)}
    return int(choose("Edit", options, "edit"))


def _dragged(edits: Edits, active: int, dragged: tuple[Box, bool]) -> None:
    box, add = dragged
    edit = edits[active]
    before = set(edit.at) if edit.on_map else set()
    positions = before | set(edit_links.positions_in(box)) if add else before - set(edit_links.positions_in(box))
    edited = replace(edit, at=tuple(sorted(positions)) if positions else "all")
    edit_rows.put((*edits[:active], edited, *edits[active + 1 :]))


def _maps(site: SteeringSite, pixels: crops.Crop, latent: int, comparison: Comparison) -> None:
    before, after = comparison.maps[latent]
    most = max(float(np.abs(before).max()), float(np.abs(after).max())) or 1.0
    titles = (f"{site.space}:{latent} before", "after", "change of all units")
    maps = (before / most, after / most, comparison.change / (float(comparison.change.max()) or 1.0))
    notes = (f"{before.max():.3g}", f"{after.max():.3g}", f"{100 * float(comparison.change.max()):.0f} %")
    row = st.container(horizontal=True, gap="xsmall")  # beside each other also on a phone, where columns are stacked
    for title, values, note in zip(titles, maps, notes, strict=True):
        with row.container(width=MAP, gap="small"):
            st.image(crop_panes.heatmap(pixels, values), width="stretch", alt=title)
            st.caption(minus(f"{title}, maximum {note}"))


def suggested(at: Location, site: SteeringSite, edits: Edits, image: SelectedImage, peaks: Maxima) -> None:
    """The most active units on the image, as shares of their maxima; a click adds an edit."""
    key = ("active units", site.model.digest, site.space, image.key)
    active = page_frame.background_result(
        key, "most active units",
        lambda report: inspect(site.basis, site.vision, image.images, top=SUGGESTED, maxima=peaks).rows[0],
    )  # fmt: skip
    if not active:
        return
    with st.expander("Most active units here, to add an edit", expanded=not edits):
        labels = state.names_of(at)
        tiles = [
            unit_tile(at, site.address(entry.latent), labels, f"{100 * (entry.share or 0):.0f} % of max", pick=True)
            for entry in active
        ]
        clicked = gallery(tiles, "suggested", size=84, label="most active units on this image")
        if clicked:
            edit_rows.put(edit_rows.added(edits, int(clicked.rpartition(":")[2])))


# -- doses ------------------------------------------------------------------------------------------------------------


def dose_curves(
    at: Location, site: SteeringSite, edits: Edits, peaks: Maxima, image: SelectedImage, over: str
) -> DoseResponse | None:
    """Dose-response curves on the image, or on some of the scanned images; None while they are computed."""
    images = image.images if over == "this" else state.images_of(at).spread(SOME)
    key = ("doses", site.model.digest, site.space, edit_links.format_edits(edits), images.digest)
    return page_frame.background_result(
        key, "scaling the edits, and those of random units",
        lambda report: steering_runs.dose_response(site, edits, peaks, images, report),
    )  # fmt: skip


def target_of(comparison: Comparison) -> int:
    """The class of the address, or the one whose probability changes most; with the widget that changes it."""
    order = list(dict.fromkeys([comparison.target, *comparison.most(CLASSES)]))
    options = {str(i): comparison.classes[i].split(",")[0] for i in order}
    return int(pick("Class", options, "class"))


def dose_summary(doses: DoseResponse, target: int, name: str) -> str:
    """The curves at dose 1, in words."""
    at = doses.doses.index(1.0)
    own, random = doses.values[at, target], doses.random[:, at, target]
    clean = doses.values[0, target]
    weaker = int((np.abs(random - clean) < abs(own - clean)).sum())
    same, low, high = doses.same[at], doses.random_same[:, at].min(), doses.random_same[:, at].max()
    images = "this image" if doses.images == 1 else f"{doses.images} images"
    text = (
        f"On {images}: {name} from {100 * clean:.1f} to {100 * own:.1f} %. {weaker} of {len(random)} steps "
        f"as long, along the directions of random units, change it less ({100 * random.min():.1f} to "
        f"{100 * random.max():.1f} %)."
    )
    if doses.images > 1:
        text += f" The predicted class stays on {100 * same:.0f} % of them; with random units on {100 * low:.0f}"
        text += f" to {100 * high:.0f} %."
    return minus(text)


# -- a later layer ----------------------------------------------------------------------------------------------------


def show_changed(at: Location, comparison: Comparison) -> None:
    """Units of a later layer that changed most."""
    if not comparison.moved:
        st.caption(f"No unit of {comparison.later} changes.")
        return
    labels = state.names_of(at)
    up = [row for row in comparison.moved if row[2] > row[1]]
    down = [row for row in comparison.moved if row[2] < row[1]]
    for column, title, rows in zip(st.columns(2, gap="large"), ("rise", "fall"), (up, down), strict=True):
        with column:
            st.caption(f"{comparison.later}: units that {title} most, mean over the image")
            tiles = [
                unit_tile(at, f"{at.model.name}/{comparison.later}:{i}", labels, minus(f"{b:.2g} → {a:.2g}"))
                for i, b, a in rows
            ]
            gallery(tiles, f"moved-{title}", size=92, label=f"units of {comparison.later} that {title} most")


def later_layers(at: Location) -> Mapping[str, str]:
    """Layers after the page's own, in order; without the class scores, which are shown above."""
    trunk: Sequence[str] = at.model.trunk
    if at.unit.layer not in trunk:
        return {}
    return {name: name for name in trunk[trunk.index(at.unit.layer) + 1 :] if name != at.model.class_scores}


# -- the same in Python ------------------------------------------------------------------------------------------------


def script(at: Location, site: SteeringSite, edits: Edits, image: SelectedImage | None) -> str:
    """Python code that gives the same probabilities."""
    basis = "None" if site.basis is None else f"model.basis({site.vision.layer.name!r}, {site.name!r})"
    folder = dict(at.settings.saes).get(site.name)
    attach = "" if folder is None else f"attach_folder(model, {str(folder)!r}, {site.name!r})\n"
    index = 0 if image is None or image.index is None else image.index
    return (
        "import circuits\nfrom sae import LatentEdit, VisionSite, When, steer\nfrom sae.steering import maxima\n"
        f"{'from sae.data.attach import attach_folder' + chr(10) if attach else ''}\n"
        f"{state.loading_code_of(at)}\n{attach}"
        f"site, units = VisionSite(model, {site.vision.layer.name!r}), {basis}\n"
        f"images = circuits.read_scan({str(at.settings.store)!r}, model.name).images()\n"
        f"edits = {edit_links.as_python(edits)}\n"
        "with steer(site, units, edits, maxima=maxima(units, site, images)):\n"
        f'    scores = circuits.capture(model, images.subset([{index}]), "logits")["logits"].flatten(1)\n'
        "for name, probability in zip(model.classes, scores.softmax(1)[0].tolist()):\n"
        '    print(f"{name:20} {probability:.3f}")\n'
    )
