"""Similar units, by activations and by incoming weights, against the similarity of pairs of units by chance."""

from __future__ import annotations

import streamlit as st

from apps.explorer.components.gallery import gallery
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.server.security import plain
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.errors import CircuitsError
from circuits.plot.drawing.wording import minus

MEASURES = {"activations": "Similar activations", "weights": "Similar incoming weights"}
MOST = 12


def show(at: Location) -> None:
    """Show both lists."""
    labels = state.names_of(at)
    for by, title in MEASURES.items():
        st.markdown(f"##### {title}")
        try:
            neighbors = state.similarity_in(at, by).neighbors(str(at.unit.channel), MOST)
        except CircuitsError as error:
            st.caption(plain(error))
            continue
        chance = minus(f"{neighbors.chance:.2f}")
        st.caption(plain(f"{neighbors.measure}; 99 % of pairs of units are below {chance}; units below it are faint"))
        if neighbors.silent:
            st.caption("It is never active: there is nothing to compare.")
            continue
        tiles = [
            unit_tile(at, unit, labels, minus(f"{value:.2f}"), mark="" if value > neighbors.chance else "faint")
            for unit, value in neighbors.rows
        ]
        gallery(tiles, f"similar-{by}", size=96, label=title)


def script(at: Location, unit: str) -> str:
    """Python code that gives both lists, of a `model` and a `scan`."""
    space = unit.rpartition(":")[0]
    active = "np.maximum(samples.values, 0)" if state.compares_active_parts(at) else "samples.values"
    return (
        "\nimport numpy as np\nfrom circuits.units.similarity import by_weights, unit_names, unit_similarity\n\n"
        f"name, samples = str(model.unit({unit!r})), scan.samples({space!r})\n"
        f"values = {active}.T\n"
        f"similarity = unit_similarity(values, unit_names(model, {space!r}), measure='activations', centered=True)\n"
        f"print(similarity.neighbors(name, {MOST}).rows)\n"
        f"print(by_weights(model, {space!r}).neighbors(name, {MOST}).rows)\n"
    )
