"""A cell of an activation atlas: units, classes and samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from apps.explorer.components.gallery import gallery, tile
from apps.explorer.panes.crops import cut
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.server.security import plain
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.activations.atlas import Cell
from circuits.errors import CircuitsError
from circuits.plot.drawing.wording import minus, short

CLASSES, UNITS = 5, 5
"""Of a cell, in its preview."""


def lines(at: Location, cell: Cell) -> list[str]:
    """What the preview of a cell says."""
    names = state.names_of(at)
    units = ", ".join(names.get(u) or short(u).rpartition(":")[2] for u, _ in cell.units[:UNITS])
    return [f"{cell.count} samples", f"units {units}", *(label for label, _ in cell.labels[:CLASSES])]


def show(at: Location, cell: Cell) -> None:
    """Its units, which a click opens, its classes and its samples."""
    st.markdown(f"##### Row {cell.row + 1}, column {cell.column + 1}: {cell.count} samples")
    here = replace(at, unit=replace(at.unit, index=None, at=None))
    notes = [(unit, minus(f"{score:+.1f} sd")) for unit, score in cell.units]
    st.caption("Its most active units, in standard deviations above their means")
    gallery([unit_tile(here, u, state.names_of(at), note) for u, note in notes], "cell-units", size=92, label="units")
    if cell.labels:
        st.caption(plain("Classes that it raises, above the mean of all cells: " + ", ".join(
            f"{label} {minus(f'{value:+.2f}')}" for label, value in cell.labels
        )))  # fmt: skip
    try:
        sources = cut(at, cell.examples, "field")
    except CircuitsError:
        st.caption("The atlas was made of other images than the scan: its samples are not shown.")
        return
    st.caption("Receptive-field crops of its samples")
    crops: list[dict[str, Any]] = [
        tile(None, src, alt=f"{e.id}, position {e.position[0]},{e.position[1]}")
        for e, src in zip(cell.examples, sources, strict=True)
    ]
    gallery(crops, "cell-samples", size=84, label="samples")
