"""How the results of `sae` are drawn, for `result.plot()` and `.report()`; see `circuits.plot.results`."""

from __future__ import annotations

from typing import Any

from circuits.plot.results import draws
from circuits.plot.sae.metric_table import metric_table_figure
from circuits.plot.sae.model_diff import model_diff_figure
from circuits.plot.sae.separation import separation_figure
from circuits.plot.sae.steering import steering_figure
from circuits.plot.sae.text_latent_page import texts_page
from circuits.plot.sae.training import training_figure
from circuits.plot.superposition import charts, models
from circuits.plot.superposition.recovery import recovery_figure
from circuits.plot.units.layer_scatter import layer_units_figure
from sae.evaluation.diffing.results import ModelDiff
from sae.evaluation.trust.cluster_separation import Separation
from sae.evaluation.trust.metric_table import MetricTable
from sae.language.latent_examples import TextFeature, TextFeatures
from sae.steering.study_result import Study
from sae.superposition.geometry import Geometry
from sae.superposition.layer_units import LayerUnits
from sae.superposition.sae_recovery import Recovery
from sae.superposition.toy.adversarial import Vulnerability
from sae.superposition.toy.phase_diagram import PhaseDiagram
from sae.superposition.toy.results import Trained
from sae.training.train import Run, Runs
from zoo.common.drawings import Given, page_of

for _kind, _function in (
    (Runs, training_figure),
    (MetricTable, metric_table_figure),
    (Separation, separation_figure),
    (ModelDiff, model_diff_figure),
    (Run, lambda run, **options: training_figure([run], **options)),
    (Study, steering_figure),
    (LayerUnits, layer_units_figure),
    (Recovery, recovery_figure),
    (PhaseDiagram, charts.phase_figure),
    (Vulnerability, charts.vulnerability_figure),
    (Geometry, charts.geometry_figure),
    (Trained, models.gram_figure),
):
    draws(_kind, _function)


@page_of.register
def _features_page(features: TextFeatures, given: Given, *, command: str = "", python: str = "") -> str:
    title = features[0].unit.rpartition(":")[0] if features else "latents"
    facts = [("latents on this page", f"{len(features)}")]
    return texts_page(features, title=title, facts=facts, provenance={}, command=command, python=python)


@page_of.register
def _feature_page(feature: TextFeature, given: Given, **options: Any) -> str:
    return _features_page(TextFeatures([feature]), given, **options)
