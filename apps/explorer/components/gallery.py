"""Images of units, or of examples, in a grid; a click on a unit opens its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.explorer.components import component
from apps.explorer.session import links

_mount = component("gallery")


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
    """One image of the grid.

    Args:
        unit: address that a click opens, or None.
        src: data URI, or None for a missing image.
        alt: description of the image; shown instead of a missing image.
        name, note: lines under the image.
        mark: "here" for the unit of the page, "faint" for one within the range of chance.
        pick: value that a click returns, where it opens nothing.
    """
    href = None if unit is None else links.unit_path(unit)
    return {"unit": unit, "src": src, "alt": alt, "name": name, "note": note, "mark": mark, "href": href, "pick": pick}


def gallery(tiles: Sequence[dict[str, Any]], key: str, *, size: int = 104, label: str = "") -> str | None:
    """Show the grid. A click on a unit opens its page; the `pick` of a clicked tile is returned.

    Args:
        tiles: of `tile`; key: of the element; size: pixels of an image's side.
        label: a description for screen readers.
    """
    data = {"tiles": list(tiles), "size": size, "label": label}
    state = _mount(key=key, data=data, on_open_change=lambda: None, on_pick_change=lambda: None)
    links.open_unit(state.open)
    return state.pick
