"""Incoming and outgoing weights of a unit: the strongest kernels, and the sum of all others."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from apps.explorer.components.weights import weight_list, weight_rows
from apps.explorer.server.byte_cache import cached
from apps.explorer.server.security import plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Location
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.plot.drawing.wording import minus
from circuits.tracing.circuit import Edge
from circuits.units.dossier.neighbor_weights import NeighborWeights, neighbor_weights

MOST = 96
"""Kernels shown at most."""
NAMES = {"in": "incoming", "out": "outgoing"}
"""Names of the directions in addresses."""


@cached
def _strongest_weights(
    digest: str, unit: str, direction: Literal["in", "out"], n: int, _model: Model
) -> NeighborWeights:
    return neighbor_weights(_model, unit, direction, n)


def strongest_weights(at: Location, direction: Literal["in", "out"], n: int = 12) -> NeighborWeights:
    """The strongest incoming ("in") or outgoing ("out") kernels of a unit.

    Raises:
        CircuitsError: there is no layer before or after.
    """
    return _strongest_weights(at.model.digest, str(at.unit.channel), direction, n, at.model)


@cached
def _rows(digest: str, unit: str, direction: Literal["in", "out"], n: int, _weights: NeighborWeights) -> list[Any]:
    return weight_rows(_weights, {}, {})


def show(at: Location, direction: Literal["in", "out"]) -> None:
    """Show the weights of one direction."""
    n = _count(direction)
    try:
        weights = strongest_weights(at, direction, n)
    except CircuitsError as error:  # the first and the last layer
        st.caption(plain(error))
        return
    images = {row.unit: state.thumb_of(at, Unit.parse(row.unit)) for row in weights.rows}
    st.caption(plain(_about(weights)))
    names = state.names_of(at)
    drawn = _rows(at.model.digest, str(at.unit.channel), direction, n, weights)
    rows = [{**row, "src": images.get(row["unit"]), "label": names.get(row["unit"], "")} for row in drawn]
    own = state.thumb_of(at, at.unit)
    weight_list(rows, own, at.unit.short, incoming=direction == "in", key=f"weights-{direction}")
    if weights.rest is not None and weights.count > len(rows):
        share = max(0.0, 1 - sum(row.share for row in weights.rows))
        total = minus(f"{float(weights.rest.sum()):+.3g}")
        st.caption(
            f"The {weights.count - len(rows):,} others add up to {total}, and have {100 * share:.2g} % of the squared "
            "weights."
        )
    more = len(rows) == n < min(weights.count, MOST)  # fewer rows than n: the others are faint
    if more and st.button("Show more", key=f"more-{direction}", type="tertiary"):
        links.change(**{NAMES[direction]: 2 * n})
        st.rerun()


def _count(direction: Literal["in", "out"]) -> int:
    """Number of kernels that the address asks for."""
    text = links.param(NAMES[direction]) or "12"
    return min(int(text), MOST) if text.isdecimal() and len(text) < 6 and int(text) else 12


def _about(weights: NeighborWeights) -> str:
    n, count, layer = len(weights.rows), weights.count, weights.layer
    if weights.direction == "in":
        start = "" if weights.start == layer else f", at {weights.start}"
        return f"The {n} strongest of {count:,} kernels from {layer}{start}; shares are of the squared weights."
    return (
        f"The {n} strongest of {count:,} kernels to {layer}; shares are of the squared incoming weights of each target."
    )


def edges(weights: NeighborWeights) -> list[Edge]:
    """The weights as edges of a circuit, for figures."""
    incoming = weights.direction == "in"
    return [
        Edge(
            source=row.unit if incoming else weights.unit,
            target=weights.unit if incoming else row.unit,
            sign=1 if row.weight >= 0 else -1,
            weight=row.weight,
            strength=row.weight,
            kernel=row.kernel,
            offset=weights.offset,
            stride=weights.stride,
        )
        for row in weights.rows
    ]


def table(weights: NeighborWeights) -> list[dict[str, Any]]:
    """The weights as rows of a table."""
    columns = ("unit", "weight", "sum", "share")
    return [{"direction": weights.direction} | {name: getattr(row, name) for name in columns} for row in weights.rows]
