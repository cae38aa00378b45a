"""How the results of `circuits` are drawn: a figure and a page for each type, for `result.plot()` and `.report()`.

Loaded by `zoo.common.drawings` when something is drawn for the first time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from circuits.activations.atlas import Atlas
from circuits.activations.neuron_groups import Groups
from circuits.activations.semantic_dictionary import ActivationGrid, SemanticDictionary
from circuits.activations.spatial_attribution import SpatialAttribution
from circuits.attribution.attribute import Attribution
from circuits.attribution.class_scores import class_of
from circuits.attribution.expanded_weights import ExpandedWeights
from circuits.attribution.heatmaps import Heatmap
from circuits.dataset.audit.results import Audit
from circuits.dataset.concept_search import Finding, Findings
from circuits.dataset.labels.results import PartLabels
from circuits.errors import CircuitsError
from circuits.plot.activations import atlas as atlases, image as of_image
from circuits.plot.activations.heatmap import heatmap_figure, overlay
from circuits.plot.audit.page import audit_figure, audit_page
from circuits.plot.circuit.attribution_graph import attribution_graph_page, graph_check_figure
from circuits.plot.circuit.graph import circuit_graph
from circuits.plot.circuit.graph_effects import effect_figure, groups_figure
from circuits.plot.circuit.kernels import kernel_grid
from circuits.plot.circuit.report import trace_report
from circuits.plot.circuit.size_curve import size_curve_figure
from circuits.plot.circuit.tables import auc_table, score_figure
from circuits.plot.drawing import crops
from circuits.plot.drawing.html_page import tag
from circuits.plot.drawing.records import cell_html, records_figure, result_page
from circuits.plot.drawing.wording import titled
from circuits.plot.sae.channel_dissection import dissection_figure
from circuits.plot.units.comparison import branch_scatter, enrichment_bars, match_table, neighbors_table
from circuits.plot.units.dossier import dossier_page
from circuits.plot.units.part_labels import part_labels_figure
from circuits.plot.units.polysemanticity import ablation_table, polysemantic_ranking, polysemantic_unit
from circuits.plot.units.tuning import radial_tuning, sign_rule_scatter, tuning_curves
from circuits.plot.units.weight_factors import factor_figure
from circuits.plot.visualization.modes import decomposed_grid, spectrum_strip, strip
from circuits.plot.visualization.report import visualization_report, visualization_sheet
from circuits.tracing.circuit import Circuit
from circuits.tracing.circuit_score import Score
from circuits.tracing.curves.size_curve import SizeCurve
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.tracing.graphs.check import GraphCheck
from circuits.tracing.graphs.effect import NodeEffect
from circuits.tracing.graphs.groups import GraphGroups
from circuits.tuning.curves import Tuning
from circuits.tuning.detectors.sign_rule import SignRule
from circuits.tuning.joint_tuning import JointTuning
from circuits.units.branch_specialization import BranchStructure, Enrichments
from circuits.units.channel_dissection import Dissection
from circuits.units.dossier import Dossier
from circuits.units.polysemanticity import Polysemanticities, Polysemanticity
from circuits.units.pure_units import ClusterAblation
from circuits.units.similarity import Neighbors
from circuits.units.universality import Matches
from circuits.units.weight_factors import Factors
from circuits.visualization import Decomposed, Spectrum, Strip, Visualization, Visualizations
from zoo.common.drawings import Given, figure_of, html_of, needs, overlay_of, page_of
from zoo.common.results import Drawable
from zoo.images.sources import Images, open_images


def draws(kind: type, function: Callable[..., Figure]) -> None:
    """Register a figure that is a function of the result alone."""
    figure_of.register(kind, lambda result, given, **options: function(result, **options))


for _kind, _function in (
    (Score, score_figure),
    (GraphCheck, graph_check_figure),
    (NodeEffect, effect_figure),
    (GraphGroups, groups_figure),
    (Findings, auc_table),
    (ExpandedWeights, kernel_grid),
    (SignRule, sign_rule_scatter),
    (Enrichments, enrichment_bars),
    (BranchStructure, branch_scatter),
    (ClusterAblation, ablation_table),
    (Polysemanticities, polysemantic_ranking),
    (Atlas, atlases.atlas_figure),
    (Audit, audit_figure),
    (SemanticDictionary, of_image.dictionary_figure),
    (ActivationGrid, of_image.grid_figure),
    (Decomposed, decomposed_grid),
    (Strip, strip),
    (Neighbors, neighbors_table),
    (Matches, match_table),
    (Factors, factor_figure),
    (PartLabels, part_labels_figure),
):
    draws(_kind, _function)


overlay_of.register(torch.Tensor, overlay)


def _label(given: Given, unit: str) -> str | None:
    """The class whose score a unit is, where the model is at hand that names it."""
    model = given.get("model")
    return None if model is None else class_of(model, unit)


def _labels(given: Given, results: Iterable[Visualization]) -> dict[str, str]:
    """The same of the units of visualizations."""
    return {r.unit: label for r in results if (label := _label(given, r.unit)) is not None}


@figure_of.register
def _size_curve(curve: SizeCurve, given: Given, **options: Any) -> Figure:
    return size_curve_figure(curve, **{"title": titled(curve.target, _label(given, curve.target)), **options})


@figure_of.register
def _heatmap(result: Heatmap, given: Given, **options: Any) -> Figure:
    return heatmap_figure(result, **{"label": _label(given, result.target), **options})


@figure_of.register
def _visualizations(results: Visualizations, given: Given, **options: Any) -> Figure:
    return visualization_sheet(results, **{"labels": _labels(given, results), **options})


# -- figures that need what the result was made from ---------------------------------------------


def _sources(given: Given, what: str) -> tuple[Images, Any]:
    """The images, and the model's input."""
    return open_images(needs(given, "images", what)), needs(given, "model", what).input


