"""Pictures of units, or of examples, in a grid; a click on a unit opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from apps.explorer.components import asset
from apps.explorer.session import links

_mount = st.components.v2.component(
    "explorer_gallery",
    html='<div class="gallery"></div>',
    css=asset("base.css") + asset("gallery.css"),
    js=asset("made.js") + asset("gallery.js"),
)


def tile(
    unit: str | None,
    src: str | None,
    *,
    alt: str,
    name: str = "",
    note: str = "",
    mark: str = "",
    pick: str | None = None,
) -> dict[str, Any]:
    """One picture.

    Args:
        unit: address that a click opens, or None.
        src: data URI of the picture, or None for one that is not there.
        alt: what it is, for those who do not see it.
        name, note: what stands under it.
        mark: "here" for the one that the page is about, "faint" for one that chance would give.
        pick: what a click picks, where it opens nothing.
    """
    href = None if unit is None else links.unit_path(unit)
    return {"unit": unit, "src": src, "alt": alt, "name": name, "note": note, "mark": mark, "href": href, "pick": pick}


def gallery(tiles: Sequence[dict[str, Any]], key: str, *, size: int = 104, label: str = "") -> str | None:
    """The grid. A click on a unit opens its page; a click on what can be picked is returned.

    Args:
        tiles: of `tile`; key: of the element; size: pixels of a picture's side.
        label: what they are, for those who do not see them.
    """
    found = _mount(
        key=key,
        data={"tiles": list(tiles), "size": size, "label": label},
        on_open_change=lambda: None,
        on_pick_change=lambda: None,
    )
    if found.open:
        links.go("unit", keep=("tour", "step"), unit=found.open)
    return found.pick
