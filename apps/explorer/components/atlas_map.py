"""An activation atlas that can be zoomed: icons on a map, with a preview of the one under the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.explorer.components import component

_mount = component("atlas_map", '<div class="atlas_map" tabindex="0"></div>')


def map_cell(
    row: int, column: int, position: int, scale: float, lines: Sequence[str], *, about: str, faint: bool
) -> dict[str, Any]:
    """One cell.

    Args:
        row, column: on the grid; position: of its icon on the sheet, or -1 without one.
        scale: side of the icon as a share of the cell's, from 0 to 1; lines: of the preview.
        about: description for screen readers; faint: whether the filter leaves it out.
    """
    return {
        "row": row, "column": column, "position": position, "scale": scale, "lines": list(lines), "about": about,
        "faint": faint,
    }  # fmt: skip


def atlas_map(
    cells: Sequence[dict[str, Any]],
    grid: int,
    sheet: str,
    across: int,
    selected: tuple[int, int] | None,
    *,
    key: str,
    label: str,
) -> tuple[int, int] | None:
    """Show the map; the row and column of the cell that was clicked, or None. Arrow keys and Enter do the same.

    Args:
        cells: of `map_cell`; grid: cells a side.
        sheet: data URI of all icons side by side, `across` in a row; selected: the marked cell.
        key: of the element; label: description for screen readers.
    """
    data = {
        "cells": list(cells), "grid": grid, "sheet": sheet, "across": across, "selected": selected, "label": label,
    }  # fmt: skip
    state = _mount(key=key, data=data, on_cell_change=lambda: None)
    if not state.cell:
        return None
    row, column = (int(v) for v in state.cell)
    return (row, column) if any((c["row"], c["column"]) == (row, column) for c in cells) else None
