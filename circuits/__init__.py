"""vision-circuits: take a trained network apart and see how it computes.

Everything has one address, `model/layer:unit@y,x`. Functions return results, and `circuits.plot` draws them::

    model = circuits.load("scenes")
    circuit = circuits.trace(model, "mixed4a:11", images="scenes:200")
    score = circuits.score(model, circuit, images="scenes:200")
"""

import warnings
from typing import TYPE_CHECKING

from circuits.errors import CircuitsError
from zoo.common.drawings import drawn_by
from zoo.common.installation import installation_problem
from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from circuits import stimuli
    from circuits.activations.atlas import Atlas, AtlasSettings
    from circuits.activations.atlas_builder import activation_atlas
    from circuits.activations.neuron_groups import Groups, neuron_groups
    from circuits.activations.semantic_dictionary import activation_grid, semantic_dictionary
    from circuits.activations.spatial_attribution import spatial_attribution
    from circuits.attribution.attribute import Attribution, attribute
    from circuits.attribution.expanded_weights import (
        ExpandedWeights,
        best_case_weights,
        example_weights,
        expanded_weights,
    )
    from circuits.attribution.heatmaps import Heatmap, heatmap
    from circuits.common.untrained import untrained
    from circuits.dataset.accuracy import Accuracy, accuracy
    from circuits.dataset.concept_search import Finding, Findings, TopImage, find
    from circuits.dataset.labels.label import label
    from circuits.dataset.labels.results import PartLabels, UnitLabel, read_labels
    from circuits.dataset.scan import scan
    from circuits.dataset.scan_results import Scan, read_scan
    from circuits.network.address import Unit
    from circuits.network.basis import Basis, Directions
    from circuits.network.hooks import capture
    from circuits.network.interventions import Ablate, Add, Clamp, Edit, Scale, Set, edit
    from circuits.network.layer import Layer
    from circuits.network.model import Model, load, wrap
    from circuits.tracing import baselines, benchmark
    from circuits.tracing.baselines import Patch
    from circuits.tracing.circuit import Circuit, Edge, Node, diff
    from circuits.tracing.circuit_score import Score
    from circuits.tracing.curves.size_curve import SizeCurve, size_curve
    from circuits.tracing.curves.smallest import SmallestCircuit, smallest
    from circuits.tracing.rankings.ranking import Ranking, rank
    from circuits.tracing.score import score
    from circuits.tracing.trace import trace
    from circuits.tuning import Tuning, detectors, tune
    from circuits.tuning.detectors import Detectors, find_detectors, frequency_factors
    from circuits.tuning.detectors.sign_rule import sign_rule
    from circuits.tuning.joint_tuning import joint_tuning
    from circuits.units.branch_specialization import branch_enrichment, branch_structure
    from circuits.units.channel_dissection import dissect
    from circuits.units.dossier.explain import explain
    from circuits.units.polysemanticity import Polysemanticities, Polysemanticity, polysemantic
    from circuits.units.pure_units import Keep, ablate_clusters, attach_pure_units
    from circuits.units.similarity import Neighbors, UnitSimilarity, neighbors, similarity
    from circuits.units.universality import Matches, match
    from circuits.units.weight_factors import Factors, Families, families, one_sided_nmf
    from circuits.visualization import RenderSettings, Visualization, Visualizations, visualize
    from zoo.cards import register
    from zoo.inputs import InputSpec
else:
    __getattr__, __dir__ = lazy_names(__name__)

drawn_by("circuits.plot.results")
if _problem := installation_problem():
    warnings.warn(_problem, RuntimeWarning, stacklevel=2)

__all__ = [
    "Ablate",
    "Accuracy",
    "Add",
    "Atlas",
    "AtlasSettings",
    "Attribution",
    "Basis",
    "Circuit",
    "CircuitsError",
    "Clamp",
    "Detectors",
    "Directions",
    "Edge",
    "Edit",
    "ExpandedWeights",
    "Factors",
    "Families",
    "Finding",
    "Findings",
    "Groups",
    "Heatmap",
    "InputSpec",
    "Keep",
    "Layer",
    "UnitSimilarity",
    "Matches",
    "Model",
    "Neighbors",
    "Node",
    "PartLabels",
    "Patch",
    "Polysemanticities",
    "Polysemanticity",
    "Ranking",
    "RenderSettings",
    "Scale",
    "Scan",
    "Score",
    "Set",
    "TopImage",
    "SizeCurve",
    "SmallestCircuit",
    "Tuning",
    "Unit",
    "UnitLabel",
    "Visualization",
    "Visualizations",
    "ablate_clusters",
    "accuracy",
    "activation_atlas",
    "activation_grid",
    "attach_pure_units",
    "attribute",
    "baselines",
    "benchmark",
    "best_case_weights",
    "branch_enrichment",
    "branch_structure",
    "capture",
    "detectors",
    "diff",
    "dissect",
    "edit",
    "example_weights",
    "expanded_weights",
    "explain",
    "families",
    "find",
    "find_detectors",
    "frequency_factors",
    "heatmap",
    "joint_tuning",
    "label",
    "load",
    "match",
    "neighbors",
    "neuron_groups",
    "one_sided_nmf",
    "polysemantic",
    "read_labels",
    "rank",
    "read_scan",
    "register",
    "scan",
    "score",
    "semantic_dictionary",
    "sign_rule",
    "similarity",
    "size_curve",
    "smallest",
    "spatial_attribution",
    "stimuli",
    "trace",
    "tune",
    "untrained",
    "visualize",
    "wrap",
]
