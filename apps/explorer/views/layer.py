"""All units of a layer, as a grid of thumbnails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import pick
from apps.explorer.components.gallery import gallery
from apps.explorer.pages import Entry
from apps.explorer.panes.crops import decoded
from apps.explorer.panes.layer import wall
from apps.explorer.server.security import checked_text, guarded
from apps.explorer.session import state
from apps.explorer.session.exports import Export
from apps.explorer.session.ordering import ORDERS, order
from apps.explorer.session.state import Location
from circuits.dataset.scan_results import LayerScan
from circuits.errors import AddressError
from circuits.network.address import Unit

PAGE = Entry("Layer", ":material/grid_view:", "all units of a layer, sorted", order=10)
SIZES = {str(n): str(n) for n in (96, 48, 192, 512)}
MOST = 192
"""Thumbnails of an exported figure."""
UNITS = {"active": "Only active ones", "all": "All"}


def main() -> None:
    """The page."""
    at = page_frame.location()
    at = replace(at, unit=replace(at.unit, index=None, at=None))
    layer = at.model.layers[at.unit.layer]
    count = at.scan.layers.get(at.unit.space) if at.scan is not None else None
    field = page_frame.receptive_field(layer.receptive_field)
    about = f"{count or layer.channels} units; map {'x'.join(map(str, layer.size or (1, 1)))}; {field}"
    top, export = st.container(), None
    with guarded():
        scanned = at.scanned.layer(at.unit.space)
        dead = int((scanned.active_images == 0).sum())
        by, kind, size, hide, reference = _widgets(at, 0 < dead < len(scanned))
        labels = wall.labels_of(at)
        ranked, notes = _order(at, scanned, by, labels, reference)
        if hide:
            ranked = [i for i in ranked if scanned.active_images[i] > 0]
            about += f"; {dead} that no image activates are hidden"
        export = _export(at, scanned, ranked, labels)
        _wall(at, ranked, notes, labels, kind, size, reference)
    with top:
        page_frame.header(
            "layer", at.unit.short, about=about, view={"unit": str(at.unit)}, python=_python(at), export=export
        )


def _order(
    at: Location, scanned: LayerScan, by: str, labels: dict[int, str], reference: Unit
) -> tuple[list[int], list[str]]:
    similarity = _similarity(at, reference) if by == "similarity" else None
    scores = wall.polysemanticity(at, scanned) if by == "polysemanticity" else None
    return order(scanned, by, labels=labels, similarity=similarity, polysemanticity=scores)


def _wall(
    at: Location, ranked: list[int], notes: list[str], labels: dict[int, str], kind: str, size: int, reference: Unit
) -> None:
    pages = -(-len(ranked) // size)
    number = st.session_state.get("page_number", 1)
    if not isinstance(number, int) or number > pages:
        st.session_state["page_number"] = 1
    number = st.pagination(pages, key="page_number", bind="query-params") if pages > 1 else 1
    visible = ranked[(number - 1) * size : number * size]
    tiles = wall.tiles(at, visible, notes, labels, kind)
    if st.session_state.get("sort") == "similarity":
        tiles = [{**tile, "mark": "here"} if tile["unit"] == str(reference) else tile for tile in tiles]
    gallery(tiles, "wall", size=92 if kind == "example" else 128, label=f"units of {at.unit.short}")


def _widgets(at: Location, some_dead: bool) -> tuple[str, str, int, bool, Unit]:
    row = st.container(horizontal=True, gap="small")
    by = pick("Sort by", ORDERS, "sort", row, 200)
    kind = pick("Images", wall.TILES, "tile", row, 200)
    size = pick("Units per page", SIZES, "size", row, 120)
    hide = some_dead and pick("Units", UNITS, "units", row, 150) == "active"
    reference = replace(at.unit, index=0)
    if by == "similarity":
        example = f"{at.unit.space}:0"
        text = row.text_input("Similar to", key="similar_to", placeholder=example, bind="query-params", width=200)
        reference = at.model.unit(_full(at, text)) if text else reference
        if reference.space != at.unit.space:
            raise AddressError(f"{reference.short} is no unit of {at.unit.space}: units are compared within a layer")
    return by, kind, int(size), hide, reference


def _full(at: Location, typed: str) -> str:
    text = checked_text(typed, 300)
    return f"{at.unit.space}:{text}" if text.isdecimal() else text


def _similarity(at: Location, reference: Unit) -> np.ndarray:
    similarity = state.similarity_in(at, "activations")
    row = similarity.matrix[similarity.index(str(reference.channel))].copy()
    row[reference.index or 0] = 1.0  # a unit is most similar to itself, also one that is never active
    return row


def _python(at: Location) -> str:
    return (
        "import circuits\n\n"
        f"scan = circuits.read_scan({str(at.settings.store)!r}, {at.model.name!r})\n"
        f"layer = scan.layer({at.unit.space!r})\n"
        "print(layer.density, layer.maximum, layer.active_images)\n"
    )


def _export(at: Location, scanned: LayerScan, ranked: list[int], labels: dict[int, str]) -> Export:
    def rows() -> list[dict[str, Any]]:
        names = {"density": "density", "fires_on": "active_images", "maximum": "maximum", "mean_if_on": "mean_if_on"}
        columns = {key: getattr(scanned, attribute) for key, attribute in names.items()}
        columns["selectivity"] = scanned.selectivity
        return [
            {"unit": str(replace(at.unit, index=i)), "name": labels.get(i, "")}
            | {name: values[i].item() for name, values in columns.items()}
            for i in ranked
        ]

    def figure() -> Any:
        thumbs = state.thumbs_of(at, at.unit.space) or ()
        available = [(i, src) for i in ranked[:MOST] if i < len(thumbs) and (src := thumbs[i])]
        tiles = [(f":{i} {labels.get(i, '')}".strip(), decoded(src)) for i, src in available]
        return wall.wall_figure(tiles, f"{at.unit}, by {ORDERS[str(st.session_state.get('sort', 'number'))].lower()}")

    return Export(str(at.unit), figure, lambda: {"layer": str(at.unit), "units": rows()}, rows)


main()
