"""What goes with a circuit's graph: the panel of what was clicked, its score, and its file."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.components.graph import SEPARATOR
from apps.explorer.components.wires import kernel_uri
from apps.explorer.panes import crops
from apps.explorer.server.security import MAX_UPLOAD, checked_json, checked_name, plain, safe_join
from apps.explorer.session import circuit_views, exports, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.state import Here
from circuits import plot
from circuits.common.examples import Example
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.plot.drawing.wording import kernel_effect, minus, name_of
from circuits.tracing.circuit import Circuit
from circuits.tracing.score import score
from zoo.common.files import write_text_atomically
from zoo.images.sources import Images

FOLDER = "circuits"
RANDOM, STRONGEST = 50, 64


def images(at: Here, most: int) -> Images:
    """The scanned pictures, at most so many, spread over all."""
    return state.pictures_of(at).spread(most)


def traced_on(at: Here, most: int) -> Images:
    """Pictures to trace the page's unit on: those on which the scan saw it fire most, which are those that count.

    A trace averages over the places where its target is strongest, so that more pictures would change nothing. Without
    a scan of the unit, pictures spread over all.
    """
    if at.scan is not None and at.unit.space in at.scan.layers:
        top = at.scan.unit(at.unit.channel).top[:STRONGEST]
        if top:
            return state.pictures_of(at).subset(sorted({example.image for example in top}))
    return images(at, most)


def pictures(at: Here, circuit: Circuit) -> dict[str, tuple[str, ...]]:
    """Small pictures of all units of a circuit: where the scan saw them fire most."""
    found = {}
    for node in circuit.nodes:
        unit = Unit.parse(node.unit).channel
        several = 4 if node.unit == circuit.target else 3
        examples: tuple[Example, ...] = ()
        if at.scan is not None and unit.space in at.scan.layers and unit.basis is None:
            examples = at.scan.unit(unit).top[:several]
        found[node.unit] = crops.cut(at, examples, "field") if examples else ()
    return found


def side(at: Here, circuit: Circuit, view: View, chosen: tuple[str, ...], edge: str) -> None:
    """What was clicked: a kernel, or units."""
    source, _, target = edge.partition(SEPARATOR)
    inside = {node.unit for node in circuit.nodes}
    known = [unit for unit in chosen if unit in inside]
    if edge and {source, target} <= inside:
        _edge(at, circuit, source, target)
    elif known:
        _nodes(at, circuit, view, known)
    else:
        st.caption("Click a kernel to see its weights; a picture to choose a unit: open it, pin it, put it together.")
    if view.groups:
        st.markdown("##### Groups")
    for group in view.groups:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(group.name)}** {plain(', '.join(u.rpartition('/')[2] for u in group.units))}")
            if st.button("Part", key=f"part-{group.name}", type="tertiary"):
                links.change(**view.ungrouped(group.name).to_address())
                st.rerun()


def _edge(at: Here, circuit: Circuit, source: str, target: str) -> None:
    edge = next((e for e in circuit.edges if (e.source, e.target) == (source, target)), None)
    if edge is None:
        st.caption("This kernel is not shown.")
        return
    st.markdown(f"##### {plain(name_of(circuit.node(source)))} → {plain(name_of(circuit.node(target)))}")
    values = np.atleast_2d(edge.kernel)
    scale = plot.shared_scale([values])
    data = base64.b64decode(kernel_uri(np.kron(values, np.ones((1, 1), np.float32)), scale).partition(",")[2])
    st.html(_kernel_style())
    with st.container(key="kernel"):
        st.image(data, width=200, alt=f"kernel: {kernel_effect(values, edge.sign)}")
    st.caption(plain(kernel_effect(values, edge.sign)))
    st.markdown(
        f"adds **{minus(f'{edge.strength:+.3g}')}** on average; weights from {minus(f'{values.min():+.3g}')} to "
        f"{minus(f'{values.max():+.3g}')}, sum {minus(f'{values.sum():+.3g}')}"
    )
    ends = [source, target]
    tiles = [tile(u, state.thumb_of(at, Unit.parse(u)), alt=u, name=name_of(circuit.node(u))) for u in ends]
    gallery(tiles, "edge-ends", size=110, label="the units that it joins")


def _kernel_style() -> str:
    return (
        "<style>.st-key-kernel img { image-rendering: pixelated; border: 1px solid rgba(128, 128, 128, 0.4); }</style>"
    )


def _nodes(at: Here, circuit: Circuit, view: View, chosen: list[str]) -> None:
    names = ", ".join(name_of(circuit.node(unit)) for unit in chosen)
    st.markdown(f"##### {plain(names, 200)}")
    with st.container(horizontal=True, gap="small"):
        unit = chosen[-1]
        if st.button("Open unit", key="node-open", type="primary"):
            links.go("unit", keep=("tour", "step"), unit=unit)
        if st.button("Its circuit", key="node-circuit"):
            links.go("circuit", keep=("depth", "width", "by"), unit=unit)
        if st.button("Unpin" if unit in view.pins else "Pin", key="node-pin", help="Pinned units are never left out"):
            links.change(**view.pinned(unit).to_address())
            st.rerun()
        if st.button("Clear", key="node-clear", type="tertiary"):
            links.change(chosen=None)
            st.rerun()
    if len(chosen) > 1:
        with st.form("group", border=False):
            name = st.text_input("Put them together as", max_chars=40, placeholder="parts")
            if st.form_submit_button("Group"):
                links.change(**view.grouped(name, chosen).to_address(), chosen=None)
                st.rerun()


def scored(at: Here, circuit: Circuit) -> None:
    """How much of the target the circuit explains, beside random circuits of its size."""
    model, shown = at.model, images(at, 200)
    plain_circuit = replace(circuit, score=None)
    key = ("score", model.digest, shown.name, tuple(sorted(n.unit for n in circuit.nodes)), circuit.target)

    def work(report: Any) -> tuple[Any, bytes]:
        found = score(model, plain_circuit, images=shown, random=RANDOM, progress=report)
        labels = {n.unit: n.label for n in circuit.nodes if n.label}
        return found, exports.figure_bytes(lambda: plot.score_figure(found, labels=labels), "png")

    made = page_frame.settled(key, f"scoring it beside {RANDOM} random circuits of its size", work, model=model)
    if made is None:
        return
    found, figure = made
    st.image(figure, width=760, alt="faithfulness and completeness of the circuit beside random circuits")
    st.caption(
        f"Faithfulness {minus(f'{found.faithfulness:.2f}')}: above {found.faithfulness_percentile:.0f} % of "
        f"{found.n_random} random circuits of the same size, on {found.n_images} pictures."
    )


def loaded(at: Here) -> tuple[Circuit, View] | None:
    """The circuit of a file: one kept in the store (`?file=NAME`), or one just uploaded."""
    name = links.asked("file", 100)
    if name:
        path = safe_join(at.folder / FOLDER, f"{checked_name(name)}.json")
        if not path.is_file():
            raise CircuitsError(f"no circuit {name!r} is kept here; there are {', '.join(kept(at)) or 'none'}")
        return _fits(at, *circuit_views.read_document(checked_json(path.read_bytes())))
    uploaded = st.session_state.get("circuit_upload")
    if uploaded is not None and links.asked("upload") == "1":
        return _fits(at, *circuit_views.read_document(uploaded))
    return None


def _fits(at: Here, circuit: Circuit, view: View) -> tuple[Circuit, View]:
    for node in circuit.nodes:
        at.model.unit(node.unit)  # a circuit of another model, or of none, is an error that says so
    return circuit, view


def kept(at: Here) -> list[str]:
    """Names of the circuits that the store keeps."""
    return sorted(path.stem for path in (at.folder / FOLDER).glob("*.json"))


def keep(at: Here, circuit: Circuit, view: View) -> None:
    """Save it, open one that is kept, or bring one in."""
    left, right = st.columns(2, gap="large")
    with left:
        text = state.described(circuit_views.document(circuit, view)).encode("utf-8")
        st.download_button("Download circuit.json", text, "circuit.json", "application/json", key="circuit-download")
        if at.settings.allow_write:
            with st.form("keep", border=False):
                name = st.text_input("Keep it in the store as", max_chars=80, placeholder="car-parts")
                if st.form_submit_button("Save"):
                    path = safe_join(at.folder / FOLDER, f"{checked_name(name)}.json")
                    write_text_atomically(path, text.decode("utf-8"))
                    links.go("circuit", unit=at.unit, file=name)
        else:
            st.caption("To keep circuits in the store: circuits explore --allow-write")
    with right:
        names = kept(at)
        if names:
            wanted = st.selectbox("Kept in the store", names, key="kept")
            if st.button("Open", key="open-kept"):
                links.go("circuit", unit=at.unit, file=wanted)
        given = st.file_uploader("Open a circuit.json", ["json"], key="given", max_upload_size=MAX_UPLOAD // 2**20)
        if given is not None and st.button("Show it", key="show-given"):
            data = checked_json(given.getvalue())
            found, _ = circuit_views.read_document(data)
            st.session_state["circuit_upload"] = data
            links.go("circuit", unit=found.target, upload="1")
