"""vision-circuits: take a trained network apart and see how it computes.

Few verbs, one address (`model/layer:unit@y,x`), results before pictures::

    model = circuits.load("scenes")
    circuit = circuits.trace(model, "mixed4a:11", images="scenes:200")
    score = circuits.score(model, circuit, images="scenes:200")
"""

from circuits import detectors, stimuli
from circuits.address import Unit
from circuits.atlas import Atlas
from circuits.attribution import Attribution, attribute
from circuits.basis import Basis, Directions
from circuits.branches import branch_enrichment, branch_structure
from circuits.cartography import activation_atlas
from circuits.circuit import Circuit, Edge, Node, Score
from circuits.controls import untrained
from circuits.detectors import Detectors, find_detectors, frequency_factors, sign_rule
from circuits.edits import Ablate, Add, Clamp, Edit, Scale, Set, edit
from circuits.errors import CircuitsError
from circuits.factors import Factors, Families, families, one_sided_nmf
from circuits.finding import Finding, Findings, find
from circuits.groups import Groups, neuron_groups
from circuits.hooks import capture
from circuits.likeness import Likeness, Neighbours, neighbours, similarity
from circuits.model import Layer, Model, load, wrap
from circuits.polysemanticity import Polysemanticities, Polysemanticity, polysemantic
from circuits.regions import activation_grid, semantic_dictionary
from circuits.scanning import scan
from circuits.scans import Scan, read_scan
from circuits.scoring import score
from circuits.spatial import spatial_attribution
from circuits.tracing import trace
from circuits.tuning import Tuning, joint_tuning, tune
from circuits.universality import Matches, match
from circuits.virtual import Keep, ablate_clusters, attach_pure_units
from circuits.visualization import Visualization, visualize
from circuits.weights import ExpandedWeights, best_case_weights, example_weights, expanded_weights
from zoo.inputs import InputSpec

__all__ = [
    "Ablate",
    "Add",
    "Atlas",
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
    "InputSpec",
    "Keep",
    "Layer",
    "Likeness",
    "Matches",
    "Model",
    "Neighbours",
    "Node",
    "Polysemanticities",
    "Polysemanticity",
    "Scale",
    "Scan",
    "Score",
    "Set",
    "Tuning",
    "Unit",
    "Visualization",
    "ablate_clusters",
    "activation_atlas",
    "activation_grid",
    "attach_pure_units",
    "attribute",
    "best_case_weights",
    "branch_enrichment",
    "branch_structure",
    "capture",
    "detectors",
    "edit",
    "example_weights",
    "expanded_weights",
    "families",
    "find",
    "find_detectors",
    "frequency_factors",
    "joint_tuning",
    "load",
    "match",
    "neighbours",
    "neuron_groups",
    "one_sided_nmf",
    "polysemantic",
    "read_scan",
    "scan",
    "score",
    "semantic_dictionary",
    "sign_rule",
    "similarity",
    "spatial_attribution",
    "stimuli",
    "trace",
    "tune",
    "untrained",
    "visualize",
    "wrap",
]
