"""Steering: edit units on an image, and compare the network before and after the edits."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.pages import Entry
from apps.explorer.panes import charts, image_analysis
from apps.explorer.panes.image_analysis import SelectedImage
from apps.explorer.panes.steering import edit_rows, steering, steering_figure
from apps.explorer.resources import steering_runs
from apps.explorer.resources.steering_runs import Comparison, DoseResponse, SteeringSite
from apps.explorer.server.security import MAX_UPLOAD, checked_json, guarded
from apps.explorer.session import edit_links, state
from apps.explorer.session.edit_links import Edits
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from sae.steering import Maxima, Steering, steered as steer_by

PAGE = Entry(
    "Steering", ":material/tune:", "units steered or ablated on an image, and the effect on the classes", order=40
)


def main() -> None:
    """The page."""
    at = page_frame.location()
    site = steering_runs.steering_site_of(at)
    top = st.container()
    edits: Edits = ()
    with guarded():
        edits = steering.edits_of_address(at, site)
    with st.container(border=True):
        edit_rows.show(edits, site.count, lambda i: state.names_of(at).get(site.address(i), ""), size=site.size,
                       text=False)  # fmt: skip
    image: SelectedImage | None = None
    comparison: Comparison | None = None
    doses: DoseResponse | None = None
    peaks: Maxima | None = None
    with guarded():
        image = image_analysis.selected_image(at, steering.default_image(at))
        peaks = page_frame.background_result(
            ("maxima", site.model.digest, site.space, state.images_of(at).digest), f"maxima of {site.space}",
            lambda report: steering_runs.maxima_of(at, site, report),
        )  # fmt: skip
        if peaks is not None:
            comparison, doses = _results(at, site, edits, peaks, image)
    with guarded():
        _open_file(at, site)
    with top:
        about = f"units of {site.space} edited: the network before and after"
        page_frame.header(
            "steering", f"Steering {site.space}", about=about,
            view={"unit": str(at.unit), "image": None if image is None else image.index,
                  "edits": edit_links.format_edits(edits) or "none"},
            python=steering.script(at, site, edits, image), export=_export(site, edits, peaks, comparison, doses),
        )  # fmt: skip


def _results(
    at: Location, site: SteeringSite, edits: Edits, peaks: Maxima, image: SelectedImage
) -> tuple[Comparison | None, DoseResponse | None]:
    options = steering.later_layers(at)
    comparison: Comparison | None = None
    doses: DoseResponse | None = None
    left, chart, curve = st.columns([4, 5, 5], gap="medium")
    below = st.container()
    if options and edits:
        with below:
            st.markdown("##### Later layers")
            later = pick("Layer", options, "later", st.columns([1, 3])[0])
    else:
        later = ""
    if edits:
        key = ("sides", site.model.digest, site.space, edit_links.format_edits(edits), image.key, later)
        with guarded():
            comparison = page_frame.background_result(
                key, "running the network before and after the edits",
                lambda report: steering_runs.compare(
                    site, edits, peaks, image.images, later=later, most=steering.CHANGED,
                ),
            )  # fmt: skip
    with left:
        steering.show_image(site, edits, image, comparison)
    if comparison is not None:
        with chart:
            st.markdown("##### Classes")
            st.caption("Before in gray; after in orange where it rises, in blue where it falls.")
            charts.show(charts.probabilities(comparison), "probabilities", "class probabilities before and after")
        with curve:
            st.markdown("##### Dose and response")
            over = choose("Over", steering.OVER, "over")
            target = steering.target_of(comparison)
            name = comparison.classes[target].split(",")[0]
            with guarded():
                doses = steering.dose_curves(at, site, edits, peaks, image, over)
            if doses is not None:
                charts.show(charts.dose_chart(doses, target, name), "doses", "dose and response")
                st.caption(steering.dose_summary(doses, target, name))
        if later:
            with below:
                steering.show_changed(at, comparison)
    steering.suggested(at, site, edits, image, peaks)
    return comparison, doses


def _open_file(at: Location, site: SteeringSite) -> None:
    """Edits of a file that Export or `circuits steer --out` wrote."""
    with st.expander("Open edits from a file"):
        file = st.file_uploader("steering.json", ["json"], key="edits-file", max_upload_size=MAX_UPLOAD // 2**20)
        if file is not None and st.button("Apply", key="edits-show"):
            data = file.getvalue()
            checked_json(data)
            steering_file = Steering.parse(data)
            steer_by(site.vision, site.basis, steering_file)  # refuses edits of another layer or of other latents
            edit_rows.put(edit_links.parse_edits(edit_links.format_edits(steering_file.edits), site.count, site.size))


def _export(
    site: SteeringSite, edits: Edits, peaks: Maxima | None, comparison: Comparison | None, doses: DoseResponse | None
) -> Export | None:
    if peaks is None or not edits:
        return None

    def data() -> Any:
        return json.loads(steering_runs.recipe(site, edits, peaks))

    figure = None
    if comparison is not None and doses is not None:
        requested = str(st.session_state.get("class"))
        target = (
            int(requested) if requested.isdecimal() and int(requested) < len(comparison.classes) else comparison.target
        )
        title = f"{site.model.name}/{site.space}: {edit_links.format_edits(edits)}"
        figure = lambda: steering_figure.steered_figure(comparison, doses, target, title)  # noqa: E731
    return Export(
        f"steering-{site.model.name}-{site.space}", figure, data, None if comparison is None else comparison.rows
    )


main()
