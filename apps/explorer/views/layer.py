"""All units of a layer, as a wall of small pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import pick
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.panes.crops import decoded
from apps.explorer.panes.wall_figure import wall_figure
from apps.explorer.server.security import checked_text
from apps.explorer.session import state
from apps.explorer.session.exports import Export
from apps.explorer.session.ordering import ORDERS, order, selectivity
from apps.explorer.session.state import Here
from circuits.dataset.scan_results import LayerScan
from circuits.errors import AddressError
from circuits.network.address import Unit

SIZES = {str(n): str(n) for n in (96, 48, 192, 512)}
MOST = 192
"""Pictures of a figure."""
FACES = {"photograph": "Photograph", "made": "Made by optimization"}


def main() -> None:
    """The page."""
    at = page_frame.opened()
    at = replace(at, unit=replace(at.unit, index=None, at=None))
    layer = at.model.layers[at.unit.layer]
    count = at.scan.layers.get(at.unit.space) if at.scan is not None else None
    field = layer.receptive_field
    sees = "the whole picture" if field is None else f"{field.size[0]} x {field.size[1]} pixels"
    about = f"{count or layer.channels} units; map {'x'.join(map(str, layer.size or (1, 1)))}; sees {sees}"
    top = st.container()
    found = at.scanned.layer(at.unit.space)
    by, face, size, like = _widgets(at)
    names = {Unit.parse(u).index or 0: n for u, n in state.names_of(at).items() if Unit.parse(u).space == at.unit.space}
    ranked, notes = order(found, by, names=names, likeness=_likeness(at, like) if by == "likeness" else None)
    with top:
        page_frame.show(
            "layer", f"{at.unit.short}", about=about, view={"unit": str(at.unit)}, python=_python(at),
            export=_export(at, found, ranked, names),
        )  # fmt: skip
    pages = -(-len(ranked) // size)
    number = st.session_state.get("page_number", 1)
    if not isinstance(number, int) or number > pages:
        st.session_state["page_number"] = 1
    number = st.pagination(pages, key="page_number", bind="query-params") if pages > 1 else 1
    shown = ranked[(number - 1) * size : number * size]
    gallery(_tiles(at, shown, notes, names, face, like), "wall", size=92, label=f"units of {at.unit.short}")


def _widgets(at: Here) -> tuple[str, str, int, Unit]:
    one, two, three, four = st.columns([3, 3, 2, 3], vertical_alignment="bottom")
    by = pick("Sort by", ORDERS, "sort", one)
    face = pick("Pictures", FACES, "face", two)
    size = pick("On a page", SIZES, "size", three)
    like = replace(at.unit, index=0)
    if by == "likeness":
        said = four.text_input("Like which unit", key="like", placeholder=f"{at.unit.space}:0", bind="query-params")
        like = at.model.unit(_full(at, said)) if said else like
        if like.space != at.unit.space:
            raise AddressError(f"{like.short} is no unit of {at.unit.space}: likeness is within a layer")
    return by, face, int(size), like


def _full(at: Here, said: str) -> str:
    text = checked_text(said, 300)
    return f"{at.unit.space}:{text}" if text.isdecimal() else text


def _likeness(at: Here, like: Unit) -> np.ndarray:
    found = state.likeness_in(at, "activations")
    row = found.matrix[found.index(str(like.channel))].copy()
    row[like.index or 0] = 1.0  # a unit is most like itself, also one that never fires
    return row


def _tiles(
    at: Here, shown: list[int], notes: list[str], names: dict[int, str], face: str, like: Unit
) -> list[dict[str, Any]]:
    thumbs, made = state.thumbs_of(at, at.unit.space) or (), state.looks_of(at) if face == "made" else {}
    tiles = []
    for index in shown:
        unit = str(replace(at.unit, index=index))
        src = thumbs[index] if index < len(thumbs) else None
        if face == "made":
            looks = [look for look in made.get(unit, ()) if look.kind == "positive"] or made.get(unit, ())
            src = state.shown(looks[0]) if looks else None
        name = names.get(index, "")
        missing = "not made yet" if face == "made" else "never fires" if thumbs else "…"
        alt = f"{at.unit.space}:{index} {name}" if src else missing
        mark = "here" if st.session_state.get("sort") == "likeness" and index == like.index else ""
        tiles.append(tile(unit, src, alt=alt, name=name or f":{index}", note=_note(index, name, notes), mark=mark))
    return tiles


def _note(index: int, name: str, notes: list[str]) -> str:
    return " ".join(part for part in (f":{index}" if name else "", notes[index]) if part)


def _python(at: Here) -> str:
    return (
        "import circuits\n\n"
        f"scan = circuits.read_scan({str(at.settings.store)!r}, {at.model.name!r})\n"
        f"layer = scan.layer({at.unit.space!r})\n"
        "print(layer.density, layer.maximum, layer.fires_on)\n"
    )


def _export(at: Here, found: LayerScan, ranked: list[int], names: dict[int, str]) -> Export:
    def rows() -> list[dict[str, Any]]:
        one_sided = selectivity(found)
        return [
            {
                "unit": str(replace(at.unit, index=i)),
                "name": names.get(i, ""),
                "density": float(found.density[i]),
                "fires_on": int(found.fires_on[i]),
                "maximum": float(found.maximum[i]),
                "mean_if_on": float(found.mean_if_on[i]),
                "selectivity": float(one_sided[i]),
            }
            for i in ranked
        ]

    def figure() -> Any:
        thumbs = state.thumbs_of(at, at.unit.space) or ()
        there = [(i, src) for i in ranked[:MOST] if i < len(thumbs) and (src := thumbs[i])]
        tiles = [(f":{i} {names.get(i, '')}".strip(), decoded(src)) for i, src in there]
        return wall_figure(tiles, f"{at.unit}, by {ORDERS[str(st.session_state.get('sort', 'number'))].lower()}")

    return Export(str(at.unit), figure, lambda: {"layer": str(at.unit), "units": rows()}, rows)


main()
