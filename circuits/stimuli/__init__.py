"""Synthetic stimuli: rendered images whose every property is known, to measure the tuning of units::

    tuning = circuits.tune(model, "mixed3b", stimuli=circuits.stimuli.curves())

Angles are in degrees counter-clockwise in the image, 0 to the right. A line at 0 is horizontal; a curve at 0 opens to
the right, like "("; a boundary at 0 has its fine, lit or first-colored side to the right.
"""

from circuits.stimuli.base import Axis, Stimuli, StimuliError, gray
from circuits.stimuli.contours import angle_to_curve, circles, curves, edges, lines
from circuits.stimuli.hues import HUES
from circuits.stimuli.textures import color_contrast, gratings, high_low

__all__ = [
    "HUES",
    "Axis",
    "Stimuli",
    "StimuliError",
    "angle_to_curve",
    "circles",
    "color_contrast",
    "curves",
    "edges",
    "gratings",
    "gray",
    "high_low",
    "lines",
]
