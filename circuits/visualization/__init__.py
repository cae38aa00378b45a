"""Feature visualization: pictures of what units look for, with Lucid's vocabulary, on any model.

from circuits.visualization import objectives, params, transforms
results = circuits.visualize(model, "mixed4a", steps=256)     # every unit of a layer
"""

from circuits.visualization import objectives, params, transforms
from circuits.visualization.errors import VisualizationError
from circuits.visualization.evidence import Evidence, examine
from circuits.visualization.modes import (
    Decomposed,
    Spectrum,
    Strip,
    accentuate,
    caricature_strip,
    decomposed,
    spectrum,
    trajectory,
)
from circuits.visualization.render import visualize
from circuits.visualization.result import Visualization

__all__ = [
    "Decomposed",
    "Evidence",
    "Spectrum",
    "Strip",
    "Visualization",
    "VisualizationError",
    "accentuate",
    "caricature_strip",
    "decomposed",
    "examine",
    "objectives",
    "params",
    "spectrum",
    "trajectory",
    "transforms",
    "visualize",
]
