"""Toy models of superposition: why units are polysemantic, in networks whose features are known.

    from sae import superposition
    models = superposition.grid(5, 2, densities=superposition.density_schedule(8), seeds=4)
    trained = superposition.train(models, steps=2000).best()
    trained[-1].polytopes  # five features in two dimensions: a pentagon

Elhage et al. 2022, Toy Models of Superposition, https://transformer-circuits.pub/2022/toy_model
"""

from sae.superposition.dictionaries import HiddenStream, Recovery, excess_kurtosis, found_cosines, recovery
from sae.superposition.experiments import EXPERIMENTS, Experiment, experiment
from sae.superposition.features import sample
from sae.superposition.measures import (
    PLATEAUS,
    dimensions_per_feature,
    feature_dimensionality,
    interference,
    plateau_of,
    stickiness,
)
from sae.superposition.models import ToyError, ToyModel, decaying, density_schedule, grid
from sae.superposition.phases import (
    PHASES,
    PhaseDiagram,
    antipodal_loss,
    expected_phases,
    ignored_loss,
    phase_boundary,
    phase_diagram,
)
from sae.superposition.results import Solution, Trained
from sae.superposition.robustness import Vulnerability, vulnerability
from sae.superposition.shapes import Polytope, components, polytopes, recognise, solids
from sae.superposition.sharing import Chance, Geometry, Sharing, geometry
from sae.superposition.training import train

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
    "found_cosines",
    "geometry",
    "grid",
    "ignored_loss",
    "interference",
    "phase_boundary",
    "phase_diagram",
    "plateau_of",
    "polytopes",
    "recognise",
    "recovery",
    "sample",
    "solids",
    "stickiness",
    "train",
    "vulnerability",
]