def _image(given: Given, what: str) -> torch.Tensor:
    """The one image `(C, H, W)` that a result is of."""
    images, spec = _sources(given, what)
    if len(images) != 1:
        raise CircuitsError(f"{what} is of one image, and there are {len(images)}: analyze one alone, or give images=")
    return next(iter(images.batches(spec, batch_size=1)))[1][0]


def _crops(circuit: Circuit, given: Given) -> Mapping[str, Any]:
    """Crops of the examples; none where nobody says where the images are, and tiles stay gray."""
    if given.get("images") is None or given.get("model") is None:
        return {}
    return crops.crops(circuit, open_images(given["images"]), given["model"].input)


@figure_of.register
def _circuit(circuit: Circuit, given: Given, **options: Any) -> Figure:
    return circuit_graph(circuit, _crops(circuit, given), **options)


@figure_of.register
def _attribution_graph(graph: AttributionGraph, given: Given, width: int = 5) -> Figure:
    return _circuit(graph.circuit(width), given)


@figure_of.register
def _finding(finding: Finding, given: Given, **options: Any) -> Figure:
    return auc_table([finding], **options)


@figure_of.register
def _polysemanticity(result: Polysemanticity, given: Given, **options: Any) -> Figure:
    if given.get("images") is None or given.get("model") is None:
        return polysemantic_ranking([result], **options)
    return polysemantic_unit(result, *_sources(given, "the figure of clusters"), **options)


@figure_of.register
def _dissection(result: Dissection, given: Given, **options: Any) -> Figure:
    return dissection_figure(result, *_sources(given, "the figure of a dissection"), **options)


@figure_of.register
def _spectrum(result: Spectrum, given: Given, **options: Any) -> Figure:
    return spectrum_strip(result, *_sources(given, "the figure of a spectrum"), **options)


@figure_of.register
def _groups(result: Groups, given: Given, index: int = 0, **options: Any) -> Figure:
    images, spec = _sources(given, "the figure of groups")
    image = next(iter(images.batches(spec, batch_size=1, indices=[index])))[1][0]
    return of_image.groups_figure(result, image, index=index, **options)


@figure_of.register
def _spatial(result: SpatialAttribution, given: Given, at: Any = None, **options: Any) -> Figure:
    image = _image(given, "the figure of spatial attribution")
    if at is None:  # the position of the later layer that receives most
        peak = int(result.positions[0].sum(dim=(0, 1)).argmax())
        at = [divmod(peak, result.positions.shape[-1])]
    return of_image.spatial_figure(result, image, at, **options)


@figure_of.register
def _attribution(result: Attribution, given: Given, **options: Any) -> Figure:
    options = {"names": [titled(result.target, _label(given, result.target))], **options}
    return of_image.attribution_figure(result, _image(given, "the figure of an attribution"), **options)


@figure_of.register
def _tuning(tuning: Tuning, given: Given, **options: Any) -> Figure:
    angular = [axis for axis in tuning.axes if axis.period is not None]
    return (radial_tuning if angular else tuning_curves)(tuning, **options)


