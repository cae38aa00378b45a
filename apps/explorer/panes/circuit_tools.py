"""What is beside a circuit's graph: the selected edge or units, the score, and files."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.gallery import gallery, tile
from apps.explorer.components.graph import SEPARATOR
from apps.explorer.components.weights import kernel_uri
from apps.explorer.panes import crops
from apps.explorer.server.security import MAX_UPLOAD, checked_json, checked_name, plain, safe_join
from apps.explorer.session import circuit_views, exports, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.state import Location
from circuits import plot
from circuits.common.examples import Example
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.plot.drawing.wording import (
    ablated_sentence,
    comparison_sentence,
    edge_effect,
    mask_offer,
    minus,
    name_of,
)
from circuits.tracing.circuit import Circuit
from circuits.tracing.curves.size_curve import SizeCurve, size_curve
from circuits.tracing.rankings.ranking import rank
from circuits.tracing.rankings.unit_scores import METHODS
from circuits.tracing.score import score
from circuits.tracing.trace import RANKED
from zoo.common.files import write_text_atomically
from zoo.images.sources import Images

FOLDER = "circuits"
RANDOM, STRONGEST, RANKED_ON = 50, 64, 200
RANDOM_CURVES = 10
BASELINES = {
    "usual": "The usual",
    "mean": "Mean",
    "zero": "Zero",
    "resample": "Other images",
}
"""Contributions are counted from it, scores and curves ablate to it; the usual one is zero for contributions of weights
and attribution at peaks, else the mean."""
_KERNEL_STYLE = (
    "<style>.st-key-kernel img { image-rendering: pixelated; border: 1px solid rgba(128, 128, 128, 0.4); }</style>"
)


def chosen_baseline() -> str | None:
    """The chosen baseline; None for the usual one."""
    value = st.session_state.get("baseline")
    return value if value in BASELINES and value != "usual" else None


def trace_options(by: str) -> dict[str, Any]:
    """Options of `trace` for the chosen method and baseline."""
    baseline = chosen_baseline()
    counted: dict[str, Any] = {} if baseline is None else {"baseline": baseline}
    return {"by": "weights", "through_bottlenecks": True, **counted} if by == "bottlenecks" else {"by": by, **counted}


def spread_images(at: Location, most: int) -> Images:
    """At most so many of the scanned images, evenly spaced."""
    return state.images_of(at).spread(most)


def images_for_trace(at: Location, most: int, by: str) -> Images:
    """Images to trace the page's unit on: its top activating images, or evenly spaced ones where it was not scanned.

    A trace averages over the positions where its target is most active. Weights and the other ways that look only there
    need no further images; where parents are ranked over all positions others are added, up to 200 in all.
    """
    if at.scan is not None and at.unit.space in at.scan.layers:
        top = {example.image for example in at.scan.unit(at.unit.channel).top[:STRONGEST]}
        if top:
            images = state.images_of(at)
            order = np.random.default_rng(0).permutation(len(images)).tolist() if by in RANKED else []
            others = [image for image in order if image not in top][: max(0, RANKED_ON - len(top))]
            return images.subset(sorted(top.union(others)))
    return spread_images(at, most)


def node_images(at: Location, circuit: Circuit) -> dict[str, tuple[str, ...]]:
    """Crops of the top activating images of every unit of a circuit."""
    images = {}
    for node in circuit.nodes:
        unit = Unit.parse(node.unit).channel
        several = 4 if node.unit == circuit.target else 3
        examples: tuple[Example, ...] = ()
        if at.scan is not None and unit.space in at.scan.layers and unit.basis is None:
            examples = at.scan.unit(unit).top[:several]
        images[node.unit] = crops.cut(at, examples, "field") if examples else ()
    return images


def show_selection(at: Location, circuit: Circuit, view: View, selected: tuple[str, ...], edge: str) -> None:
    """The selected edge, or the selected units."""
    source, _, target = edge.partition(SEPARATOR)
    units = {node.unit for node in circuit.nodes}
    present = [unit for unit in selected if unit in units]
    if edge and {source, target} <= units:
        _edge(at, circuit, source, target)
    elif present:
        _nodes(at, circuit, view, present)
    else:
        st.caption("Click a kernel to see its weights. Click images to select units, and open, pin or group them.")
    if view.groups:
        st.markdown("##### Groups")
    for group in view.groups:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(group.name)}** {plain(', '.join(u.rpartition('/')[2] for u in group.units))}")
            if st.button("Ungroup", key=f"ungroup-{group.name}", type="tertiary"):
                links.change(**view.ungrouped(group.name).to_address())
                st.rerun()


def _edge(at: Location, circuit: Circuit, source: str, target: str) -> None:
    edge = next((e for e in circuit.edges if (e.source, e.target) == (source, target)), None)
    if edge is None:
        st.caption("This edge is not in the graph.")
        return
    st.markdown(f"##### {plain(name_of(circuit.node(source)))} → {plain(name_of(circuit.node(target)))}")
    values = np.atleast_2d(edge.kernel)
    scale = plot.shared_scale([values])
    data = base64.b64decode(kernel_uri(values, scale).partition(",")[2])
    st.html(_KERNEL_STYLE)
    with st.container(key="kernel"):
        st.image(data, width=200, alt=f"kernel: {edge_effect(edge)}")
    st.caption(plain(edge_effect(edge)))
    st.markdown(
        f"contributes **{minus(f'{edge.strength:+.3g}')}** on average; weights from {minus(f'{values.min():+.3g}')} to "
        f"{minus(f'{values.max():+.3g}')}, sum {minus(f'{values.sum():+.3g}')}"
    )
    ends = [source, target]
    tiles = [tile(u, state.thumb_of(at, Unit.parse(u)), alt=u, name=name_of(circuit.node(u))) for u in ends]
    gallery(tiles, "edge-ends", size=110, label="the units of this edge")


def _nodes(at: Location, circuit: Circuit, view: View, selected: list[str]) -> None:
    names = ", ".join(name_of(circuit.node(unit)) for unit in selected)
    st.markdown(f"##### {plain(names, 200)}")
    with st.container(horizontal=True, gap="small"):
        unit = selected[-1]
        if st.button("Open unit", key="node-open", type="primary"):
            links.go("unit", keep=links.TOUR, unit=unit)
        if st.button("Trace it", key="node-circuit"):
            links.go("circuit", keep=("depth", "width", "by", "baseline"), unit=unit)
        if st.button("Unpin" if unit in view.pins else "Pin", key="node-pin", help="Pinned units are never pruned"):
            links.change(**view.pinned(unit).to_address())
            st.rerun()
        if st.button("Clear", key="node-clear", type="tertiary"):
            links.change(selected=None)
            st.rerun()
    if len(selected) > 1:
        with st.form("group", border=False):
            name = st.text_input("Group them as", max_chars=40, placeholder="parts")
            if st.form_submit_button("Group"):
                links.change(**view.grouped(name, selected).to_address(), selected=None)
                st.rerun()


def show_score(at: Location, circuit: Circuit) -> None:
    """Faithfulness and completeness of the circuit, beside random circuits of its size and a learned mask."""
    baseline = chosen_baseline() or "mean"
    model, images = at.model, spread_images(at, 200)
    unscored = replace(circuit, score=None)
    key = ("score", model.digest, images.name, tuple(sorted(n.unit for n in circuit.nodes)), circuit.target, baseline)

    def work(report: Any) -> tuple[Any, bytes]:
        options: dict[str, Any] = {"random": RANDOM, "baseline": baseline, "mask": len(images) > 3}
        result = score(model, unscored, images=images, progress=report, **options)
        labels = {n.unit: n.label for n in circuit.nodes if n.label}
        return result, exports.figure_bytes(lambda: plot.score_figure(result, labels=labels), "png")

    scored = page_frame.background_result(
        key, f"scoring it and {RANDOM} random circuits of its size", work, model=model
    )
    if scored is None:
        return
    result, figure = scored
    st.image(figure, width=760, alt="faithfulness and completeness of the circuit beside random circuits")
    offer = mask_offer(circuit.with_score(result))
    st.caption(
        f"Faithfulness {minus(f'{result.faithfulness:.2f}')}: above {result.faithfulness_percentile:.0f} % of "
        f"{result.n_random} {result.control}, of the same size, on {result.n_images} images. "
        f"{ablated_sentence(result)} {comparison_sentence(result)}"
        + (f" {offer}: choose parents by a learned mask, above." if offer else "")
    )


def show_sizes(at: Location, circuit: Circuit) -> None:
    """How much of the circuit's target the first n units of its first source layer keep, for every n.

    They are ranked as the circuit's parents are, by gradients where these look at peaks only.
    """
    baseline = chosen_baseline() or "mean"
    model, images, layer = at.model, spread_images(at, 200), circuit.layers[1]
    method: Any = circuit.by if circuit.by in METHODS else "gradient"
    key = ("sizes", model.digest, images.name, circuit.target, layer, method, baseline)

    def work(report: Any) -> tuple[SizeCurve, list[tuple[str, float]], bytes]:
        ranking = rank(model, circuit.target, images=images, layers=[layer], method=method, baseline=baseline)
        curve = size_curve(model, ranking, random=RANDOM_CURVES, progress=report)
        return curve, ranking.top(8), exports.figure_bytes(lambda: plot.size_curve_figure(curve), "png")

    measured = page_frame.background_result(key, f"trying circuits of every size in {layer}", work, model=model)
    if measured is None:
        return
    curve, first, figure = measured
    st.image(figure, width=760, alt="share of the unit that circuits of growing size keep, beside random circuits")
    names = ", ".join(unit.removeprefix(f"{model.name}/") for unit, _ in first)
    st.caption(
        f"All units of {layer} are ranked by {curve.method} over all positions of half of the images, baseline "
        f"{curve.baseline}, and circuits of the first n are tried on the other half ({curve.n_images} images). "
        f"First: {names}."
    )


def circuit_from_file(at: Location) -> tuple[Circuit, View] | None:
    """The circuit of a file: one saved in the store (`?file=NAME`), or one that was uploaded; None without either."""
    name = links.param("file", 100)
    if name:
        path = safe_join(at.folder / FOLDER, f"{checked_name(name)}.json")
        if not path.is_file():
            raise CircuitsError(
                f"no circuit {name!r} is saved here; there are {', '.join(saved_circuits(at)) or 'none'}"
            )
        return _fits(at, *circuit_views.read_document(checked_json(path.read_bytes())))
    uploaded = st.session_state.get("circuit_upload")
    if uploaded is not None and links.param("upload") == "1":
        return _fits(at, *circuit_views.read_document(uploaded))
    return None


def _fits(at: Location, circuit: Circuit, view: View) -> tuple[Circuit, View]:
    for node in circuit.nodes:
        at.model.unit(node.unit)  # raises an error for a circuit of another model
    return circuit, view


def saved_circuits(at: Location) -> list[str]:
    """Names of the circuits that are saved in the store."""
    return sorted(path.stem for path in (at.folder / FOLDER).glob("*.json"))


def show_save(at: Location, circuit: Circuit, view: View) -> None:
    """Download or save the circuit, or open another one."""
    left, right = st.columns(2, gap="large")
    with left:
        text = state.to_json(circuit_views.document(circuit, view)).encode("utf-8")
        st.download_button("Download circuit.json", text, "circuit.json", "application/json", key="circuit-download")
        if at.settings.allow_write:
            with st.form("save", border=False):
                name = st.text_input("Save in the store as", max_chars=80, placeholder="car-parts")
                if st.form_submit_button("Save"):
                    path = safe_join(at.folder / FOLDER, f"{checked_name(name)}.json")
                    write_text_atomically(path, text.decode("utf-8"))
                    links.go("circuit", unit=at.unit, file=name)
        else:
            st.caption("To save circuits in the store: circuits explore --allow-write")
    with right:
        names = saved_circuits(at)
        if names:
            chosen = st.selectbox("Saved in the store", names, key="saved")
            if st.button("Open", key="open-saved"):
                links.go("circuit", unit=at.unit, file=chosen)
        file = st.file_uploader(
            "Open a circuit.json", ["json"], key="circuit-file", max_upload_size=MAX_UPLOAD // 2**20
        )
        if file is not None and st.button("Open file", key="open-file"):
            data = checked_json(file.getvalue())
            uploaded, _ = circuit_views.read_document(data)
            st.session_state["circuit_upload"] = data
            links.go("circuit", unit=uploaded.target, upload="1")
