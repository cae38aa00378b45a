"""The side of an image with the finer texture: fine texture has larger gradients for its contrast."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from circuits.errors import CircuitsError


def fine_side(image: Any, orientation: float) -> float:
    """How much finer an image is on one side of a line through its middle than on the other, in octaves.

    The fineness of a half is the root mean square of the gradient over the standard deviation of the pixels, which is
    the mean frequency of its texture: contrast and brightness drop out. A smooth half has no texture to measure; its
    deviation is set to at least a twentieth of the whole image's.

    Args:
        image: `(H, W)` or `(H, W, channels)`, at least 8 by 8.
        orientation: degrees counter-clockwise, 0 to the right: the direction of the side in question.

    Returns:
        log2 of that side's fineness over the other's; above zero where that side is finer.

    Raises:
        CircuitsError: another shape.

    >>> import numpy as np
    >>> x = np.arange(64)
    >>> image = np.where(x > 31, np.sin(x * 1.5), np.sin(x * 0.3))[None].repeat(64, axis=0)
    >>> fine_side(image, 0) > 1 and fine_side(image, 180) < -1
    True
    """
    values = np.asarray(image, dtype=np.float64)
    values = values.mean(axis=2) if values.ndim == 3 else values
    if values.ndim != 2 or min(values.shape) < 8:
        raise CircuitsError(f"an image of at least 8 by 8 pixels is needed, not {values.shape}")
    height, width = values.shape
    rows, columns = np.mgrid[:height, :width]
    x, y = columns - (width - 1) / 2, (height - 1) / 2 - rows
    turn = math.radians(orientation)
    along = x * math.cos(turn) + y * math.sin(turn)
    inside = np.hypot(x, y) <= min(height, width) / 2
    down, across = np.gradient(values)
    gradient = np.hypot(down, across)
    floor = max(float(values.std()) / 20, 1e-12)
    # a band of two pixels along the line belongs to neither side
    sides = [float(_fineness(values[s], gradient[s], floor)) for s in (inside & (along > 1), inside & (along < -1))]
    return math.log2(max(sides[0], 1e-6) / max(sides[1], 1e-6))


def _fineness(values: Any, gradient: Any, floor: float) -> float:
    return float(np.sqrt(np.square(gradient).mean()) / max(float(values.std()), floor))
