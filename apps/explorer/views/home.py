"""What is loaded, three guided tours, and what is missing."""

from __future__ import annotations

import streamlit as st

from apps.explorer import page_frame, tours
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Here
from circuits.dataset.scan_store import models_in
from circuits.errors import CircuitsError
from circuits.network.address import Unit


def main() -> None:
    """The page."""
    at = state.here(None)
    page_frame.show(
        "home", "Circuits", about="Take a trained network apart and see how it computes.",
        python=f"import circuits\n\nmodel = circuits.load({at.model.name!r})\nprint(list(model.layers))\n",
    )  # fmt: skip
    st.markdown("##### Guided tours")
    for column, tour in zip(st.columns(len(tours.TOURS), gap="medium"), tours.TOURS.values(), strict=True):
        with column, st.container(border=True, height="stretch", key=f"tour-{tour.name}"), guarded():
            _tour(tour)
    with guarded():
        _loaded(at)
    with guarded():
        _newest(at)


def _tour(tour: tours.Tour) -> None:
    at = state.here(f"{tour.model}/{tour.face}")
    picture, words = st.columns([2, 5], vertical_alignment="center")
    with picture:
        src = state.thumb_of(at, at.unit)
        gallery([tile(str(at.unit), src, alt=at.unit.short)], f"face-{tour.name}", size=72, label=tour.title)
    words.markdown(f"**{plain(tour.title)}**")
    words.caption(plain(tour.about))
    if at.scan is None:
        st.caption(plain(f"A tour of {tour.model}, which this store has no scan of; below stands what makes one."))
    elif st.button("Begin", key=f"begin-{tour.name}", type="primary", width="stretch"):
        tours.start(tour)


def _loaded(at: Here) -> None:
    st.markdown("##### What is loaded")
    for name in state.models(at.settings):
        with st.container(border=True), guarded():
            _model(state.here(f"{state.first_of(name)}"))


def _model(at: Here) -> None:
    scan, layers = at.scan, at.model.trunk
    words, numbers = st.columns([5, 4], vertical_alignment="center")
    about = "not scanned yet" if scan is None else f"scanned on {scan.count:,} pictures of {scan.images}"
    words.markdown(f"**{plain(at.model.name)}** &ensp; {plain(about)}")
    if scan is None:
        st.caption(plain(at.why.partition(":")[0]))
        st.code(at.why.partition(": ")[2], language="sh")
    else:
        units, made = sum(scan.layers.values()), len(state.looks_of(at))
        named = len(state.names_of(at))
        numbers.caption(f"{units:,} units in {len(scan.layers)} layers; {named:,} named; {made:,} with made pictures")
    shown = [layer for layer in layers if scan is None or layer in scan.layers]
    with st.container(horizontal=True, gap="small"):
        for layer in shown:
            if st.button(layer, key=f"layer-{at.model.name}-{layer}", type="secondary"):
                links.go("layer", unit=f"{at.model.name}/{layer}")


def _newest(at: Here) -> None:
    """Units that were named last, by anybody."""
    labels = sorted(at.labels.all(), key=lambda label: label.saved, reverse=True)[:12]
    if not labels:
        return
    st.markdown("##### Named last")
    tiles = []
    for label in labels:
        try:
            where = state.here(label.unit)
        except CircuitsError:
            continue  # of a model that is not open here
        src = state.thumb_of(where, Unit.parse(label.unit))
        tiles.append(tile(label.unit, src, alt=label.unit, name=label.name, note=where.unit.short))
    gallery(tiles, "newest", size=92, label="units that were named last")
    if at.model.name not in models_in(at.settings.store):
        st.caption(plain(at.why))


main()
