"""Colors with the same mean over channels, so that they differ in hue only."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from circuits.errors import did_you_mean, shorten
from circuits.stimuli.base import Ink, StimuliError

HUES = {
    "red": 0, "orange": 30, "yellow": 60, "chartreuse": 90, "green": 120, "spring": 150,
    "cyan": 180, "azure": 210, "blue": 240, "violet": 270, "magenta": 300, "rose": 330,
}  # fmt: skip
_GRAYS = {"light": 1.0, "gray": 0.0, "dark": -1.0}


def hue(degrees: float) -> Ink:
    """Departure from gray `(3,)` of a hue, 0 in the mean over channels, 1 at most; the opposite hue is its negative."""
    rgb = np.array(colorsys.hsv_to_rgb((degrees / 360) % 1.0, 1.0, 1.0))
    away = rgb - rgb.mean()
    return np.asarray(away / np.abs(away).max())


def color(name: str | Sequence[float], channels: int) -> Ink:
    """Departure from gray `(channels,)` of a named color, or of numbers in [-1, 1], one a channel.

    Raises:
        StimuliError: an unknown name, a hue where there are not three channels, or numbers that do not fit.
    """
    if isinstance(name, str):
        if name in _GRAYS:
            return np.full(channels, _GRAYS[name])
        if name not in HUES:
            names = [*HUES, *_GRAYS]
            raise StimuliError(f"no color {shorten(name)!r}.{did_you_mean(name, names)} Use {', '.join(names)}")
        if channels != 3:
            raise StimuliError(
                f"{name} is a color of three channels, the model takes {channels}: "
                "give numbers in [-1, 1] instead, one a channel"
            )
        return hue(HUES[name])
    values = np.asarray(name, dtype=np.float64)
    if values.shape != (channels,) or not bool((np.abs(values) <= 1).all()):
        raise StimuliError(f"a color here is {channels} numbers in [-1, 1], not {shorten(name)}")
    return values
