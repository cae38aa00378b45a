"""A unit traced back: the units that activate it, the kernels between them, and how much of it they explain."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.components.graph import graph
from apps.explorer.pages import Entry
from apps.explorer.panes import circuit_tools
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import circuit_views, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits import plot
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


def main() -> None:
    """The page."""
    at = page_frame.unit_location()
    top = st.container()
    from_file = circuit_tools.circuit_from_file(at)
    if from_file is None:
        circuit = _traced(at)
        view = View.of_address(_prune(), links.param("pin"), links.param("group", 2_000), at.model.name)
    else:
        circuit, view = from_file
        st.info("This circuit comes from a file.", icon=":material/description:")
    with top:
        page_frame.header(
            "circuit", f"{at.unit.short}  {state.labels_of(at).get(str(at.unit.channel), '')}",
            about="the units that activate it, traced back through the layers", view={"unit": str(at.unit)},
            python=_python(at), export=None if circuit is None else _export(at, circuit, view), 
            neighbors=page_frame.neighbors(at),
        )  # fmt: skip
    if circuit is None:
        return
    visible = circuit_views.pruned(circuit.label(state.labels_of(at)), view)
    drawing = circuit_views.merged(visible, view)
    selected = tuple(u for u in (links.param("selected") or "").split(",") if u)
    left, right = st.columns([10, 4], gap="medium")
    with left:
        images = circuit_tools.node_images(at, drawing)
        edge = links.param("edge") or ""
        node, clicked = graph(drawing, images, key="graph", selected=selected, pins=view.pins, edge=edge)
    if node:
        units = tuple(u for u in selected if u != node) if node in selected else (*selected, node)
        links.change(selected=",".join(units[-8:]), edge=None)
        st.rerun()
    if clicked:
        links.change(edge=None if clicked == edge else clicked, selected=None)
        st.rerun()
    with right, guarded():
        circuit_tools.show_selection(at, drawing, view, selected, edge)
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


def _prune() -> float:
    value = st.session_state.get("prune", 0)
    return int(value) / 100 if isinstance(value, (int, float)) else 0.0


def _traced(at: Location) -> Circuit | None:
    columns = st.columns([2, 2, 2, 2, 3], vertical_alignment="bottom")
    depth = pick("Depth", DEPTHS, "depth", columns[0])
    width = pick("Parents per unit", WIDTHS, "width", columns[1])
    by = pick("Edges by", BY, "by", columns[2])
    pick("Baseline", circuit_tools.BASELINES, "baseline", columns[3])
    options = circuit_tools.trace_options(by)
    columns[4].slider("Prune edges below, % of the strongest", 0, 60, 0, key="prune", bind="query-params")
    images = circuit_tools.images_for_trace(at, MOST_IMAGES, by)
    model, unit = at.model, at.unit
    return page_frame.background_result(
        ("trace", model.digest, str(unit), images.name, tuple(images.ids), depth, width, str(options)),
        f"tracing {unit.short} on {len(images):,} images, its top activating ones first of all",
        lambda report: trace(
            model, unit, images=images, depth=int(depth), width=int(width), progress=report, **options
        ),
        model=model,
    )


def _python(at: Location) -> str:
    depth, width, by = (st.session_state.get(k, d) for k, d in (("depth", "1"), ("width", "6"), ("by", "gradient")))
    baseline = circuit_tools.chosen_baseline()
    ablated = f", baseline={baseline!r}" if baseline else ""
    return (
        "import circuits\n\n"
        f"{state.loading_code_of(at)}\n"
        f"images = circuits.read_scan({str(at.settings.store)!r}, model.name).images()\n"
        f"options = { {'depth': int(depth), 'width': int(width), **circuit_tools.trace_options(by)} }\n"
        f"circuit = circuits.trace(model, {at.unit.short!r}, images=images, **options)\n"
        f"score = circuits.score(model, circuit, images=images{ablated})\n"
        "print(score.faithfulness, score.faithfulness_percentile)\n"
    )


def _export(at: Location, circuit: Circuit, view: View) -> Export:
    labeled = circuit.label(state.labels_of(at))
    drawing = circuit_views.merged(circuit_views.pruned(labeled, view), view)

    def figure() -> Any:
        images = circuit_tools.images_for_trace(at, MOST_IMAGES, drawing.by)
        return plot.circuit_graph(drawing, plot.crops(drawing, images, at.model.input))

    def rows() -> list[dict[str, Any]]:
        return [
            {"source": e.source, "target": e.target, "strength": e.strength, "weight": e.weight} for e in drawing.edges
        ]

    return Export(f"circuit-{at.unit}", figure, lambda: circuit_views.document(labeled, view), rows)


main()
