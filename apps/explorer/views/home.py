"""Three guided tours, the models that are loaded, and the units that were labeled last."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from apps.explorer import page_frame, scan_tours, tours
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.pages import Entry
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import links, state
from apps.explorer.session.state import Location
from circuits.dataset.scan_store import models_in
from circuits.errors import CircuitsError
from circuits.network.address import Unit

MOST = 3
"""Models whose own tours are shown."""
PAGE = Entry("Home", ":material/home:", "what is loaded, and three guided tours", order=0)


def main() -> None:
    """The page."""
    at = state.locate(None)
    page_frame.header(
        "home", "Circuits", about="Take a trained network apart and see how it computes.",
        python=f"import circuits\n\n{state.loading_code_of(at)}\nprint(list(model.layers))\n",
    )  # fmt: skip
    st.markdown("##### Guided tours")
    _tours(tours.TOURS.values(), "")
    for name in [n for n in state.models(at.settings) if n not in {tour.model for tour in tours.TOURS.values()}][:MOST]:
        with guarded():
            own = scan_tours.tours_of(state.locate(str(state.default_unit_of(name))))
            if own:
                st.markdown(f"##### {plain(f'Tours of {name}, from its scan')}")
                _tours(own.values(), f"{name}-")
    with guarded():
        _loaded(at)
    with guarded():
        _newest(at)


def _tours(those: Collection[tours.Tour], key: str) -> None:
    for column, tour in zip(st.columns(max(3, len(those)), gap="medium"), those, strict=False):
        with column, st.container(border=True, height="stretch", key=f"tour-{key}{tour.name}"), guarded():
            _tour(tour, key)


def _tour(tour: tours.Tour, key: str) -> None:
    at = state.locate(f"{tour.model}/{tour.icon}")
    image_column, text_column = st.columns([2, 5], vertical_alignment="center")
    with image_column:
        src = state.thumb_of(at, at.unit)
        gallery([tile(str(at.unit), src, alt=at.unit.short)], f"tour-icon-{key}{tour.name}", size=72, label=tour.title)
    text_column.markdown(f"**{plain(tour.title)}**")
    text_column.caption(plain(tour.about, 500))
    if at.scan is None:
        st.caption(plain(f"A tour of {tour.model}, which is not scanned yet. The command is below."))
    elif st.button("Start", key=f"begin-{key}{tour.name}", type="primary", width="stretch"):
        tours.start(tour)


def _loaded(at: Location) -> None:
    st.markdown("##### Models")
    for name in state.models(at.settings):
        with st.container(border=True), guarded():
            _model(state.locate(f"{state.default_unit_of(name)}"))
    for name, reason in state.unknown_models(at.settings).items():
        with st.container(border=True):
            st.markdown(f"**{plain(name)}** &ensp; {plain(reason.partition(':')[0])}")
            if command := reason.partition(": ")[2]:
                st.code(command, language="sh")


def _model(at: Location) -> None:
    scan, layers = at.scan, at.model.trunk
    text_column, numbers_column = st.columns([5, 4], vertical_alignment="center")
    about = "not scanned yet" if scan is None else f"scanned on {scan.count:,} images of {scan.image_source}"
    text_column.markdown(f"**{plain(at.model.name)}** &ensp; {plain(about)}")
    if scan is None:
        st.caption(plain(at.hint.partition(":")[0]))
        st.code(at.hint.partition(": ")[2], language="sh")
    else:
        units, visualized = sum(scan.layers.values()), len(state.visualizations_of(at))
        labeled = len(state.labels_of(at))
        numbers_column.caption(
            f"{units:,} units in {len(scan.layers)} layers; {labeled:,} labeled; {visualized:,} visualized"
        )
    visible = [layer for layer in layers if scan is None or layer in scan.layers]
    with st.container(horizontal=True, gap="small"):
        for layer in visible:
            if st.button(layer, key=f"layer-{at.model.name}-{layer}", type="secondary"):
                links.go("layer", unit=f"{at.model.name}/{layer}")


def _newest(at: Location) -> None:
    """Units that were labeled last, by any author."""
    labels = sorted(at.labels.all(), key=lambda label: label.saved, reverse=True)[:12]
    if not labels:
        return
    st.markdown("##### Newest labels")
    tiles = []
    for label in labels:
        try:
            location = state.locate(label.unit)
        except CircuitsError:
            continue  # of a model that is not open here
        src = state.thumb_of(location, Unit.parse(label.unit))
        tiles.append(tile(label.unit, src, alt=label.unit, name=label.name, note=location.unit.short))
    gallery(tiles, "newest", size=92, label="units that were labeled last")
    if at.model.name not in models_in(at.settings.store):
        st.caption(plain(at.hint))


main()