@figure_of.register
def _joint_tuning(result: JointTuning, given: Given, **options: Any) -> Figure:
    return radial_tuning([result.curve(unit) for unit in result.units], **options)


@figure_of.register
def _visualization(result: Visualization, given: Given, **options: Any) -> Figure:
    return _visualizations(Visualizations([result]), given, **options)


@figure_of.register
def _drawable(drawable: Drawable, given: Given) -> Figure:
    return records_figure(_line(drawable), drawable.records())


# -- pages ---------------------------------------------------------------------------------------


@page_of.register
def _circuit_page(circuit: Circuit, given: Given, *, command: str = "", python: str = "", **options: Any) -> str:
    return trace_report(circuit, _crops(circuit, given), command, python, **options)


@page_of.register
def _attribution_graph_page(
    graph: AttributionGraph, given: Given, *, command: str = "", python: str = "", width: int = 5, **options: Any
) -> str:
    images = _crops(graph.circuit(width), given)
    return attribution_graph_page(graph, images, command, python, width=width, **options)


@page_of.register
def _dossier_page(dossier: Dossier, given: Given, *, command: str = "", python: str = "") -> str:
    scan = needs(given, "scan", "the page of a dossier")
    return dossier_page(dossier, scan, command=command, python=python, images=given.get("images"))


@page_of.register
def _audit_page(audit: Audit, given: Given, *, command: str = "", python: str = "") -> str:
    model = given.get("model")
    images = None if given.get("images") is None or model is None else open_images(given["images"])
    return audit_page(audit, images, None if model is None else model.input, command=command, python=python)


@page_of.register
def _atlas_page(atlas: Atlas, given: Given, *, command: str = "", python: str = "") -> str:
    photographs = None
    if given.get("images") is not None and given.get("model") is not None:
        photographs = atlases.example_crops(atlas, given["images"], given["model"].input)
    return atlases.atlas_page(atlas, command=command, python=python, photographs=photographs)


@page_of.register
def _visualizations_page(results: Visualizations, given: Given, *, command: str = "", python: str = "") -> str:
    model = given.get("model")
    photographs = None
    if model is not None and given.get("images") is not None:
        photographs = crops.exemplars(results, open_images(given["images"]), model.input)
    names = [result.unit.partition("/")[0] for result in results if "/" in result.unit]
    name = model.name if model is not None else names[0] if names else "a model"
    return visualization_report(
        results, model=name, command=command, python=python, photographs=photographs, labels=_labels(given, results)
    )


@page_of.register
def _visualization_page(result: Visualization, given: Given, **options: Any) -> str:
    return _visualizations_page(Visualizations([result]), given, **options)


@page_of.register
def _drawable_page(drawable: Drawable, given: Given, *, command: str = "", python: str = "", **options: Any) -> str:
    target = getattr(drawable, "target", None) or getattr(drawable, "unit", None)
    title = _words(type(drawable).__name__)
    return result_page(
        f"{title} of {titled(target, _label(given, target))}" if isinstance(target, str) else title,
        _line(drawable),
        figure_of(drawable, given, **options) if _has_figure(drawable) else None,
        drawable.records(),
        command=command,
        python=python,
        provenance=getattr(drawable, "provenance", {}),
    )


# -- notebooks -----------------------------------------------------------------------------------


@html_of.register
def _cell(drawable: Drawable, given: Given) -> str:
    """A cell shows what it can: where a figure needs images that are not there, the rows alone."""
    figure = None
    if _has_figure(drawable):
        try:
            figure = figure_of(drawable, given)
        except CircuitsError:
            figure = None
    return cell_html(_line(drawable), figure, drawable.records())


@html_of.register
def _dossier_cell(dossier: Dossier, given: Given) -> str:
    if given.get("scan") is None:
        return _cell(dossier, given)
    frame = tag("iframe", "", srcdoc=Markup.escape(_dossier_page(dossier, given)), width="100%", height="640",
                style="border:1px solid #ccc", title=f"Dossier of {dossier.unit}", sandbox="")  # fmt: skip
    return str(frame)


def _words(name: str) -> str:
    """The name of a class as words: "Size curve"."""
    return re.sub(r"(?<=[a-z])[A-Z]", lambda letter: f" {letter[0].lower()}", name)


def _has_figure(drawable: Drawable) -> bool:
    return figure_of.dispatch(type(drawable)) is not figure_of.dispatch(Drawable)


def _line(drawable: Drawable) -> str:
    return repr(drawable)
