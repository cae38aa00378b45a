"""A unit in short: its name, top activating images, visualizations and histogram, beside another one."""

from __future__ import annotations

import streamlit as st

from apps.explorer.components.gallery import gallery, tile
from apps.explorer.panes import charts, crops
from apps.explorer.server.security import plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Location
from circuits.plot.drawing.wording import minus, number

TOP = 12


def show(at: Location, key: str) -> None:
    """Show it; `key` tells its elements from those of the other unit."""
    scanned = at.scanned.unit(at.unit)
    label = state.names_of(at).get(str(at.unit.channel), "")
    st.markdown(f"##### [{plain(f'{at.unit.short} {label}')}]({links.unit_path(at.unit)})")
    st.caption(plain(
        f"{at.model.name}; active at {100 * scanned.density:.3g} % of positions, on {scanned.active_images:,} of "
        f"{scanned.images:,} images; maximum {number(scanned.maximum)}"
    ))  # fmt: skip
    examples = scanned.top[:TOP]
    if not examples:
        st.caption("It is active on none of the images.")
        return
    tiles = [
        tile(None, src, alt=f"{e.id}, position {e.position[0]},{e.position[1]}", note=minus(f"{e.value:.3g}"))
        for e, src in zip(examples, crops.cut(at, examples, "field"), strict=True)
    ]
    gallery(tiles, f"examples-{key}", size=84, label=f"top activating images of {at.unit.short}")
    drawn = [
        (v, src)
        for v in state.visualizations_of(at).get(str(at.unit.channel), ())
        if (src := state.visualization_uri(v))
    ]
    if drawn:
        drawings = [tile(None, src, alt=f"feature visualization, {v.kind}", name=v.kind) for v, src in drawn]
        gallery(drawings, f"visualizations-{key}", size=118, label=f"feature visualizations of {at.unit.short}")
    charts.show(charts.histogram(at, scanned), f"histogram-{key}", f"Activation histogram of {at.unit.short}")
