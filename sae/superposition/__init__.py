"""Toy models of superposition: why units are polysemantic, in networks whose features are known.

    from sae import superposition
    models = superposition.grid(5, 2, densities=superposition.density_schedule(8), seeds=4)
    trained = superposition.train(models, steps=2000).best()
    trained[-1].polytopes  # five features in two dimensions: a pentagon

Elhage et al. 2022, Toy Models of Superposition, https://transformer-circuits.pub/2022/toy_model
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae.superposition.geometry import Chance, Geometry, Sharing, geometry
from sae.superposition.interference import (
    PLATEAUS,
    dimensions_per_feature,
    feature_dimensionality,
    interference,
    plateau_of,
    stickiness,
)
from sae.superposition.polytopes import Polytope, components, polytopes, recognize, solids
from zoo.common.lazy import lazy_names

if TYPE_CHECKING:  # these take what trains SAEs; a dossier takes the geometry alone
    from sae.superposition.sae_recovery import HiddenStream, Recovery, excess_kurtosis, feature_cosines, recovery
    from sae.superposition.toy.adversarial import Vulnerability, vulnerability
    from sae.superposition.toy.experiments import EXPERIMENTS, Experiment, experiment
    from sae.superposition.toy.feature_sampler import sample
    from sae.superposition.toy.phase_diagram import (
        PHASES,
        PhaseDiagram,
        antipodal_loss,
        expected_phases,
        ignored_loss,
        phase_boundary,
        phase_diagram,
    )
    from sae.superposition.toy.results import Solution, Trained
    from sae.superposition.toy.toy_models import ToyError, ToyModel, decaying, density_schedule, grid
    from sae.superposition.toy.train import train
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "EXPERIMENTS",
    "PHASES",
    "PLATEAUS",
    "Chance",
    "Experiment",
    "Geometry",
    "HiddenStream",
    "PhaseDiagram",
    "Polytope",
    "Recovery",
    "Sharing",
    "Solution",
    "ToyError",
    "ToyModel",
    "Trained",
    "Vulnerability",
    "antipodal_loss",
    "components",
    "decaying",
    "density_schedule",
    "dimensions_per_feature",
    "excess_kurtosis",
    "expected_phases",
    "experiment",
    "feature_dimensionality",
    "feature_cosines",
    "geometry",
    "grid",
    "ignored_loss",
    "interference",
    "phase_boundary",
    "phase_diagram",
    "plateau_of",
    "polytopes",
    "recognize",
    "recovery",
    "sample",
    "solids",
    "stickiness",
    "train",
    "vulnerability",
]
