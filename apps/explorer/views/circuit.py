"""A unit traced back: the units that activate it, the kernels between them, and how much of it they explain."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.components.graph import graph
from apps.explorer.pages import Entry
from apps.explorer.panes.circuit import tools as circuit_tools
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import circuit_views, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits.plot.drawing.wording import circuit_reading
from circuits.tracing.circuit import Circuit
from circuits.tracing.trace import trace

PAGE = Entry("Circuit", ":material/account_tree:", "a unit traced back through the layers, and scored", order=30)
BY = {
    "gradient": "Gradient",
    "integrated": "Integrated gradients",
    "patching": "Exact patching",
    "mask": "Learned mask",
    "weights": "Weights, at its peaks",
    "bottlenecks": "Weights, through bottlenecks",
    "attribution": "Attribution, at its peaks",
    "ablation": "Ablation, at its peaks",
}
DEPTHS = {str(n): f"{n} layer{'s' * (n > 1)}" for n in (1, 2, 3)}
WIDTHS = {str(n): f"{n} parents" for n in (6, 3, 4, 8, 12, 16)}
PANELS = {"reading": "Description", "score": "Score", "sizes": "Every size", "save": "Save and open"}
MOST_IMAGES = 500
ABOUT = "the units that activate it, traced back through the layers"


def main() -> None:
    """The page."""
    at = page_frame.unit_location()
    top = st.container()
    circuit, view, from_file = None, View(), None
    with guarded():  # a unit that is never active has no circuit, but a title and neighbors
        from_file = circuit_tools.circuit_from_file(at)
        circuit, stored = (_traced(at), None) if from_file is None else from_file
        if circuit is not None and circuit.target != str(at.unit.channel):
            links.change(unit=circuit.target)  # a file is of its own target
            st.rerun()
        view = View() if circuit is None else circuit_tools.view_of(at, circuit, stored)
    with top:
        page_frame.header(
            "circuit", f"{at.unit.short}  {state.names_of(at).get(str(at.unit.channel), '')}",
            about=ABOUT if from_file is None else f"a circuit from a file: {links.param('file') or 'uploaded'}",
            view={"unit": str(at.unit)},
            python=_python(at, circuit if from_file else None),
            export=None if circuit is None else _export(at, circuit, view),
            neighbors=page_frame.neighbors(at),
        )  # fmt: skip
    if circuit is None:
        return
    visible = circuit_views.pruned(circuit.label(state.names_of(at)), view)
    drawing = circuit_views.merged(visible, view)
    selected = tuple(u for u in (links.param("selected") or "").split(",") if u)
    event = graph(
        drawing, view, circuit_tools.node_images(at, drawing, view), key="graph", selected=selected,
        edge=links.param("edge") or "", saved=circuit_tools.saved_links(at),
    )  # fmt: skip
    with guarded():
        circuit_tools.follow(at, view, event)
    panel = choose("Panel", PANELS, "panel")
    with guarded():
        if panel == "reading":
            st.markdown(plain(circuit_reading(drawing), 4_000))
        elif panel == "score":
            circuit_tools.show_score(at, visible)
        elif panel == "sizes":
            circuit_tools.show_sizes(at, circuit)
        else:
            circuit_tools.show_save(at, circuit, view)


def _traced(at: Location) -> Circuit | None:
    with st.container(horizontal=True, gap="small"):
        depth = pick("Depth", DEPTHS, "depth", width=110)
        width = pick("Parents per unit", WIDTHS, "width", width=140)
        by = pick("Edges by", BY, "by", width=240)
        pick("Baseline", circuit_tools.BASELINES, "baseline", width=140)
    options = circuit_tools.trace_options(by)
    images = circuit_tools.images_for_trace(at, MOST_IMAGES, by)
    model, unit, activations = at.model, at.unit, state.kept_activations(at)
    return page_frame.background_result(
        ("trace", model.digest, str(unit), images.name, tuple(images.ids), depth, width, str(options)),
        f"tracing {unit.short} on {len(images):,} images, its top activating ones first of all",
        lambda report: trace(
            model,
            unit,
            images=images,
            depth=int(depth),
            width=int(width),
            activations=activations,
            progress=report,
            **options,
        ),
        model=model,
        folder=at.results,
        images=images,
    )


def _python(at: Location, of_file: Circuit | None) -> str:
    depth, width, by = (st.session_state.get(k, d) for k, d in (("depth", "1"), ("width", "6"), ("by", "gradient")))
    options = {"depth": int(depth), "width": int(width), **circuit_tools.trace_options(by)}
    if of_file is None:
        circuit = (
            f"{circuit_tools.images_in_python(at, MOST_IMAGES, by)}options = {options}\n"
            f"circuit = circuits.trace(model, {at.unit.short!r}, images=traced, **options)\n"
            "figure = circuits.plot.circuit_graph(circuit, circuits.plot.crops(circuit, traced, model.input))\n"
        )
    else:
        circuit = f"{circuit_tools.file_in_python(at)}figure = circuits.plot.circuit_graph(circuit)\n"
    return (
        f"import circuits\nimport numpy as np\n\n{state.loading_code_of(at)}\n"
        f"scan = circuits.read_scan({str(at.settings.store)!r}, model.name)\nimages = scan.images()\n{circuit}\n"
        + circuit_tools.measures_in_python(options["by"] if of_file is None else of_file.by)
    )


def _export(at: Location, circuit: Circuit, view: View) -> Export:
    labeled = circuit.label(state.names_of(at))
    drawing = circuit_views.merged(circuit_views.pruned(labeled, view), view)

    def rows() -> list[dict[str, Any]]:
        return [
            {"source": e.source, "target": e.target, "strength": e.strength, "weight": e.weight} for e in drawing.edges
        ]

    return Export(f"circuit-{at.unit}", None, lambda: circuit_views.document(labeled, view), rows)


main()
