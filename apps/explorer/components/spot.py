"""A picture with a layer's map over it, one place of which can be clicked, or chosen with the arrow keys."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from apps.explorer.components import asset

_mount = st.components.v2.component(
    "explorer_spot",
    html='<div class="spot" tabindex="0"></div>',
    css=asset("base.css") + asset("spot.css"),
    js=asset("spot.js"),
)


def spot(
    src: str,
    size: tuple[int, int],
    at: tuple[int, int] | None,
    *,
    key: str,
    alt: str,
    values: Sequence[Sequence[float]] | None = None,
    width: int = 300,
) -> tuple[int, int] | None:
    """The picture; the place that was clicked, or None.

    Args:
        src: data URI; size: rows and columns of the map; at: the place that is chosen.
        key: of the element; alt: what the picture is.
        values: of the map, to be told at each place; width: pixels of the picture.
    """
    shown = None if values is None else [[round(float(v), 4) for v in row] for row in values]
    data = {"src": src, "rows": size[0], "columns": size[1], "at": at, "alt": alt, "values": shown, "width": width}
    found = _mount(key=key, data=data, on_place_change=lambda: None)
    if not found.place:
        return None
    y, x = (int(v) for v in found.place)
    return (y, x) if 0 <= y < size[0] and 0 <= x < size[1] else None
