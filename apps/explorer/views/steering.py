"""Steering: turn units up and down on a picture, and see what the rest of the network makes of it."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.panes import image_analysis
from apps.explorer.panes.image_analysis import Shown
from apps.explorer.panes.steering import edit_rows, steering, steering_figure
from apps.explorer.resources import steering_runs
from apps.explorer.resources.steering_runs import Doses, Sides, SteeringSite
from apps.explorer.server.security import MAX_UPLOAD, checked_json, guarded
from apps.explorer.session import edit_links, state
from apps.explorer.session.edit_links import Edits
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Here
from sae.steering import Maxima, Steering
from sae.steering import steered as steer_by


def main() -> None:
    """The page."""
    at = page_frame.opened()
    bench = steering_runs.bench_of(at)
    top = st.container()
    edits: Edits = ()
    with guarded():
        edits = steering.asked(at, bench)
    with st.container(border=True):
        edit_rows.rows(edits, bench.count, lambda i: state.names_of(at).get(bench.address(i), ""), size=bench.size,
                       text=False)  # fmt: skip
    shown: Shown | None = None
    made: Sides | None = None
    found: Doses | None = None
    known: Maxima | None = None
    with guarded():
        shown = image_analysis.chosen(at, steering.first_picture(at))
        known = page_frame.settled(
            ("maxima", bench.model.digest, bench.space, state.pictures_of(at).digest), f"maxima of {bench.space}",
            lambda report: steering_runs.maxima_of(at, bench, report),
        )  # fmt: skip
        if known is not None:
            made, found = _results(at, bench, edits, known, shown)
    with guarded():
        _given(at, bench)
    with top:
        about = f"units of {bench.space} turned up and down: before and after"
        page_frame.show(
            "steering", f"Steering {bench.space}", about=about,
            view={"unit": str(at.unit), "picture": None if shown is None else shown.index,
                  "edits": edit_links.written(edits) or "none"},
            python=steering.script(at, bench, edits, shown), export=_export(bench, edits, known, made, found),
        )  # fmt: skip


def _results(
    at: Here, bench: SteeringSite, edits: Edits, known: Maxima, shown: Shown
) -> tuple[Sides | None, Doses | None]:
    options = steering.later_layers(at)
    made: Sides | None = None
    found: Doses | None = None
    left, chart, curve = st.columns([4, 5, 5], gap="medium")
    below = st.container()
    if options and edits:
        with below:
            st.markdown("##### What changes further on")
            later = pick("Layer", options, "later", st.columns([1, 3])[0])
    else:
        later = ""
    if edits:
        key = ("sides", bench.model.digest, bench.space, edit_links.written(edits), shown.key, later)
        with guarded():
            made = page_frame.settled(
                key, "running it before and after",
                lambda report: steering_runs.sides(bench, edits, known, shown.images, later=later, most=steering.MOVED),
            )  # fmt: skip
    with left:
        steering.picture(bench, edits, shown, made)
    if made is not None:
        with chart:
            st.markdown("##### Classes")
            st.caption("Before in gray; after in orange where it rises, in blue where it falls.")
            st.plotly_chart(steering.probabilities(made), key="probabilities", config={"displayModeBar": False},
                            alt="probability of classes before and after")  # fmt: skip
        with curve:
            st.markdown("##### More and less of it")
            over = choose("Over", steering.OVER, "over")
            target = steering.target_of(made)
            name = made.classes[target].split(",")[0]
            with guarded():
                found = steering.found_doses(at, bench, edits, known, shown, over)
            if found is not None:
                figure = steering.dose_chart(found, target, name, "these edits")
                st.plotly_chart(figure, key="doses", config={"displayModeBar": False}, alt="dose and response")
                st.caption(steering.told(found, target, name))
        if later:
            with below:
                steering.moved(at, made)
    steering.suggested(at, bench, edits, shown, known)
    return made, found


def _given(at: Here, bench: SteeringSite) -> None:
    """Edits from a file: those that Export wrote, or `circuits steer --out`."""
    with st.expander("Open edits from a file"):
        given = st.file_uploader("steering.json", ["json"], key="edits-given", max_upload_size=MAX_UPLOAD // 2**20)
        if given is not None and st.button("Show them", key="edits-show"):
            data = given.getvalue()
            checked_json(data)
            read = Steering.parse(data)
            steer_by(bench.site, bench.basis, read)  # of another layer, or other latents, it says so
            edit_rows.put(edit_links.parsed(edit_links.written(read.edits), bench.count, bench.size))


def _export(
    bench: SteeringSite, edits: Edits, known: Maxima | None, made: Sides | None, found: Doses | None
) -> Export | None:
    if known is None or not edits:
        return None

    def data() -> Any:
        return json.loads(steering_runs.recipe(bench, edits, known))

    figure = None
    if made is not None and found is not None:
        said = str(st.session_state.get("class"))
        target = int(said) if said.isdecimal() and int(said) < len(made.classes) else made.target
        title = f"{bench.model.name}/{bench.space}: {edit_links.written(edits)}"
        figure = lambda: steering_figure.steered_figure(made, found, target, title)  # noqa: E731
    return Export(f"steering-{bench.model.name}-{bench.space}", figure, data, None if made is None else made.rows)


main()
