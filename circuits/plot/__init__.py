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
    from circuits.plot.activations.atlas import (
        atlas_figure as atlas_figure,
        atlas_page as atlas_page,
        example_crops as example_crops,
    )
    from circuits.plot.activations.heatmap import heatmap_figure as heatmap_figure, overlay as overlay
    from circuits.plot.activations.image import (
        attribution_figure as attribution_figure,
        dictionary_figure as dictionary_figure,
        grid_figure as grid_figure,
        groups_figure as groups_figure,
        spatial_figure as spatial_figure,
    )
    from circuits.plot.circuit.attribution_graph import (
        attribution_graph_page as attribution_graph_page,
        graph_check_figure as graph_check_figure,
    )
    from circuits.plot.circuit.graph import circuit_graph as circuit_graph
    from circuits.plot.circuit.kernels import kernel_grid as kernel_grid, kernel_strip as kernel_strip
    from circuits.plot.circuit.report import trace_report as trace_report
    from circuits.plot.circuit.size_curve import size_curve_figure as size_curve_figure
    from circuits.plot.circuit.tables import (
        auc_table as auc_table,
        score_figure as score_figure,
        waterfall as waterfall,
    )
    from circuits.plot.drawing.canvas import save_figure as save_figure
    from circuits.plot.drawing.crops import crops as crops, exemplars as exemplars, pixels as pixels
    from circuits.plot.drawing.palette import decode as decode, encode as encode, shared_scale as shared_scale
    from circuits.plot.drawing.wording import (
        Halves as Halves,
        circuit_reading as circuit_reading,
        halves as halves,
        kernel_effect as kernel_effect,
        kernel_reading as kernel_reading,
    )
    from circuits.plot.sae.channel_dissection import dissection_figure as dissection_figure
    from circuits.plot.sae.latent_page import latents_page as latents_page
    from circuits.plot.sae.latent_quality import orientation_dials as orientation_dials, part_dots as part_dots
    from circuits.plot.sae.steering import steering_figure as steering_figure
    from circuits.plot.sae.text_latent_page import texts_page as texts_page
    from circuits.plot.superposition.recovery import recovery_figure as recovery_figure
    from circuits.plot.units.comparison import (
        branch_scatter as branch_scatter,
        enrichment_bars as enrichment_bars,
        match_matrix as match_matrix,
        match_table as match_table,
        neighbors_table as neighbors_table,
    )
    from circuits.plot.units.contact_sheet import contact_sheet as contact_sheet
    from circuits.plot.units.dossier import dossier_page as dossier_page
    from circuits.plot.units.layer_scatter import layer_units_figure as layer_units_figure
    from circuits.plot.units.part_labels import part_labels_figure as part_labels_figure
    from circuits.plot.units.polysemanticity import (
        ablation_table as ablation_table,
        polysemantic_ranking as polysemantic_ranking,
        polysemantic_unit as polysemantic_unit,
    )
    from circuits.plot.units.tuning import (
        radial_tuning as radial_tuning,
        sign_rule_scatter as sign_rule_scatter,
        stimuli_strip as stimuli_strip,
        tuning_curves as tuning_curves,
        tuning_map as tuning_map,
    )
    from circuits.plot.units.weight_factors import factor_figure as factor_figure
    from circuits.plot.visualization.modes import (
        decomposed_grid as decomposed_grid,
        spectrum_strip as spectrum_strip,
        strip as strip,
        trajectory_strip as trajectory_strip,
    )
    from circuits.plot.visualization.report import (
        visualization_report as visualization_report,
        visualization_sheet as visualization_sheet,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
