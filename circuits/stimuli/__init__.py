"""Synthetic stimuli: rendered images whose every property is known, to measure the tuning of units::

    tuning = circuits.tune(model, "mixed3b", stimuli=circuits.stimuli.curves())

Angles are in degrees counter-clockwise in the image, 0 to the right. A line at 0 is horizontal; a curve at 0 opens to
the right, like "("; a boundary at 0 has its fine, lit or first-colored side to the right.
"""

from circuits.stimuli.base import Axis as Axis, Stimuli as Stimuli, StimuliError as StimuliError, gray as gray
from circuits.stimuli.contours import (
    angle_to_curve as angle_to_curve,
    circles as circles,
    curves as curves,
    edges as edges,
    lines as lines,
)
from circuits.stimuli.hues import HUES as HUES
from circuits.stimuli.textures import color_contrast as color_contrast, gratings as gratings, high_low as high_low
from zoo.common.lazy import public_names

__all__ = public_names(__name__)
