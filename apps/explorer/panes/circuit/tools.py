"""What is beside a circuit's graph: what its clicks do, the score, and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.panes import crops
from apps.explorer.resources import prepared
from apps.explorer.resources.prepared import RANKED_ON
from apps.explorer.server.security import MAX_UPLOAD, UploadError, checked_json, checked_name, plain, safe_join
from apps.explorer.session import circuit_views, figures, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.figures import ScreenFigure, screen_figure
from apps.explorer.session.state import Location
from circuits import plot
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.plot.drawing.wording import (
    ablated_sentence,
    comparison_sentence,
    mask_offer,
    minus,
)
from circuits.tracing.circuit import Circuit
from circuits.tracing.curves.size_curve import SizeCurve, size_curve
from circuits.tracing.rankings.parent_sources import RANKED
from circuits.tracing.rankings.ranking import rank
from circuits.tracing.rankings.unit_scores import METHODS
from circuits.tracing.score import score
from zoo.common.files import write_text_atomically
from zoo.images.sources import Images

FOLDER = "circuits"
RANDOM, STRONGEST, MEASURED_ON = 50, 64, 200
RANDOM_CURVES = 10
BASELINES = {
    "usual": "The usual",
    "mean": "Mean",
    "zero": "Zero",
    "resample": "Other images",
}
"""Contributions are counted from it, scores and curves ablate to it; the usual one is zero for contributions of weights
and attribution at peaks, else the mean."""
NODE_IMAGES, MOST_SELECTED, MOST_PRUNED, MOST_SHOWN = 4, 8, 60, 60


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
            order = prepared.evidence(len(images)) if by in RANKED else []
            others = [image for image in order if image not in top][: max(0, RANKED_ON - len(top))]
            return images.subset(sorted(top.union(others)))
    return spread_images(at, most)


def images_in_python(at: Location, most: int, by: str) -> str:
    """Python of `traced`, those of `images_for_trace`, from `scan` and its `images`."""
    scan = at.scan
    if scan is None or at.unit.space not in scan.layers or not scan.unit(at.unit.channel).top:
        return f"traced = images.spread({most})\n"
    code = f"top = {{example.image for example in scan.unit({at.unit.channel.short!r}).top[:{STRONGEST}]}}\n"
    if by not in RANKED:
        return code + "traced = images.subset(sorted(top))\n"
    return code + (
        "order = np.random.default_rng(0).permutation(len(images)).tolist()\n"
        f"others = [image for image in order if image not in top][: max(0, {RANKED_ON} - len(top))]\n"
        "traced = images.subset(sorted(top.union(others)))\n"
    )


def file_in_python(at: Location) -> str:
    """Python of the circuit of `circuit_from_file`."""
    name = links.param("file", 100)
    path = "circuit.json" if name is None else str(at.folder / FOLDER / f"{checked_name(name)}.json")
    return f"circuit = circuits.Circuit.load({path!r})\n"


def measures_in_python(by: str) -> str:
    """Python of what `show_score` and `show_sizes` measure of a circuit `by` some way, with all of its lines drawn."""
    baseline = chosen_baseline() or "mean"
    return (
        f"some = images.spread({MEASURED_ON})\n"
        f"options = dict(random={RANDOM}, baseline={baseline!r}, mask=len(some) > 3)\n"
        "score = circuits.score(model, circuit, images=some, **options)\n"
        "print(score.faithfulness, score.faithfulness_percentile)\n"
        f"options = dict(layers=[circuit.layers[1]], method={_ranked_by(by)!r}, baseline={baseline!r})\n"
        "ranking = circuits.rank(model, circuit.target, images=some, **options)\n"
        f"curve = circuits.size_curve(model, ranking, random={RANDOM_CURVES})\n"
        "print(curve.cmd.value, curve.cpr.value)\n"
    )


def _ranked_by(by: str) -> str:
    """The method of `rank` for a way of `trace`."""
    return by if by in METHODS else "gradient"


def node_images(at: Location, circuit: Circuit, view: View) -> dict[str, tuple[str, ...]]:
    """Crops of the top activating images of every unit of a circuit; of a group, the first of each of its units."""
    images = {node.unit: top_crops(at, node.unit, NODE_IMAGES) for node in circuit.nodes}
    for group in view.groups:
        for unit in [u for u in group.units if u in images and u != circuit.target]:
            images[unit] = tuple(src for u in group.units[:NODE_IMAGES] for src in top_crops(at, u, 1))
    return images


def top_crops(at: Location, address: str, most: int) -> tuple[str, ...]:
    """Crops of a unit's top activating images, as data URIs; none of what was not scanned."""
    unit = Unit.parse(address).channel
    if at.scan is None or unit.space not in at.scan.layers or unit.basis is not None:
        return ()
    examples = at.scan.unit(unit).top[:most]
    return crops.cut(at, examples, "field") if examples else ()


def follow(at: Location, view: View, event: Mapping[str, Any]) -> None:
    """Do what was clicked in the graph: each is a change of the address, or another page."""
    if "open" in event:
        links.open_unit(event["open"])
    elif "trace" in event:
        links.go("circuit", keep=("depth", "width", "by", "baseline"), unit=event["trace"])
    elif "select" in event:
        links.change(selected=",".join(str(event["select"]).split(",")[-MOST_SELECTED:]), edge=None)
    elif "edge" in event:
        links.change(edge=None if event["edge"] == links.param("edge") else event["edge"], selected=None)
    elif "prune" in event:
        links.change(prune=int(event["prune"]))
    elif "factor" in event:
        links.change(factor=None if event["factor"] == "1" else event["factor"])
    elif "pin" in event:
        change_view(view.pinned(event["pin"]))
    elif "ungroup" in event:
        change_view(view.ungrouped(event["ungroup"]))
    elif "group" in event:
        name, *units = str(event["group"]).split("\n")
        change_view(view.grouped(name, units), selected=None)
    else:
        return
    st.rerun()


