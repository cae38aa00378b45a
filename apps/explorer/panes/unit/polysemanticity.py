"""How many things a unit answers to: its examples grouped by what made it fire, against two controls."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.session import state
from apps.explorer.session.exports import figure_bytes
from apps.explorer.session.state import Here
from circuits import plot
from circuits.dataset.scan_results import UnitScan
from circuits.errors import CircuitsError
from circuits.units.polysemanticity import polysemantic
from zoo.progress import Progress

LEAST, MOST = 12, 64


def show(at: Here, found: UnitScan | None) -> None:
    """The groups."""
    if found is None or len(found.top) < LEAST:
        st.caption("It fires on too few of the pictures to find groups among.")
        return
    if at.model.before(at.unit.layer) is None:
        st.caption("It reads the picture itself: there are no units that make it fire.")
        return
    model, unit, pictures, spec = at.model, str(at.unit.channel), state.pictures_of(at), at.scanned.input_spec

    def work(progress: Progress) -> Any:
        rows = polysemantic(model, unit, images=pictures, examples={unit: found.top[:MOST]}).rows
        if not rows:
            raise CircuitsError("its examples could not be told apart")
        return rows[0], figure_bytes(lambda: plot.polysemantic_unit(rows[0], pictures, spec), "png")

    key = ("apart", model.digest, at.scanned.manifest["digest"], unit)
    made = page_frame.settled(key, "grouping its examples by what made it fire", work, model=model)
    if made is None:
        return
    row, figure = made
    if row.split:
        st.markdown(
            f"Its examples fall into **{len(row.clusters)} groups** by the units that made it fire: score "
            f"{row.score:.2f}, where 0 is one thing and 1 are things that share nothing."
        )
    else:
        st.markdown("Its examples do not fall into groups by the units that made it fire, beyond what chance makes.")
    st.image(figure, width="stretch", alt=f"Examples of {at.unit.short}, by what made it fire")
