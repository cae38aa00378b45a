"""Why a prediction is what it is: the question, its attribution graph, and what is measured beside the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
import torch

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick, text
from apps.explorer.panes import charts, image_analysis
from apps.explorer.panes.circuit import tools
from apps.explorer.panes.crops import SIDE, heatmap
from apps.explorer.panes.image_analysis import SelectedImage
from apps.explorer.resources.thumbnails import jpeg, uri
from apps.explorer.server.security import UploadError, plain
from apps.explorer.session import figures, links, state
from apps.explorer.session.circuit_views import View
from apps.explorer.session.figures import ScreenFigure, screen_figure
from apps.explorer.session.state import Location
from circuits import plot
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import capture
from circuits.network.model import Model
from circuits.plot.circuit.attribution_graph import check_reading
from circuits.plot.circuit.graph_effects import effect_reading, groups_reading
from circuits.plot.drawing import crops
from circuits.plot.drawing.wording import minus, number, short
from circuits.tracing.circuit import Circuit
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.tracing.graphs.blocks import graph_source, without_overlaps
from circuits.tracing.graphs.check import GraphCheck, check_graph
from circuits.tracing.graphs.effect import node_effect
from circuits.tracing.graphs.graph import attached_before, default_layers, graph
from circuits.tracing.graphs.groups import graph_groups
from zoo.images.sources import Images

NOTHING = "none"
FACTORS = {"1": "As it is", "0": "Set to zero", "2": "Set to twice"}
LARGE = 0.5
"""Share of the image from which on a receptive field says less than where the unit is active."""
COMPARED = 32
"""Images of the scan on which activations are compared for groups."""


@dataclass(frozen=True)
class Question:
    """What is explained.

    Attributes:
        image: of which; target: a class score, a unit, or two scores of which the second is subtracted.
        layers: of the units; latents where they have a tilde.
    """

    image: SelectedImage
    target: str | tuple[str, str]
    layers: tuple[str, ...]

    def key(self, at: Location) -> tuple[Any, ...]:
        """Everything that its graph depends on."""
        return (at.model.digest, self.image.key, self.target, self.layers)

    def where(self, at: Location) -> dict[str, Any]:
        """Where its results are kept: nowhere for an image of the visitor's own, and for latents."""
        stored = self.image.index is not None and not any("~" in layer for layer in self.layers)
        return {"folder": at.results, "images": self.image.images} if stored else {}


@dataclass(frozen=True)
class Explained:
    """The graph of a question, and what each of its nodes sees of the image, as data URIs."""

    graph: AttributionGraph
    crops: Mapping[str, tuple[str, ...]]


def question(at: Location, image: SelectedImage) -> Question | None:
    """The question of the address, with the widgets that change it; None while class scores are computed.

    Raises:
        CircuitsError: an unknown layer, or the same class twice.
    """
    model, unit = at.model, at.unit
    names: dict[str, str] = {}
    if model.class_scores is not None:
        scores = page_frame.background_result(
            ("classes", model.digest, image.key, "all"), "class scores",
            lambda report: image_analysis.classes(model, image.images, most=None), model=model,
            **image_analysis.where(at, image),
        )  # fmt: skip
        if scores is None:
            return None
        twice = {name for name, count in Counter(name for _, name, _ in scores).items() if count > 1}
        for k, name, share in scores:  # a list of choices tells them apart by their texts
            own = f"{name} ({k})" if name in twice else name
            names[str(k)] = f"{own}  {100 * share:.0f} %" if share >= 0.005 else own
    of_unit = {"unit": f"{unit.short}"} if unit.index is not None and model.before(unit.layer) is not None else {}
    if not names and not of_unit:
        raise CircuitsError(f"{model.name} has no class scores: choose a unit on the left to explain it")
    with st.container(horizontal=True, gap="small"):
        chosen = pick("Why", {**names, **of_unit}, "class", width=240)
        instead = NOTHING
        if chosen != "unit" and len(names) > 1:
            others = {k: name for k, name in names.items() if k != chosen}
            instead = pick("Instead of", {NOTHING: "no other class", **others}, "instead", width=240)
        kinds = {"channels": "Channels"} | ({"latents": "Latents"} if model.bases else {})
        kind = pick("Units", kinds, "units", width=140) if len(kinds) > 1 else "channels"
        end = unit.layer if chosen == "unit" else model.layer("logits").name
        usual = (
            default_layers(model, end)[::-1]
            if kind == "channels"
            else without_overlaps(model, attached_before(model, end))
        )
        typed = text("Layers", "layers", 300, ", ".join(usual))
    layers = tuple(dict.fromkeys(part.strip() for part in typed.split(",") if part.strip())) or tuple(usual)
    if not layers:
        raise CircuitsError(f"no SAE or transcoder is of a layer before {end}: take channels")
    if chosen == "unit":
        return Question(image, str(unit), layers)
    own = f"{end}:{chosen}"
    return Question(image, own if instead == NOTHING else (own, f"{end}:{instead}"), layers)


