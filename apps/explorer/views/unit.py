"""One unit: what it looks for and answers to, what it reads and who reads it, and what it is called."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.panes import crops
from apps.explorer.panes import unit as panes
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import links, state
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Here
from circuits import plot
from circuits.dataset.scan_results import UnitScan
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.plot.drawing.wording import number

DIRECTIONS: dict[Literal["in", "out"], str] = {"in": "What it reads", "out": "Who reads it"}
SECTIONS = {
    "weights": "Weights",
    "sum": "The sum",
    "tuning": "Tuning",
    "alike": "Alike",
    "parts": "Taken apart",
    "names": "Names",
}


def main() -> None:
    """The page."""
    at = page_frame.unit_opened()
    found = at.scanned.unit(at.unit) if at.scan is not None and at.unit.space in at.scan.layers else None
    name = state.names_of(at).get(str(at.unit.channel), "")
    page_frame.show(
        "unit",
        f"{at.unit.short}  {name}",
        about=_about(at, found),
        view={"unit": str(at.unit)},
        python=_python(at),
        export=_export(at, found),
        beside=page_frame.neighbors(at),
    )
    if found is None:
        with guarded():
            at.scanned  # noqa: B018 (says what is missing, and what to do)
        picked = None
    else:
        left, right = st.columns([5, 9], gap="large")
        with left:
            st.markdown("##### What it looks for")
            with guarded():
                panes.examples_wall.show(at)
            st.markdown("##### How often it says what")
            st.plotly_chart(
                panes.charts.histogram(found), key="histogram", config={"displayModeBar": False},
                alt=f"Histogram of the responses of {at.unit.short}",
            )  # fmt: skip
            _classes(found)
        with right:
            st.markdown("##### What it answers to")
            with guarded():
                picked = panes.examples.show(at, found)
    if picked:
        image, _, position = picked.partition("@")
        links.go("unit", keep=("examples", "shown", "tour", "step"), unit=at.unit, section="sum", picture=image,
                 place=position)  # fmt: skip
    st.space("small")
    section = choose("Section", SECTIONS, "section")
    with guarded():
        _section(at, found, section)


def _section(at: Here, found: UnitScan | None, section: str) -> None:
    if section == "weights":
        for direction, title in DIRECTIONS.items():
            st.markdown(f"##### {title}")
            panes.weights.show(at, direction)
    elif section == "sum":
        panes.contribution_sum.show(at, found)
    elif section == "tuning":
        panes.tuning.show(at)
    elif section == "alike":
        panes.similar_units.show(at)
    elif section == "parts":
        panes.polysemanticity.show(at, found)
    else:
        panes.label_form.show(at)


def _about(at: Here, found: UnitScan | None) -> str:
    field = at.model.receptive_field(at.unit)
    branch = at.model.branch_of(at.unit) if at.unit.basis is None else None  # a latent reads all of them
    sees = "the whole picture" if field is None else f"{field.size[0]} x {field.size[1]} pixels"
    parts = [*([f"branch {branch}"] if branch else []), f"sees {sees}"]
    if found is not None:
        parts.append(
            f"fires at {100 * found.density:.3g} % of positions, on {found.fires_on:,} of {found.images:,} pictures"
        )
        parts.append(f"strongest {number(found.maximum)}, mean where it fires {number(found.mean_if_on)}")
    return "; ".join(parts)


def _classes(found: UnitScan) -> None:
    if found.classes and max(found.classes.values()) > 1:
        total = sum(found.classes.values())
        said = ", ".join(f"{label} {n}" for label, n in list(found.classes.items())[:6])
        st.caption(plain(f"Classes of its {total} strongest pictures: {said}"))


def _python(at: Here) -> str:
    return (
        "import circuits\nfrom circuits.units.dossier import explain\n\n"
        f"model = circuits.load({at.model.name!r})\n"
        f"scan = circuits.read_scan({str(at.settings.store)!r}, model.name)\n"
        f"dossier = explain(model, {at.unit.channel.short!r}, scan)\n"
    )


def _export(at: Here, found: UnitScan | None) -> Export:
    def both() -> list[Any]:
        made = []
        for direction in DIRECTIONS:
            try:
                made.append(panes.weights.found(at, direction))
            except CircuitsError:  # the first layer reads no other, the last feeds none
                continue
        return made

    def figure() -> Any:
        rows = both()[0]
        units = [rows.unit, *(wire.unit for wire in rows.rows)]
        shown = {u: [crops.decoded(src)] for u in units if (src := state.thumb_of(at, Unit.parse(u)))}
        return plot.kernel_strip(panes.weights.edges(rows), shown)

    def data() -> dict[str, Any]:
        parts = {"responses": None if found is None else found.describe()}
        return {"unit": str(at.unit), **parts, "wires": [rows.describe() for rows in both()]}

    return Export(str(at.unit), figure, data, lambda: [row for rows in both() for row in panes.weights.table(rows)])


main()
