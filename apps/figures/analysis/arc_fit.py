"""The similarity of a kernel to a curve, and the orientation of that curve.

The weights between two curve detectors of one orientation trace that curve (Olah et al., *Zoom In*, Distill 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits.common.statistics import correlation
from circuits.errors import CircuitsError

_RADII = (0.6, 0.9, 1.4, 2.2)  # of arcs, in half kernels: from round to nearly straight


@dataclass(frozen=True, eq=False)
class ArcFit:
    """How well arcs of all orientations fit a kernel.

    Attributes:
        own: correlation with the best arc of the given orientation.
        by_orientation: `(n,)` the same for orientations at even steps, the first being that one.
    """

    own: float
    by_orientation: NDArray[np.float64]


def arc_fit(kernel: Any, orientation: float, *, steps: int = 24) -> ArcFit:
    """Correlate a kernel with arcs of the given and of all other orientations, each of the best of a few radii.

    Args:
        kernel: `(kh, kw)` weights, at least 3 by 3.
        orientation: degrees counter-clockwise, the direction in which the curve opens: 0 is like "(", as in
            `circuits.stimuli`.
        steps: orientations around the circle.

    Raises:
        CircuitsError: a smaller kernel.

    >>> arc_fit([[0, 1, 1], [1, 0, 0], [0, 1, 1]], 0).own > 0.5
    True
    """
    values = np.asarray(kernel, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 3:
        raise CircuitsError(f"a kernel of at least 3 by 3 weights is needed, not {values.shape}")
    turns = orientation + np.arange(steps) * 360.0 / steps
    fits = np.array([max(correlation(values, _arc(values.shape, t, r)) for r in _RADII) for t in turns])
    return ArcFit(float(fits[0]), fits)


def _arc(shape: tuple[int, ...], orientation: float, radius: float) -> NDArray[np.float64]:
    """An arc through the middle of a kernel, one cell wide with soft edges, open to `orientation`."""
    kh, kw = shape
    rows, columns = np.mgrid[:kh, :kw]
    x, y = columns - (kw - 1) / 2, (kh - 1) / 2 - rows
    size = radius * max(kh, kw) / 2
    turn = np.radians(orientation)
    # the circle's center lies on the open side, its rim goes through the middle
    away = np.abs(np.hypot(x - size * np.cos(turn), y - size * np.sin(turn)) - size)
    arc = np.clip(1.25 - away, 0.0, 1.0)
    far = x * np.cos(turn) + y * np.sin(turn) > size  # the other half of a small circle is no part of the curve
    return np.where(far, 0.0, arc)
