"""A picture on which places of a layer's map are chosen: drag to choose a box, from a chosen place to take one away."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from apps.explorer.components import asset

_mount = st.components.v2.component(
    "explorer_brush",
    html='<div class="brush" tabindex="0"></div>',
    css=asset("base.css") + asset("spot.css") + asset("brush.css"),
    js=asset("brush.js"),
)
Box = tuple[int, int, int, int]


def brush(
    src: str,
    size: tuple[int, int],
    places: Iterable[tuple[int, int]] | None,
    *,
    key: str,
    alt: str,
    width: int = 280,
) -> tuple[Box, bool] | None:
    """The picture; the box (top, left, bottom, right, counted with them) that was dragged, and whether it was added.

    Args:
        src: data URI; size: rows and columns of the map; places: that are chosen, None for all.
        key: of the element; alt: what the picture is; width: pixels.
    """
    chosen = None if places is None else [list(place) for place in places]
    data = {"src": src, "rows": size[0], "columns": size[1], "places": chosen, "alt": alt, "width": width}
    found = _mount(key=key, data=data, on_box_change=lambda: None)
    if not found.box or len(found.box) != 5:
        return None
    top, left, bottom, right, on = (int(v) for v in found.box)
    inside = 0 <= top <= bottom < size[0] and 0 <= left <= right < size[1]
    return ((top, left, bottom, right), bool(on)) if inside else None
