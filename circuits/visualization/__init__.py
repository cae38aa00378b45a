"""Feature visualization: images optimized to activate units, with Lucid's vocabulary, on any model::

    from circuits.visualization import objectives, params, transforms, visualize

    results = visualize(model, "mixed4a", steps=256)  # every unit of a layer

`circuits.visualization.lucent` has Lucent's names.
"""

from circuits.errors import VisualizationError
from circuits.visualization import objectives, parametrizations as params, transforms
from circuits.visualization.evidence import examine
from circuits.visualization.lucent.render import render_vis
from circuits.visualization.modes.accentuation import accentuate
from circuits.visualization.modes.caricature import Decomposed, Strip, caricature_strip, decomposed, trajectory
from circuits.visualization.modes.spectrum import Spectrum, spectrum
from circuits.visualization.render import visualize
from circuits.visualization.result import Evidence, Visualization, Visualizations
from circuits.visualization.settings import RenderSettings
from circuits.visualization.sweeps.sweep import read_sweep, sweep

__all__ = [
    "Decomposed",
    "Evidence",
    "RenderSettings",
    "Spectrum",
    "Strip",
    "Visualization",
    "VisualizationError",
    "Visualizations",
    "accentuate",
    "caricature_strip",
    "decomposed",
    "examine",
    "objectives",
    "params",
    "read_sweep",
    "render_vis",
    "spectrum",
    "sweep",
    "trajectory",
    "transforms",
    "visualize",
]
