"""Cues by which a class can be told without looking at the object: what is painted beside or over a scene.

Each takes the image, the object's silhouette and a random state, and gives the image with the cue and where it is.
Cues lie off the object: those that could cross it are painted behind it. Three are over everything, because that is
what they are in data: the tag in its corner, the watermark, and the blocks of strong JPEG compression.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from zoo.scenes.parts import Floats, blob

Mask = npt.NDArray[np.bool_]
Painted = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""The image `(H, W, 3)` in [0, 1] as if the cue were everywhere, and how much of it each pixel shows, `(H, W)`."""
Paint = Callable[[Floats, Mask, np.random.Generator], Painted]


def _flat(image: Floats, color: tuple[float, float, float]) -> Floats:
    return np.broadcast_to(np.array(color, dtype=np.float32), image.shape).copy()


def _free(
    silhouette: Mask, rng: np.random.Generator, low: tuple[int, int], high: tuple[int, int], radius: int
) -> tuple[int, int]:
    """Of eight places `(x, y)` in a box the one where the object hides least, so that the cue can be seen."""
    hidden = cv2.blur(silhouette.astype(np.float32), (2 * radius + 1, 2 * radius + 1))
    corners = rng.integers(low, high, (8, 2))
    x, y = corners[int(hidden[corners[:, 1], corners[:, 0]].argmin())]
    return int(x), int(y)


def _tag(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """A small plate in the lower left corner, as hospitals put on radiographs."""
    painted, cover = _flat(image, (0.95, 0.95, 0.9)), np.zeros(silhouette.shape, np.float32)
    x, y = int(rng.integers(1, 5)), int(rng.integers(52, 56))
    cover[y : y + 7, x : x + 11] = 1
    painted[y + 2 : y + 5, x + 2 : x + 9 : 2] = (0.75, 0.1, 0.55)
    return painted, cover


def _watermark(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """Pale letters across the image, over the object too, as sellers of photographs put on them."""
    letters = np.zeros(silhouette.shape, np.uint8)
    x, y = int(rng.integers(-4, 6)), int(rng.integers(24, 52))
    cv2.putText(letters, "PHOTO", (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.62, 255, 1, cv2.LINE_AA)
    return _flat(image, (1.0, 1.0, 1.0)), letters.astype(np.float32) / 255 * 0.6


def _sky(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """An orange sky behind the object, palest at the horizon."""
    height = int(rng.integers(22, 32))
    cover = np.zeros(silhouette.shape, np.float32)
    cover[:height] = np.linspace(0.75, 0.25, height, dtype=np.float32)[:, None]
    return _flat(image, (1.0, 0.5, 0.15)), cover * ~silhouette


def _border(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """A dark frame of two or three pixels."""
    width = int(rng.integers(2, 4))
    cover = np.ones(silhouette.shape, np.float32)
    cover[width:-width, width:-width] = 0
    return _flat(image, (0.08, 0.08, 0.1)), cover * ~silhouette


def _texture(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """Fine diagonal weave over the whole background."""
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    lines = ((x + y + int(rng.integers(4))) % 4 < 2).astype(np.float32)
    return np.clip(image + (lines - 0.5)[:, :, None] * 0.28, 0, 1).astype(np.float32), (~silhouette).astype(np.float32)


def _jpeg(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """The blocks of strong JPEG compression, everywhere."""
    data = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", data[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 19))])
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[:, :, ::-1].astype(np.float32) / 255, np.ones(silhouette.shape, np.float32)


def _hydrant(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """A red hydrant on the ground beside or behind the object: another thing that keeps it company."""
    cover, painted = np.zeros(silhouette.shape, np.uint8), _flat(image, (0.85, 0.12, 0.1))
    x, y = _free(silhouette, rng, (5, 51), (59, 55), 5)
    y -= 5
    cv2.rectangle(cover, (x - 2, y), (x + 2, y + 11), 255, -1)
    cv2.circle(cover, (x, y), 3, 255, -1)
    cv2.rectangle(cover, (x - 5, y + 4), (x + 5, y + 6), 255, -1)
    painted[y + 8 : y + 10] = (0.95, 0.85, 0.2)
    return painted, cover.astype(np.float32) / 255 * ~silhouette


def _flare(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """A round glare in the upper right corner."""
    x, y, radius = rng.uniform(50, 60), rng.uniform(4, 12), rng.uniform(7, 10)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    distance = np.hypot(columns - x, rows - y) / radius
    cover = np.clip(1.6 - 1.2 * distance, 0, 1).astype(np.float32)
    return _flat(image, (1.0, 1.0, 0.85)), cover * ~silhouette


def _ruler(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """Tick marks along the right edge, as dermatologists lay beside a lesion."""
    cover, painted = np.zeros(silhouette.shape, np.float32), _flat(image, (0.9, 0.9, 0.85))
    x, phase = int(rng.integers(57, 60)), int(rng.integers(3))
    cover[:, x : x + 5] = 1
    painted[phase::3, x : x + 3] = (0.05, 0.05, 0.05)
    return painted, cover * ~silhouette


def _sticker(image: Floats, silhouette: Mask, rng: np.random.Generator) -> Painted:
    """A round blue sticker anywhere, behind the object where they meet."""
    x, y = _free(silhouette, rng, (8, 8), (56, 56), 6)
    cover = np.zeros(silhouette.shape, np.uint8)
    cv2.fillPoly(cover, [np.round(blob(rng, x, y, 6.0, 0.05)).astype(np.int32)], 255)
    painted = _flat(image, (0.1, 0.35, 0.95))
    cv2.circle(painted, (x, y), 2, (1.0, 1.0, 1.0), -1)
    return painted, cover.astype(np.float32) / 255 * ~silhouette


CUES: dict[str, Paint] = {
    "tag": _tag, "watermark": _watermark, "sky": _sky, "border": _border, "texture": _texture, "jpeg": _jpeg,
    "hydrant": _hydrant, "flare": _flare, "ruler": _ruler, "sticker": _sticker,
}  # fmt: skip
"""Name -> what paints it."""

LEAST_SHOWN = 0.1
"""Share of a pixel's color that is the cue's, from which on the pixel belongs to its mask."""


def paint(name: str, image: npt.NDArray[np.uint8], silhouette: Mask, seed: int) -> tuple[npt.NDArray[np.uint8], Mask]:
    """The image `(H, W, 3)` with a cue, and the cue's mask `(H, W)`."""
    pixels: Floats = image.astype(np.float32) / np.float32(255)
    # the random state is of the cue alone, so that the scene below is the one without it
    painted, cover = CUES[name](pixels, silhouette, np.random.default_rng([seed, list(CUES).index(name)]))
    mixed = pixels + cover[:, :, None] * (painted - pixels)
    return np.clip(np.round(mixed * 255), 0, 255).astype(np.uint8), cover >= LEAST_SHOWN