def explained(at: Location, query: Question) -> Explained | None:
    """The graph, once it is computed."""

    def work(report: Any) -> Explained:
        result = graph(at.model, query.image.images, query.target, layers=list(query.layers), progress=report)
        return Explained(result, _seen(at.model, query.image.images, result))

    return page_frame.background_result(
        ("why", *query.key(at)), "explaining the prediction", work, model=at.model, **query.where(at)
    )


def _seen(model: Model, images: Images, result: AttributionGraph) -> dict[str, tuple[str, ...]]:
    """What each unit sees of the image: where it gives most, or where it is active, if that is most of the image."""
    pixels = images.tensor(model.input)[0]
    image = crops.pixels(pixels, len(pixels))
    units = [node for node in result.nodes if node.kind == "unit"]
    cut = {}
    for layer in result.layers:
        source = graph_source(model, layer)
        with torch.no_grad():
            acts = capture(model, images, [source.layer])[source.layer].float()
            maps = source.parts_on(images.tensor(model.input), acts)[0].cpu().numpy()
        for node in (node for node in units if node.layer == layer):
            top, left, bottom, right = node.examples[0].box if node.examples else (0, 0, *image.shape[:2])
            if (bottom - top) * (right - left) > LARGE * image.shape[0] * image.shape[1]:
                values = maps[Unit.parse(node.unit).index or 0]
                cut[node.unit] = heatmap(image, values / max(float(np.abs(values).max()), 1e-30))
            else:
                cut[node.unit] = crops.cut(image, node.examples[0].box)
    cut[f"{model.name}/input"] = image
    return {unit: (uri(jpeg(crop, SIDE)),) for unit, crop in cut.items()}


def node_images(at: Location, answer: Explained, circuit: Circuit, view: View) -> dict[str, tuple[str, ...]]:
    """Of each unit where it gives most on the image, its visualization, and its top activating images."""
    drawn, rendered = {}, state.visualizations_of(at)
    for node in circuit.nodes:
        stored = next((v for v in rendered.get(node.unit, ()) if v.kind == "positive"), None)
        visualization = None if stored is None else state.visualization_uri(stored)
        more = tools.top_crops(at, node.unit, 2) if node.depth and node.unit in answer.crops else ()
        drawn[node.unit] = (*answer.crops.get(node.unit, ()), *([visualization] if visualization else []), *more)
    for group in view.groups:
        members = [unit for unit in group.units if unit in drawn]
        for unit in members:
            drawn[unit] = tuple(src for member in members for src in answer.crops.get(member, ()))[:6]
    return drawn


def notes(answer: Explained, view: View) -> dict[str, str]:
    """What each unit gives the target; of a group, what it gives together."""
    of = {node.unit: node.value for node in answer.graph.nodes if node.kind == "unit"}
    for group in view.groups:
        members = [unit for unit in group.units if unit in of]
        total = sum(of[unit] for unit in members)
        of |= dict.fromkeys(members, total)
    return {unit: f"gives {number(value)}" for unit, value in of.items()}


# -- beside the graph -------------------------------------------------------------------------------------------------


def show_effect(at: Location, query: Question, answer: Explained, view: View) -> str:
    """Set the selected units to zero or to twice: what the prediction does, beside what the graph predicts.

    Returns:
        The same in a few words.
    """
    units = selected_units(answer, view)
    if not units:
        st.caption(
            "Select a unit or a group in the graph, or with Shift several units of one layer, to set it to zero."
        )
        return ""
    st.caption(plain(f"Selected: {', '.join(map(short, units))}"))
    factor = choose("Set the selected units", FACTORS, "factor")
    if factor == "1":
        return ""
    key = ("effect", *query.key(at), units, factor)
    effect = page_frame.background_result(
        key, "running the network with these units changed, and with others as active",
        lambda report: node_effect(
            at.model, answer.graph, units, images=query.image.images, factor=float(factor), seed=0
        ),
        model=at.model, **query.where(at),
    )  # fmt: skip
    if effect is None:
        return "measured in a moment"
    columns = st.columns(4)
    columns[0].metric("Target as it is", minus(f"{effect.before:.3g}"), border=True)
    columns[1].metric("Measured change", number(effect.measured), border=True)
    columns[2].metric("The graph predicts", number(effect.predicted), border=True)
    middle = number(float(np.median(effect.random))) if effect.random else "none"
    columns[3].metric("Others as active, median", middle, border=True)
    st.caption(plain(effect_reading(effect), 2_000))
    if effect.classes:
        st.caption("Probabilities of classes before (gray) and after (orange: rises, blue: falls).")
        shares = [np.array([getattr(c, when) for c in effect.classes]) for when in ("before", "after")]
        names = [c.name.split(",")[0] for c in effect.classes]
        charts.show(charts.class_bars(names, *shares), "effect-classes", "probabilities of classes before and after")
    return f"{number(effect.measured)} measured, {number(effect.predicted)} by the graph; others as active {middle}"


