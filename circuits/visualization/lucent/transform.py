"""Lucent's transforms, random for each image and composed into one sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

from torch import Tensor
from torch.nn import functional as F

from circuits.errors import VisualizationError
from circuits.visualization.transforms import Jitter, Rotate, Scale


def pad(w: int, mode: str = "reflect", constant_value: float = 0.5) -> Callable[[Tensor], Tensor]:
    """A border of `w` pixels; the image grows by it."""
    if mode == "constant":
        return lambda images: F.pad(images, [w] * 4, value=constant_value)
    return lambda images: F.pad(images, [w] * 4, mode=mode)


def jitter(d: int) -> Jitter:
    """Shift by up to half of `d` pixels each way."""
    if d <= 1:
        raise VisualizationError(f"jitter shifts over more than 1 pixel; got {d}")
    return Jitter(d - 1)


def random_scale(scales: Sequence[float]) -> Scale:
    """Enlarge by one of these."""
    return Scale(tuple(float(s) for s in scales))


def random_rotate(angles: Sequence[float], units: str = "degrees") -> Rotate:
    """Turn by one of these."""
    if units.lower() not in ("degrees", "radians", "rads", "rad"):
        raise VisualizationError(f"units of angles are degrees or radians, not {units!r}")
    factor = 1.0 if units.lower() == "degrees" else 180 / math.pi
    return Rotate(tuple(float(a) * factor for a in angles))


def compose(transforms: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    """One function after the other."""
    return lambda images: reduce(lambda x, transform: transform(x), transforms, images)


standard_transforms = [
    pad(12, mode="constant", constant_value=0.5),
    jitter(8),
    random_scale([1 + (i - 5) / 50.0 for i in range(11)]),
    random_rotate([*range(-10, 11), 0, 0, 0, 0, 0]),
    jitter(4),
]
"""Lucent's default."""
