"""Units like one: by when they fire, and by what they read, against what pairs of units reach by chance."""

from __future__ import annotations

import streamlit as st

from apps.explorer.components.gallery import gallery
from apps.explorer.panes.tiles import unit_tile
from apps.explorer.server.security import plain
from apps.explorer.session import state
from apps.explorer.session.state import Here
from circuits.errors import CircuitsError
from circuits.plot.drawing.wording import minus

WORDS = {"activations": "Fire at the same places", "weights": "Read the same"}


def show(at: Here) -> None:
    """Both lists."""
    names = state.names_of(at)
    for by, title in WORDS.items():
        st.markdown(f"##### {title}")
        try:
            found = state.likeness_in(at, by).neighbors(str(at.unit.channel), 12)
        except CircuitsError as error:
            st.caption(plain(error))
            continue
        chance = minus(f"{found.chance:.2f}")
        st.caption(plain(f"{found.measure}; 99 of 100 pairs of units lie below {chance}, and are faint here"))
        if found.silent:
            st.caption("It has nothing to compare.")
            continue
        tiles = [
            unit_tile(at, unit, names, minus(f"{value:.2f}"), mark="" if value > found.chance else "faint")
            for unit, value in found.rows
        ]
        gallery(tiles, f"alike-{by}", size=96, label=title)