def selected_units(answer: Explained, view: View) -> tuple[str, ...]:
    """The selected units of the graph; of a group all of its units.

    Raises:
        UploadError: they are of several layers.
    """
    there = {node.unit: node.layer for node in answer.graph.nodes if node.kind == "unit"}
    chosen: list[str] = []
    for unit in (links.param("selected") or "").split(","):
        group = next((g for g in view.groups if unit in g.units), None)
        chosen += [u for u in ((unit,) if group is None else group.units) if u in there]
    layers = sorted({there[u] for u in chosen})
    if len(layers) > 1:
        raise UploadError(f"units of one layer are set together; these are of {', '.join(layers)}")
    return tuple(dict.fromkeys(chosen))


def show_check(at: Location, query: Question, answer: Explained) -> None:
    """Units silenced one by one: measured changes beside those that the graph predicts."""

    def work(report: Any) -> tuple[GraphCheck, ScreenFigure]:
        check = check_graph(at.model, answer.graph, images=query.image.images)
        return check, screen_figure(lambda: plot.graph_check_figure(check))

    checked = page_frame.background_result(
        ("graph check", *query.key(at)), "silencing the strongest units, and others as active", work, model=at.model,
        **query.where(at),
    )  # fmt: skip
    if checked is not None:
        figures.show(checked[1], "predicted and measured changes of the target for each silenced unit", 560)
        st.caption(plain(check_reading(checked[0]), 2_000))


def show_groups(at: Location, query: Question, answer: Explained, view: View) -> None:
    """Groups of units that are proposed, each beside its controls; a click groups them in the graph."""
    compare = state.images_of(at).spread(COMPARED) if at.scan is not None else query.image.images
    groups = page_frame.background_result(
        ("graph groups", *query.key(at), compare.digest),
        "comparing units, and silencing groups of them",
        lambda report: graph_groups(at.model, answer.graph, images=query.image.images, compare=compare),
        model=at.model, **query.where(at),
    )  # fmt: skip
    if groups is None:
        return
    st.caption(plain(groups_reading(groups), 2_000))
    for i, group in enumerate(groups.groups):
        left, right = st.columns([5, 1], vertical_alignment="center")
        similar = "more than" if group.similar else "no more than"
        median = number(float(np.median(group.random))) if group.random else "none"
        left.markdown(plain(", ".join(map(short, group.units)), 600))
        left.caption(plain(minus(
            f"Correlation {group.activations:.2f}, {similar} 95 % of random groups ({group.random_activations:.2f}); "
            f"edges {group.edges:.2f}. Silenced together: {number(group.measured)}, predicted {number(-group.value)}; "
            f"others as active {median} (median)."
        ), 600))  # fmt: skip
        if right.button("Group", key=f"graph-group-{i}", help="Show them as one node of the graph"):
            tools.change_view(view.grouped(f"like {short(group.units[0])}".replace(",", "."), group.units))
            st.rerun()


# -- the same in Python -----------------------------------------------------------------------------------------------


def script(at: Location, query: Question | None, units: tuple[str, ...]) -> str:
    """Python that makes the graph, and what is measured beside it."""
    code = f"import circuits\n\n{state.loading_code_of(at)}\n"
    if query is None:
        return code
    names = sorted({layer.partition("~")[2] for layer in query.layers if "~" in layer})
    if names:
        code += "\nfrom sae.data.attach import attach_folder\n\n"
        code += "".join(f"attach_folder(model, {str(dict(at.settings.saes)[name])!r}, {name!r})\n" for name in names)
    index = query.image.index
    scan = f"circuits.read_scan({str(at.settings.store)!r}, model.name)"
    code += '\nimage = "IMAGE.png"\n' if index is None else f"\nimage = {scan}.images().subset([{index}])\n"
    code += f"graph = circuits.graph(model, image, {query.target!r}, layers={list(query.layers)!r})\n"
    code += "check = circuits.check_graph(model, graph, images=image)\n"
    if at.scan is not None:
        code += f"compare = {scan}.images().spread({COMPARED})\n"
        code += "groups = circuits.graph_groups(model, graph, images=image, compare=compare)\n"
    factor = links.param("factor", 10)
    if units and factor in FACTORS and factor != "1":
        code += f"effect = circuits.node_effect(model, graph, {list(units)!r}, images=image, factor={float(factor)})\n"
        code += "print(effect.predicted, effect.measured)\n"
    return code + "graph.report('why.html', check=check)\n"
