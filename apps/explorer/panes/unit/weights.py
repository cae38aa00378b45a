"""What a unit reads and who reads it: kernels between pictures, and what is not shown in one number."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from apps.explorer.components.wires import wire_rows, wires
from apps.explorer.server.security import plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Here
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.plot.drawing.wording import minus
from circuits.tracing.circuit import Edge
from circuits.units.dossier.neighbor_weights import Wires
from circuits.units.dossier.neighbor_weights import wires as find_wires

MOST = 96
"""Kernels shown at most."""


@st.cache_resource(max_entries=256, show_spinner=False)
def _found(digest: str, unit: str, direction: Literal["in", "out"], n: int, _model: Model) -> Wires:
    return find_wires(_model, unit, direction, n)


def found(at: Here, direction: Literal["in", "out"], n: int = 12) -> Wires:
    """The strongest kernels into a unit, or out of it.

    Raises:
        CircuitsError: there is no layer before or after.
    """
    return _found(at.model.digest, str(at.unit.channel), direction, n, at.model)


def show(at: Here, direction: Literal["in", "out"]) -> None:
    """One direction."""
    n = _count(direction)
    try:
        rows = found(at, direction, n)
    except CircuitsError as error:  # the first and the last layer
        st.caption(plain(error))
        return
    pictures = {wire.unit: state.thumb_of(at, Unit.parse(wire.unit)) for wire in rows.rows}
    own = state.thumb_of(at, at.unit)
    st.caption(plain(_words(rows)))
    shown = wire_rows(rows, pictures, state.names_of(at))
    wires(shown, own, at.unit.short, into=direction == "in", key=f"wires-{direction}")
    if rows.rest is not None and rows.count > len(rows.rows):
        left = 1 - sum(wire.share for wire in rows.rows)
        total = minus(f"{float(rows.rest.sum()):+.3g}")
        st.caption(
            f"The {rows.count - len(rows.rows):,} others add up to {total}, and hold {100 * max(left, 0):.2g} % of all "
            "squared weights."
        )
    faint = len(rows.rows) < n
    if not faint and rows.count > n and n < MOST and st.button("Show more", key=f"more-{direction}", type="tertiary"):
        links.change(**{f"{direction}s": 2 * n})
        st.rerun()


def _count(direction: str) -> int:
    """How many kernels the address asks for; a button below the list asks for more."""
    said = links.asked(f"{direction}s") or "12"
    return min(int(said), MOST) if said.isdecimal() and len(said) < 6 and int(said) else 12


def _words(rows: Wires) -> str:
    where = "" if rows.start == rows.layer else f", read at {rows.start}"
    if rows.direction == "in":
        return f"The {len(rows.rows)} strongest of {rows.count:,} kernels from {rows.layer}{where}."
    return (
        f"The {len(rows.rows)} units of {rows.layer} that read it most, of {rows.count:,}; shares are of what they read"
    )


def edges(rows: Wires) -> list[Edge]:
    """Wires as edges, which figures are made of."""
    return [
        Edge(
            source=wire.unit if rows.direction == "in" else rows.unit,
            target=rows.unit if rows.direction == "in" else wire.unit,
            sign=1 if wire.weight >= 0 else -1,
            weight=wire.weight,
            strength=wire.weight,
            kernel=wire.kernel,
            offset=rows.offset,
            stride=rows.stride,
        )
        for wire in rows.rows
    ]


def table(rows: Wires) -> list[dict[str, Any]]:
    """Wires as a table."""
    return [
        {"direction": rows.direction, "unit": w.unit, "weight": w.weight, "sum": w.sum, "share": w.share}
        for w in rows.rows
    ]
