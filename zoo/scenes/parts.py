"""Drawing primitives: shapes as polygons, and a canvas that keeps track of which part each pixel shows.

A drawing is a list of `Shape`s in an object's own coordinates (x to the right, y down, about one unit
wide). The canvas paints at twice the size of the image and is averaged down, so edges are
anti-aliased; beside the colors it keeps an id map, so a part's mask is what is *visible* of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Color = tuple[float, float, float]

OVERSAMPLING = 2
_SUBPIXEL_BITS = 4
KEEP, ERASE = -1, 0
"""What a shape without a part does to the id map: a detail keeps the part below, an occluder erases it."""


@dataclass(frozen=True)
class Shape:
    """One filled polygon of an object.

    Attributes:
        points: `(n, 2)` corners (x, y).
        color: RGB in [0, 1].
        group: shapes that move together when an arrangement is changed, e.g. "wheels".
        part: name of the part that this polygon outlines, or None for a detail painted on top of one.
        instance: tells the parts of one name apart (the left wheel and the right wheel).
        shade: how much lighter the top is than the bottom, in [-1, 1].
        erases: a shape without a part that hides the parts below it (otherwise it is a detail of them).
    """

    points: Floats
    color: Color
    group: str
    part: str | None = None
    instance: int = 0
    shade: float = 0.25
    erases: bool = False

    def moved(self, dx: float, dy: float) -> Shape:
        """The same shape elsewhere."""
        return replace(self, points=self.points + np.array([dx, dy], dtype=np.float32))


def polygon(*corners: tuple[float, float]) -> Floats:
    """Corners `(x, y), ...` as an array `(n, 2)`."""
    return np.array(corners, dtype=np.float32)


def ellipse(x: float, y: float, rx: float, ry: float | None = None, corners: int = 26) -> Floats:
    """An ellipse around (x, y), `(corners, 2)`."""
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False, dtype=np.float32)
    return np.stack([x + rx * np.cos(t), y + (rx if ry is None else ry) * np.sin(t)], axis=1).astype(np.float32)


def rectangle(left: float, top: float, right: float, bottom: float) -> Floats:
    """A rectangle, `(4, 2)`."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Floats:
    """A rectangle with round corners, `(24, 2)`."""
    radius = min(radius, (right - left) / 2, (bottom - top) / 2)
    corners = []
    centers = [(right - radius, bottom - radius), (left + radius, bottom - radius)]
    centers += [(left + radius, top + radius), (right - radius, top + radius)]
    for quarter, (cx, cy) in enumerate(centers):
        t = np.linspace(quarter, quarter + 1, 6, dtype=np.float32) * np.pi / 2
        corners.append(np.stack([cx + radius * np.cos(t), cy + radius * np.sin(t)], axis=1))
    return np.concatenate(corners).astype(np.float32)


def stroke(x0: float, y0: float, x1: float, y1: float, width: float) -> Floats:
    """A straight line of the given width, as a polygon `(4, 2)`."""
    direction = np.array([x1 - x0, y1 - y0], dtype=np.float32)
    normal = np.array([-direction[1], direction[0]]) / (np.linalg.norm(direction) + 1e-6) * width / 2
    a, b = np.array([x0, y0]), np.array([x1, y1])
    return np.stack([a + normal, b + normal, b - normal, a - normal]).astype(np.float32)


def ribbon(center: Sequence[tuple[float, float]], width: float, taper: float = 1.0) -> Floats:
    """A bent stroke through the points `center`, its end `taper` times as wide as its start."""
    line = np.array(center, dtype=np.float32)
    tangent = np.gradient(line, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    half = np.linspace(width / 2, width / 2 * taper, len(line), dtype=np.float32)[:, None]
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]]).astype(np.float32)


def blob(rng: np.random.Generator, x: float, y: float, radius: float, roughness: float = 0.2) -> Floats:
    """A round shape with a wavy outline, `(30, 2)`."""
    t = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    outline = np.ones_like(t)
    for frequency in (2, 3, 5, 7):
        outline += roughness / 2 * rng.uniform(-1, 1) * np.cos(frequency * t + rng.uniform(0, 2 * np.pi))
    return np.stack([x + radius * outline * np.cos(t), y + radius * outline * np.sin(t)], axis=1).astype(np.float32)


def color(rng: np.random.Generator, hue: tuple[float, float] = (0.0, 1.0),
           saturation: tuple[float, float] = (0.3, 0.95),
           value: tuple[float, float] = (0.35, 0.95)) -> Color:  # fmt: skip
    """A random RGB color from ranges of hue, saturation and value in [0, 1] (hue wraps around)."""
    h = float(rng.uniform(*hue)) % 1.0 * 6.0
    s, v = float(rng.uniform(*saturation)), float(rng.uniform(*value))
    f = h - int(h)
    p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
    sextants: tuple[Color, ...] = ((v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q))
    return sextants[int(h) % 6]


def darker(base: Color, factor: float) -> Color:
    """`base` times `factor`, at most 1."""
    return (min(1.0, base[0] * factor), min(1.0, base[1] * factor), min(1.0, base[2] * factor))


class Canvas:
    """A square image being painted, with the id of the part seen at each pixel.

    Args:
        size: side of the finished image in pixels.
        background: `(2 * size, 2 * size, 3)` colors in [0, 1].
    """

    def __init__(self, size: int, background: Floats) -> None:
        self.size = size
        self.pixels = background.astype(np.float32, copy=True)
        self.ids = np.zeros(background.shape[:2], dtype=np.int16)

    def paint(self, points: Floats, rgb: Color, *, identity: int = KEEP, shade: float = 0.25) -> None:
        """Fill a polygon given in pixels of the finished image.

        Args:
            points: `(n, 2)` corners.
            rgb: color in [0, 1].
            identity: a part's id (> 0), `KEEP` or `ERASE`.
            shade: lightness of the top relative to the bottom.
        """
        side = self.size * OVERSAMPLING
        fine = points * OVERSAMPLING - 0.5
        left, top = np.maximum(np.floor(fine.min(axis=0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(fine.max(axis=0)).astype(int) + 2, side)
        if right - left < 1 or bottom - top < 1:
            return
        cover = np.zeros((bottom - top, right - left), dtype=np.uint8)
        corners = np.round((fine - (left, top)) * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(cover, [corners], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        light = np.linspace(1 + shade / 2, 1 - shade / 2, bottom - top, dtype=np.float32)[:, None, None]
        alpha = (cover.astype(np.float32) / 255)[:, :, None]
        region = self.pixels[top:bottom, left:right]
        region += alpha * (np.array(rgb, dtype=np.float32) * light - region)
        if identity != KEEP:
            self.ids[top:bottom, left:right][cover > 127] = identity

    def finish(self) -> Floats:
        """The image averaged down, `(size, size, 3)`."""
        return cv2.resize(self.pixels, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32)

    def mask(self, identity: int) -> npt.NDArray[np.bool_]:
        """Where at least half of a pixel shows the part, `(size, size)`."""
        seen = (self.ids == identity).reshape(self.size, OVERSAMPLING, self.size, OVERSAMPLING)
        mask: npt.NDArray[np.bool_] = seen.sum(axis=(1, 3)) * 2 >= OVERSAMPLING**2
        return mask