def change_view(view: View, **more: None) -> None:
    """Write the pins and groups of a view into the address."""
    # a circuit's file may have pins and groups of its own
    without = circuit_views.NONE if links.param("file") or links.param("upload") else None
    links.change(**{name: value or without for name, value in view.to_address().items()}, **more)


def view_of(at: Location, circuit: Circuit, stored: View | None) -> View:
    """The view of the address; what it does not name is as in `stored`, the view of the circuit's file.

    Where neither prunes, a large circuit is shown without its weakest edges: as few as leave `MOST_SHOWN` units.
    """
    text = links.param("prune", 10)
    if text is not None and not (text.isascii() and text.isdecimal() and int(text) <= MOST_PRUNED):
        raise UploadError(f"prune is a number from 0 to {MOST_PRUNED}, in percent; the address has {text}")
    if text is not None:
        prune = int(text) / 100
    else:
        prune = circuit_views.least_prune(circuit, MOST_SHOWN, MOST_PRUNED) if stored is None else stored.prune
    stored = stored or View()
    named = View.of_address(prune, links.param("pin", 2_000), links.param("group", 2_000), at.model.name)
    pins = stored.pins if links.param("pin", 2_000) is None else named.pins
    return View(prune, pins, stored.groups if links.param("group", 2_000) is None else named.groups)


def show_score(at: Location, circuit: Circuit) -> None:
    """Faithfulness and completeness of the circuit, beside random circuits of its size and a learned mask."""
    baseline = chosen_baseline() or "mean"
    model, images = at.model, spread_images(at, MEASURED_ON)
    unscored = replace(circuit, score=None)
    key = ("score", model.digest, images.name, tuple(sorted(n.unit for n in circuit.nodes)), circuit.target, baseline)

    def work(report: Any) -> tuple[Any, ScreenFigure]:
        options: dict[str, Any] = {"random": RANDOM, "baseline": baseline, "mask": len(images) > 3}
        result = score(model, unscored, images=images, progress=report, **options)
        labels = {n.unit: n.label for n in circuit.nodes if n.label}
        return result, screen_figure(lambda: plot.score_figure(result, labels=labels))

    scored = page_frame.background_result(
        key,
        f"scoring it and {RANDOM} random circuits of its size",
        work,
        model=model,
        folder=at.results,
        images=images,
    )
    if scored is None:
        return
    result, figure = scored
    figures.show(figure, "faithfulness and completeness of the circuit beside random circuits", 760)
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
    model, images, layer = at.model, spread_images(at, MEASURED_ON), circuit.layers[1]
    method: Any = _ranked_by(circuit.by)
    key = ("sizes", model.digest, images.name, circuit.target, layer, method, baseline)

    def work(report: Any) -> tuple[SizeCurve, list[tuple[str, float]], ScreenFigure]:
        ranking = rank(model, circuit.target, images=images, layers=[layer], method=method, baseline=baseline)
        curve = size_curve(model, ranking, random=RANDOM_CURVES, progress=report)
        return curve, ranking.top(8), screen_figure(lambda: plot.size_curve_figure(curve))

    measured = page_frame.background_result(
        key, f"trying circuits of every size in {layer}", work, model=model, folder=at.results, images=images
    )
    if measured is None:
        return
    curve, first, figure = measured
    figures.show(figure, "share of the unit that circuits of growing size keep, beside random circuits", 760)
    names = ", ".join(unit.removeprefix(f"{model.name}/") for unit, _ in first)
    st.caption(
        f"All units of {layer} are ranked by {curve.method} over all positions of half of the images, baseline "
        f"{curve.baseline}, and circuits of the first n are tried on the other half ({curve.n_images} images). "
        f"First: {names}. CPR {minus(f'{curve.cpr.value:.2f}')}"
        + ("" if curve.percentile is None else f", above {curve.percentile:.0f} % of {RANDOM_CURVES} random curves")
        + f" among the strongest: the area under the curve. CMD {curve.cmd.value:.2f}: "
        "the area between the curve and 1, where circuits keep all; less is better."
    )


def circuit_from_file(at: Location) -> tuple[Circuit, View | None] | None:
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


def _fits(at: Location, circuit: Circuit, view: View | None) -> tuple[Circuit, View | None]:
    for node in circuit.nodes:
        at.model.unit(node.unit)  # raises an error for a circuit of another model
    return circuit, view


def saved_circuits(at: Location) -> list[str]:
    """Names of the circuits that are saved in the store."""
    return sorted(path.stem for path in (at.folder / FOLDER).glob("*.json"))


def saved_links(at: Location) -> dict[str, str]:
    """Links to the circuits that are saved in the store, by name."""
    return {name: links.path_of("circuit", {"unit": at.unit, "file": name}) for name in saved_circuits(at)}


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
            st.caption("Saved in the store")
            for saved, link in saved_links(at).items():
                st.markdown(f"[{plain(saved)}]({link})")
        file = st.file_uploader(
            "Open a circuit.json", ["json"], key="circuit-file", max_upload_size=MAX_UPLOAD // 2**20
        )
        if file is not None and st.button("Open file", key="open-file"):
            data = checked_json(file.getvalue())
            uploaded, _ = circuit_views.read_document(data)
            st.session_state["circuit_upload"] = data
            links.go("circuit", unit=uploaded.target, upload="1")
