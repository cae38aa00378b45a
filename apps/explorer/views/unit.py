"""One unit: feature visualization, activation histogram, top activating images, weights, tuning and labels."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.pages import Entry
from apps.explorer.panes import charts, crops, unit as panes
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import links, state
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits import plot
from circuits.dataset.scan_results import UnitScan
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.plot.drawing.wording import number

PAGE = Entry(
    "Unit", ":material/center_focus_strong:", "one unit: top activating images, weights, tuning and labels", order=20
)
DIRECTIONS: dict[Literal["in", "out"], str] = {"in": "Incoming weights", "out": "Outgoing weights"}
SECTIONS = {
    "weights": "Weights",
    "contributions": "Contributions",
    "tuning": "Tuning",
    "similar": "Similar units",
    "polysemanticity": "Polysemanticity",
    "labels": "Labels",
}


def main() -> None:
    """The page."""
    at = page_frame.unit_location()
    scanned = at.scanned.unit(at.unit) if at.scan is not None and at.unit.space in at.scan.layers else None
    top = st.container()
    picked = None
    if scanned is None:
        with guarded():
            at.scanned  # noqa: B018 (raises the error that names the missing scan and the command)
    else:
        left, right = st.columns([5, 9], gap="large")
        with left:
            st.markdown("##### Feature visualization")
            with guarded():
                panes.feature_visualization.show(at)
            st.markdown("##### Activation histogram")
            charts.show(charts.histogram(at, scanned), "histogram", f"Activation histogram of {at.unit.short}")
            _classes(scanned)
        with right:
            st.markdown("##### Dataset examples")
            with guarded():
                picked = panes.examples.show(at, scanned)
    if picked:
        image, _, position = picked.partition("@")
        keep = ("examples", "crop", *links.TOUR)
        links.go("unit", keep=keep, unit=at.unit, section="contributions", image=image, position=position)
    st.space("small")
    section = choose("Section", SECTIONS, "section")
    with guarded():
        _section(at, scanned, section)
    label, python = state.names_of(at).get(str(at.unit.channel), ""), ""
    with contextlib.suppress(CircuitsError):  # the section has shown it
        python = panes.script.script(at, scanned, section)
    with top:  # last, since the Python code is that of the section
        page_frame.header(
            "unit", f"{at.unit.short}  {label}", about=_about(at, scanned), view={"unit": str(at.unit)},
            python=python, export=_export(at, scanned), neighbors=page_frame.neighbors(at),
        )  # fmt: skip


def _section(at: Location, scanned: UnitScan | None, section: str) -> None:
    if section == "weights":
        for direction, title in DIRECTIONS.items():
            st.markdown(f"##### {title}")
            panes.weights.show(at, direction)
    elif section == "contributions":
        panes.contributions.show(at, scanned)
    elif section == "tuning":
        panes.tuning.show(at)
    elif section == "similar":
        panes.similar_units.show(at)
    elif section == "polysemanticity":
        panes.polysemanticity.show(at, scanned)
    else:
        panes.label_form.show(at)
        st.markdown("##### Collections")
        panes.collect.show(at)


def _about(at: Location, scanned: UnitScan | None) -> str:
    branch = at.model.branch_of(at.unit) if at.unit.basis is None else None  # a latent reads all branches
    parts = [*([f"branch {branch}"] if branch else []), page_frame.receptive_field(at.model.receptive_field(at.unit))]
    if scanned is not None:
        parts.append(f"active at {100 * scanned.density:.3g} % of positions")
        parts.append(f"on {scanned.active_images:,} of {scanned.images:,} images")
        mean = f", mean where active {number(scanned.mean_if_on)}" if scanned.active_images else ""
        parts.append(f"maximum {number(scanned.maximum)}{mean}")
    return "; ".join(parts)


def _classes(scanned: UnitScan) -> None:
    if scanned.classes and max(scanned.classes.values()) > 1:
        counts = ", ".join(f"{label} {n}" for label, n in list(scanned.classes.items())[:6])
        total = sum(scanned.classes.values())
        st.caption(plain(f"Classes of its {total} top activating images: {counts}"))


def _export(at: Location, scanned: UnitScan | None) -> Export:
    def both() -> list[Any]:
        weights = []
        for direction in DIRECTIONS:
            try:
                weights.append(panes.weights.strongest_weights(at, direction))
            except CircuitsError:  # the first layer has no incoming weights, the last no outgoing ones
                continue
        return weights

    def figure() -> Any:
        weights = both()[0]
        units = [weights.unit, *(row.unit for row in weights.rows)]
        images = {u: [crops.decoded(src)] for u in units if (src := state.thumb_of(at, Unit.parse(u)))}
        return plot.kernel_strip(panes.weights.edges(weights), images)

    def data() -> dict[str, Any]:
        responses = None if scanned is None else scanned.describe()
        return {"unit": str(at.unit), "responses": responses, "weights": [weights.describe() for weights in both()]}

    return Export(str(at.unit), figure, data, lambda: [row for rows in both() for row in panes.weights.table(rows)])


main()
