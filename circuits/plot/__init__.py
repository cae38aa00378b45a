"""Figures of results: pure functions from what the library returns to matplotlib figures, and HTML pages.

Figures are made without pyplot, so that drawing changes nothing outside of them. `import circuits` does not
import this package::

    from circuits import plot
    crops = plot.crops(circuit, images, model.input)
    plot.save_figure(plot.circuit_graph(circuit, crops), "circuit.png")
"""

from typing import TYPE_CHECKING

from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from circuits.plot.activations.atlas import atlas_figure, atlas_page, example_crops
    from circuits.plot.activations.heatmap import heatmap_figure, overlay
    from circuits.plot.activations.image import (
        attribution_figure,
        dictionary_figure,
        grid_figure,
        groups_figure,
        spatial_figure,
    )
    from circuits.plot.circuit.graph import circuit_graph
    from circuits.plot.circuit.kernels import kernel_grid, kernel_strip
    from circuits.plot.circuit.report import trace_report
    from circuits.plot.circuit.size_curve import size_curve_figure
    from circuits.plot.circuit.tables import auc_table, score_figure, waterfall
    from circuits.plot.drawing.canvas import save_figure
    from circuits.plot.drawing.crops import crops, exemplars, pixels
    from circuits.plot.drawing.palette import decode, encode, shared_scale
    from circuits.plot.drawing.wording import Halves, circuit_reading, halves, kernel_effect, kernel_reading
    from circuits.plot.sae.channel_dissection import dissection_figure
    from circuits.plot.sae.latent_page import latents_page
    from circuits.plot.sae.latent_quality import orientation_dials, part_dots
    from circuits.plot.sae.steering import steering_figure
    from circuits.plot.sae.text_latent_page import texts_page
    from circuits.plot.superposition.recovery import recovery_figure
    from circuits.plot.units.comparison import (
        branch_scatter,
        enrichment_bars,
        match_matrix,
        match_table,
        neighbors_table,
    )
    from circuits.plot.units.contact_sheet import contact_sheet
    from circuits.plot.units.dossier import dossier_page
    from circuits.plot.units.layer_scatter import layer_units_figure
    from circuits.plot.units.part_labels import part_labels_figure
    from circuits.plot.units.polysemanticity import ablation_table, polysemantic_ranking, polysemantic_unit
    from circuits.plot.units.tuning import radial_tuning, sign_rule_scatter, stimuli_strip, tuning_curves, tuning_map
    from circuits.plot.units.weight_factors import factor_figure
    from circuits.plot.visualization.modes import decomposed_grid, spectrum_strip, strip, trajectory_strip
    from circuits.plot.visualization.report import visualization_report, visualization_sheet
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "Halves",
    "ablation_table",
    "atlas_figure",
    "atlas_page",
    "attribution_figure",
    "auc_table",
    "branch_scatter",
    "circuit_graph",
    "circuit_reading",
    "contact_sheet",
    "crops",
    "decode",
    "decomposed_grid",
    "dictionary_figure",
    "dissection_figure",
    "dossier_page",
    "encode",
    "enrichment_bars",
    "example_crops",
    "exemplars",
    "factor_figure",
    "grid_figure",
    "groups_figure",
    "halves",
    "heatmap_figure",
    "kernel_effect",
    "kernel_grid",
    "kernel_reading",
    "kernel_strip",
    "latents_page",
    "layer_units_figure",
    "match_matrix",
    "match_table",
    "neighbors_table",
    "orientation_dials",
    "overlay",
    "part_dots",
    "part_labels_figure",
    "pixels",
    "polysemantic_ranking",
    "polysemantic_unit",
    "radial_tuning",
    "recovery_figure",
    "save_figure",
    "score_figure",
    "shared_scale",
    "sign_rule_scatter",
    "size_curve_figure",
    "spatial_figure",
    "spectrum_strip",
    "steering_figure",
    "stimuli_strip",
    "strip",
    "texts_page",
    "trace_report",
    "trajectory_strip",
    "tuning_curves",
    "tuning_map",
    "visualization_report",
    "visualization_sheet",
    "waterfall",
]
