"""Toy models of superposition: why units are polysemantic, in networks whose features are known.

    from sae import superposition
    models = superposition.grid(5, 2, densities=superposition.density_schedule(8), seeds=4)
    trained = superposition.train(models, steps=2000).best()
    trained[-1].polytopes  # five features in two dimensions: a pentagon

Elhage et al. 2022, Toy Models of Superposition, https://transformer-circuits.pub/2022/toy_model
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae.superposition.geometry import Chance as Chance, Geometry as Geometry, Sharing as Sharing, geometry as geometry
from sae.superposition.interference import (
    PLATEAUS as PLATEAUS,
    dimensions_per_feature as dimensions_per_feature,
    feature_dimensionality as feature_dimensionality,
    interference as interference,
    plateau_of as plateau_of,
    stickiness as stickiness,
)
from sae.superposition.polytopes import (
    Polytope as Polytope,
    components as components,
    polytopes as polytopes,
    recognize as recognize,
    solids as solids,
)
from zoo.common.lazy import lazy_names

if TYPE_CHECKING:  # these take what trains SAEs; a dossier takes the geometry alone
    from sae.superposition.sae_recovery import (
        HiddenStream as HiddenStream,
        Recovery as Recovery,
        excess_kurtosis as excess_kurtosis,
        feature_cosines as feature_cosines,
        recovery as recovery,
    )
    from sae.superposition.toy.adversarial import Vulnerability as Vulnerability, vulnerability as vulnerability
    from sae.superposition.toy.experiments import (
        EXPERIMENTS as EXPERIMENTS,
        Experiment as Experiment,
        experiment as experiment,
    )
    from sae.superposition.toy.feature_sampler import sample as sample
    from sae.superposition.toy.phase_diagram import (
        PHASES as PHASES,
        PhaseDiagram as PhaseDiagram,
        antipodal_loss as antipodal_loss,
        expected_phases as expected_phases,
        ignored_loss as ignored_loss,
        phase_boundary as phase_boundary,
        phase_diagram as phase_diagram,
    )
    from sae.superposition.toy.results import Solution as Solution, Trained as Trained
    from sae.superposition.toy.toy_models import (
        ToyError as ToyError,
        ToyModel as ToyModel,
        decaying as decaying,
        density_schedule as density_schedule,
        grid as grid,
    )
    from sae.superposition.toy.train import train as train
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
