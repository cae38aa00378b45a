"""A unit traced back: the units that make it fire, kernels between them, and how much of it they explain."""

from __future__ import annotations

from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.components.graph import graph
from apps.explorer.panes import circuit_tools
from apps.explorer.server.security import guarded, plain
from apps.explorer.session import circuit_views, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Here
from circuits import plot
from circuits.network.model import Model
from circuits.plot.drawing.wording import circuit_reading
from circuits.tracing.circuit import Circuit
from circuits.tracing.trace import trace
from zoo.images.sources import Images
from zoo.progress import Progress

BY = {"weights": "Weights", "attribution": "Attribution", "ablation": "Ablation"}
DEPTHS = {str(n): f"{n} layer{'s' * (n > 1)}" for n in (1, 2, 3)}
WIDTHS = {str(n): f"{n} sources" for n in (6, 3, 4, 8, 12, 16)}
PANELS = {"reading": "In words", "score": "Score", "keep": "Save and load"}
MOST_PICTURES = 500


def main() -> None:
    """The page."""
    at = page_frame.unit_opened()
    top = st.container()
    loaded = circuit_tools.loaded(at)
    if loaded is None:
        whole = _traced(at)
        view = View.read(_prune(), links.asked("pin"), links.asked("group", 2_000), at.model.name)
    else:
        whole, view = loaded
        st.info("This circuit comes from a file.", icon=":material/description:")
    with top:
        page_frame.show(
            "circuit", f"{at.unit.short}  {state.names_of(at).get(str(at.unit.channel), '')}",
            about="the units that make it fire, traced back", view={"unit": str(at.unit)}, python=_python(at),
            export=None if whole is None else _export(at, whole, view), beside=page_frame.neighbors(at),
        )  # fmt: skip
    if whole is None:
        return
    shown = circuit_views.pruned(whole.label(state.names_of(at)), view)
    drawing = circuit_views.merged(shown, view)
    chosen = tuple(u for u in (links.asked("chosen") or "").split(",") if u)
    left, right = st.columns([10, 4], gap="medium")
    with left:
        pictures = circuit_tools.pictures(at, drawing)
        edge = links.asked("edge") or ""
        node, clicked = graph(drawing, pictures, key="graph", chosen=chosen, pins=view.pins, edge=edge)
    if node:
        several = tuple(u for u in chosen if u != node) if node in chosen else (*chosen, node)
        links.change(chosen=",".join(several[-8:]), edge=None)
        st.rerun()
    if clicked:
        links.change(edge=None if clicked == edge else clicked, chosen=None)
        st.rerun()
    with right, guarded():
        circuit_tools.side(at, drawing, view, chosen, edge)
    panel = choose("Panel", PANELS, "panel")
    with guarded():
        if panel == "reading":
            st.markdown(plain(circuit_reading(drawing), 4_000))
        elif panel == "score":
            circuit_tools.scored(at, shown)
        else:
            circuit_tools.keep(at, whole, view)


def _prune() -> float:
    said = st.session_state.get("prune", 0)
    return int(said) / 100 if isinstance(said, (int, float)) else 0.0


def _traced(at: Here) -> Circuit | None:
    one, two, three, four = st.columns([2, 2, 2, 3], vertical_alignment="bottom")
    depth, width, by = (
        pick("Back", DEPTHS, "depth", one),
        pick("Wide", WIDTHS, "width", two),
        pick("By", BY, "by", three),
    )
    four.slider("Leave out edges below, % of the strongest", 0, 60, 0, key="prune", bind="query-params")
    images = circuit_tools.traced_on(at, MOST_PICTURES)
    model, unit = at.model, at.unit
    found: Circuit | None = page_frame.settled(
        ("trace", model.digest, str(unit), images.name, tuple(images.ids), depth, width, by),
        f"tracing {unit.short} on the {len(images):,} pictures that it answers to most",
        lambda report: traced(model, str(unit), images, int(depth), int(width), by, report),
        model=model,
    )
    return found


def traced(model: Model, unit: str, images: Images, depth: int, width: int, by: Any, progress: Progress) -> Circuit:
    """A circuit, as the page asks for it."""
    return trace(model, unit, images=images, depth=depth, width=width, by=by, progress=progress)


def _python(at: Here) -> str:
    depth, width, by = (st.session_state.get(k, d) for k, d in (("depth", "1"), ("width", "6"), ("by", "weights")))
    return (
        "import circuits\n\n"
        f"model = circuits.load({at.model.name!r})\n"
        f"pictures = circuits.read_scan({str(at.settings.store)!r}, model.name).pictures()\n"
        f"options = {{'depth': {depth}, 'width': {width}, 'by': {by!r}}}\n"
        f"circuit = circuits.trace(model, {at.unit.short!r}, images=pictures, **options)\n"
        "score = circuits.score(model, circuit, images=pictures)\n"
        "print(score.faithfulness, score.faithfulness_percentile)\n"
    )


def _export(at: Here, whole: Circuit, view: View) -> Export:
    labeled = whole.label(state.names_of(at))
    drawing = circuit_views.merged(circuit_views.pruned(labeled, view), view)

    def figure() -> Any:
        images = circuit_tools.traced_on(at, MOST_PICTURES)
        return plot.circuit_graph(drawing, plot.crops(drawing, images, at.model.input))

    def rows() -> list[dict[str, Any]]:
        return [
            {"source": e.source, "target": e.target, "strength": e.strength, "weight": e.weight} for e in drawing.edges
        ]

    return Export(f"circuit-{at.unit}", figure, lambda: circuit_views.document(labeled, view), rows)


main()
