"""vision-circuits: take a trained network apart and see how it computes.

Everything has one address, `model/layer:unit@y,x`. Functions return results, and `circuits.plot` draws them::

    model = circuits.load("scenes")
    circuit = circuits.trace(model, "mixed4a:11", images="scenes:200")
    score = circuits.score(model, circuit, images="scenes:200")
"""

import warnings
from typing import TYPE_CHECKING

from circuits.errors import CircuitsError as CircuitsError
from zoo.common.drawings import drawn_by
from zoo.common.installation import installation_problem
from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from circuits import stimuli as stimuli
    from circuits.activations.atlas import Atlas as Atlas, AtlasSettings as AtlasSettings
    from circuits.activations.atlas_builder import activation_atlas as activation_atlas
    from circuits.activations.neuron_groups import Groups as Groups, neuron_groups as neuron_groups
    from circuits.activations.semantic_dictionary import (
        activation_grid as activation_grid,
        semantic_dictionary as semantic_dictionary,
    )
    from circuits.activations.spatial_attribution import spatial_attribution as spatial_attribution
    from circuits.attribution.attribute import Attribution as Attribution, attribute as attribute
    from circuits.attribution.expanded_weights import (
        ExpandedWeights as ExpandedWeights,
        best_case_weights as best_case_weights,
        example_weights as example_weights,
        expanded_weights as expanded_weights,
    )
    from circuits.attribution.heatmaps import Heatmap as Heatmap, heatmap as heatmap
    from circuits.common.untrained import untrained as untrained
    from circuits.dataset.accuracy import Accuracy as Accuracy, accuracy as accuracy
    from circuits.dataset.audit.audit import audit as audit
    from circuits.dataset.audit.repair.export import Export as Export, export as export
    from circuits.dataset.audit.repair.repair import repair as repair
    from circuits.dataset.audit.repair.result import Repair as Repair
    from circuits.dataset.audit.results import Audit as Audit, ClassAudit as ClassAudit, Suspect as Suspect
    from circuits.dataset.concept_search import (
        Finding as Finding,
        Findings as Findings,
        TopImage as TopImage,
        find as find,
    )
    from circuits.dataset.labels.label import label as label
    from circuits.dataset.labels.results import (
        PartLabels as PartLabels,
        UnitLabel as UnitLabel,
        read_labels as read_labels,
    )
    from circuits.dataset.scan import scan as scan
    from circuits.dataset.scan_results import Scan as Scan, read_scan as read_scan
    from circuits.network.address import Unit as Unit
    from circuits.network.basis import Basis as Basis, Directions as Directions
    from circuits.network.hooks import capture as capture
    from circuits.network.interventions import (
        Ablate as Ablate,
        Add as Add,
        Clamp as Clamp,
        Edit as Edit,
        Project as Project,
        Scale as Scale,
        Set as Set,
        edit as edit,
    )
    from circuits.network.layer import Layer as Layer
    from circuits.network.model import Model as Model, load as load, wrap as wrap
    from circuits.plot.site.publish import Site as Site, publish as publish
    from circuits.tracing import baselines as baselines, benchmark as benchmark
    from circuits.tracing.baselines import Patch as Patch
    from circuits.tracing.circuit import Circuit as Circuit, Edge as Edge, Node as Node, diff as diff
    from circuits.tracing.circuit_score import Score as Score
    from circuits.tracing.curves.size_curve import SizeCurve as SizeCurve, size_curve as size_curve
    from circuits.tracing.curves.smallest import SmallestCircuit as SmallestCircuit, smallest as smallest
    from circuits.tracing.graphs.attribution_graph import (
        AttributionGraph as AttributionGraph,
        GraphEdge as GraphEdge,
        GraphNode as GraphNode,
    )
    from circuits.tracing.graphs.check import GraphCheck as GraphCheck, check_graph as check_graph
    from circuits.tracing.graphs.effect import NodeEffect as NodeEffect, node_effect as node_effect
    from circuits.tracing.graphs.graph import graph as graph
    from circuits.tracing.graphs.groups import GraphGroups as GraphGroups, graph_groups as graph_groups
    from circuits.tracing.rankings.ranking import Ranking as Ranking, rank as rank
    from circuits.tracing.score import score as score
    from circuits.tracing.trace import trace as trace
    from circuits.tuning import Tuning as Tuning, detectors as detectors, tune as tune
    from circuits.tuning.detectors import (
        Detectors as Detectors,
        find_detectors as find_detectors,
        frequency_factors as frequency_factors,
    )
    from circuits.tuning.detectors.sign_rule import sign_rule as sign_rule
    from circuits.tuning.joint_tuning import joint_tuning as joint_tuning
    from circuits.units.branch_specialization import (
        branch_enrichment as branch_enrichment,
        branch_structure as branch_structure,
    )
    from circuits.units.channel_dissection import dissect as dissect
    from circuits.units.dossier.explain import explain as explain
    from circuits.units.polysemanticity import (
        Polysemanticities as Polysemanticities,
        Polysemanticity as Polysemanticity,
        polysemantic as polysemantic,
    )
    from circuits.units.pure_units import (
        Keep as Keep,
        ablate_clusters as ablate_clusters,
        attach_pure_units as attach_pure_units,
    )
    from circuits.units.similarity import (
        Neighbors as Neighbors,
        UnitSimilarity as UnitSimilarity,
        neighbors as neighbors,
        similarity as similarity,
    )
    from circuits.units.universality import Matches as Matches, match as match
    from circuits.units.weight_factors import (
        Factors as Factors,
        Families as Families,
        families as families,
        one_sided_nmf as one_sided_nmf,
    )
    from circuits.visualization import (
        RenderSettings as RenderSettings,
        Visualization as Visualization,
        Visualizations as Visualizations,
        visualize as visualize,
    )
    from zoo.cards import register as register
    from zoo.inputs import InputSpec as InputSpec
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)

drawn_by("circuits.plot.results")
if _problem := installation_problem():
    warnings.warn(_problem, RuntimeWarning, stacklevel=2)
