"""Why a prediction is what it is: its attribution graph on an image, and what setting nodes to zero or twice does."""

from __future__ import annotations

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose
from apps.explorer.components.graph import graph
from apps.explorer.pages import Entry
from apps.explorer.panes import image_analysis
from apps.explorer.panes.circuit import tools, why
from apps.explorer.panes.crops import decoded
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import circuit_views, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits import plot
from circuits.plot.circuit.attribution_graph import graph_reading
from circuits.plot.drawing.crops import Crop
from circuits.tracing.circuit import Circuit

PAGE = Entry("Why", ":material/help:", "why a prediction: its graph, from the class to the image", order=52)
PANELS = {
    "effect": "Zero or twice",
    "reading": "Description",
    "check": "Is it right?",
    "groups": "Groups",
}
WIDTH = 6
"""Sources of each unit that are drawn."""


def main() -> None:
    """The page."""
    at = page_frame.location()
    top = st.container()
    query, answer, circuit, view = None, None, None, View()
    with guarded():
        image = image_analysis.selected_image(at)
        if image.index is None:
            st.caption("Your own image stays in this session: a link to this view shows one of the scanned images.")
        query = why.question(at, image)
    with guarded():
        if query is not None and _wanted():
            answer = why.explained(at, query)
        if answer is not None:
            circuit = answer.graph.label(state.names_of(at)).circuit(WIDTH)
            view = tools.view_of(at, circuit, None)
    if answer is not None and circuit is not None and query is not None:
        area, outcome = st.container(), ""
        panel = choose("Panel", PANELS, "panel")
        with guarded():
            if panel == "effect":
                outcome = why.show_effect(at, query, answer, view)
            elif panel == "check":
                why.show_check(at, query, answer)
            elif panel == "groups":
                why.show_groups(at, query, answer, view)
            else:
                st.markdown(plain(graph_reading(answer.graph.label(state.names_of(at))), 4_000))
                st.caption(
                    f"Completeness {answer.graph.completeness:.2f}, replacement {answer.graph.replacement:.2f}; "
                    f"the largest sum that the edges lack: {answer.graph.unexplained:.0e} of its size."
                )
        with area:
            _drawn(at, answer, circuit, view, outcome)
    with top:
        index = None if query is None else query.image.index
        units = () if answer is None else _units(answer, view)
        page_frame.header(
            "why", "Why this prediction?", about="which units give it, through which others, back to the image",
            view={"unit": str(at.unit), "image": index}, python=why.script(at, query, units),
            export=None if answer is None or circuit is None else _export(at, answer, circuit, view),
        )  # fmt: skip


def _wanted() -> bool:
    """Whether the graph was asked for, by a click or by the address: it takes seconds on a large network."""
    if links.param("explain", 10) == "1":
        return True
    st.caption("The graph is computed when you ask for it: a second on a small network, some on a large one.")
    if st.button("Explain", key="explain-it", type="primary"):
        links.change(explain="1")
        st.rerun()
    return False


def _units(answer: why.Explained, view: View) -> tuple[str, ...]:
    with guarded():
        return why.selected_units(answer, view)
    return ()


def _drawn(at: Location, answer: why.Explained, circuit: Circuit, view: View, outcome: str) -> None:
    drawing = circuit_views.merged(circuit_views.pruned(circuit, view), view)
    selected = tuple(u for u in (links.param("selected") or "").split(",") if u)
    event = graph(
        drawing, view, why.node_images(at, answer, drawing, view), key="graph", selected=selected,
        edge=links.param("edge") or "", notes=why.notes(answer, view), factors=why.FACTORS,
        factor=links.param("factor", 10) or "1", outcome=outcome,
    )  # fmt: skip
    with guarded():
        tools.follow(at, view, event)


def _export(at: Location, answer: why.Explained, circuit: Circuit, view: View) -> Export:
    def images() -> dict[str, list[Crop]]:
        return {unit: [decoded(src) for src in some] for unit, some in answer.crops.items()}

    labeled = answer.graph.label(state.names_of(at))
    drawing = circuit_views.merged(circuit_views.pruned(circuit, view), view)
    return Export(
        f"why-{answer.graph.target}",
        lambda: plot.circuit_graph(drawing, images()),
        labeled.to_json,
        labeled.records,
        lambda: plot.attribution_graph_page(labeled, images(), width=WIDTH),
    )


main()
