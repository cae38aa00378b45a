"""An image with a layer's map over it, of which one position can be clicked, or a box of positions dragged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apps.explorer.components import component

_mount = component("image_map", '<div class="image_map" tabindex="0"></div>')
Position = tuple[int, int]
Box = tuple[int, int, int, int]


def pick_position(
    src: str,
    size: tuple[int, int],
    selected: Position | None,
    *,
    key: str,
    alt: str,
    values: Sequence[Sequence[float]] | None = None,
    width: int = 300,
) -> Position | None:
    """Show the image; the position that was clicked, or None. The arrow keys and Enter do the same.

    Args:
        src: data URI; size: rows and columns of the map; selected: the position that is marked.
        key: of the element; alt: what the image is; width: of the image in pixels.
        values: of the map, shown beside the pointer.
    """
    rounded = None if values is None else [[round(float(v), 4) for v in row] for row in values]
    data = {"src": src, "rows": size[0], "columns": size[1], "selected": [] if selected is None else [selected]}
    data |= {"alt": alt, "values": rounded, "width": width, "drag": False}
    state = _mount(key=key, data=data, on_position_change=lambda: None, on_box_change=lambda: None)
    if not state.position:
        return None
    y, x = (int(v) for v in state.position)
    return (y, x) if 0 <= y < size[0] and 0 <= x < size[1] else None


def pick_box(
    src: str, size: tuple[int, int], selected: Iterable[Position] | None, *, key: str, alt: str, width: int = 280
) -> tuple[Box, bool] | None:
    """Show the image; the box (top, left, bottom, right, all inside it) that was dragged, or None.

    With it comes whether the box is to be added: a drag that begins on a selected position removes the box.

    Args:
        src: data URI; size: rows and columns of the map; selected: positions that are marked, None for all.
        key: of the element; alt: what the image is; width: of the image in pixels.
    """
    data = {"src": src, "rows": size[0], "columns": size[1], "selected": [list(p) for p in selected or ()]}
    data |= {"alt": alt, "values": None, "width": width, "drag": True}
    state = _mount(key=key, data=data, on_position_change=lambda: None, on_box_change=lambda: None)
    if not state.box or len(state.box) != 5:
        return None
    top, left, bottom, right, add = (int(v) for v in state.box)
    inside = 0 <= top <= bottom < size[0] and 0 <= left <= right < size[1]
    return ((top, left, bottom, right), bool(add)) if inside else None
