"""The colors of every figure: orange excites, blue inhibits, white is zero.

One signed scale serves kernels, lines and bars, in the API, the report and the app. Orange and blue stay
apart for the common forms of color blindness; wherever sign matters it is also shown by shape or number.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXCITES = "#CA5A00"
INHIBITS = "#1F6FB2"
INK = "#1D1C1A"
MUTED = "#6F6A62"
LINE = "#DDD8CF"
REST = "#8F8A82"
TILE = "#E9E6E0"
PAPER = "#FFFFFF"

_WHITE = np.array([255.0, 255.0, 255.0])
_TOWARDS = np.array([[31.0, 111.0, 178.0], [202.0, 90.0, 0.0]]) - _WHITE  # full inhibition, full excitation
_UNKNOWN = np.array([160, 160, 160], dtype=np.uint8)


def color_of(sign: float) -> str:
    """Hex color of a sign: orange above zero, blue below, gray for zero."""
    return EXCITES if sign > 0 else INHIBITS if sign < 0 else REST


def shared_scale(kernels: Iterable[Any]) -> float:
    """The largest size of a finite weight among `kernels`, so that one color means one number; 1 if all are zero."""
    largest = 0.0
    for kernel in kernels:
        values = np.asarray(kernel, dtype=np.float64)
        finite = values[np.isfinite(values)]
        largest = max(largest, float(np.abs(finite).max(initial=0.0)))
    return largest or 1.0


def encode(weights: Any, scale: float) -> NDArray[np.uint8]:
    """Colors of weights.

    Args:
        weights: numbers of any shape; what lies beyond `scale` takes the color of `scale`, NaN is gray.
        scale: the weight that is fully orange (and, negated, fully blue); above zero.

    Returns:
        RGB bytes of shape `(*weights.shape, 3)`, piecewise linear in the weight: see `decode`.
    """
    values = np.asarray(weights, dtype=np.float64) / scale
    part = np.clip(np.nan_to_num(values, nan=0.0), -1.0, 1.0)[..., None]
    towards = np.where(part < 0, _TOWARDS[0], _TOWARDS[1])
    colors = np.rint(_WHITE + np.abs(part) * towards).astype(np.uint8)
    colors[np.isnan(values)] = _UNKNOWN
    return np.asarray(colors)


def decode(colors: Any, scale: float) -> NDArray[np.float64]:
    """Weights that `encode` gave these colors `(..., 3)`: right to within `scale / 255`."""
    away = np.asarray(colors, dtype=np.float64) - _WHITE
    # orange loses blue light first, blue loses red light first
    positive = away[..., 2] < away[..., 0]
    towards = np.where(positive[..., None], _TOWARDS[1], _TOWARDS[0])
    size = (away * towards).sum(axis=-1) / (towards * towards).sum(axis=-1)
    return np.asarray(np.where(positive, size, -size) * scale)


def hue(angle: float, period: float) -> str:
    """A color for an angle: round the hues once a period, dark enough for text on white."""
    share = (angle / period) % 1.0
    r, g, b = colorsys.hls_to_rgb(share, 0.36 if 0.08 < share < 0.55 else 0.45, 0.85)
    return f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}"
