"""Heat maps over their images, beside those of an untrained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from circuits.attribution.heatmaps import Heatmap
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import minus, number, titled
from zoo.common.files import write_atomically

_OPAQUE = 0.9
"""Of the strongest pixels of a map over its image, which stays visible."""
CLIPPED = 0.99
"""Pixels of a larger size than this share of a map's are drawn like it: a few outliers, which maps of gradients have,
would leave all else pale (Sundararajan et al. 2017 and captum clip there, too)."""
_MOST = 8


def overlay(heat: Any, image: Any, path: str | Path | None = None) -> NDArray[np.uint8]:
    """A signed map over its image in light gray: orange above zero, blue below, the stronger the more opaque.

    The 99th percentile of the sizes of what is not zero is as opaque as it gets.

    Args:
        heat: `(h, w)`; a smaller map than the image is enlarged by whole cells.
        image: `(C, H, W)` in [0, 1].
        path: PNG to write.

    Returns:
        `(H, W, 3)` uint8.
    """
    pixels = crops.pixels(image, len(image))[..., :3].astype(np.float32)
    gray = np.repeat(70 + pixels.mean(axis=2, keepdims=True) * 0.7, 3, axis=2)
    values = np.asarray(heat, dtype=np.float32)
    rows, columns = (np.arange(n) * m // n for n, m in zip(gray.shape[:2], values.shape, strict=True))
    values = values[rows][:, columns]
    sizes = np.abs(values[values != 0])
    share = np.clip(values / (float(np.quantile(sizes, CLIPPED)) if sizes.size else 1.0), -1, 1)
    opacity = (np.abs(share) * _OPAQUE)[..., None]
    color = palette.encode(np.where(share < 0, -1.0, 1.0), 1.0).astype(np.float32)
    laid = np.asarray(np.rint(gray * (1 - opacity) + color * opacity), dtype=np.uint8)
    if path is not None:
        write_atomically(Path(path), lambda temporary: Image.fromarray(laid).save(temporary, format="PNG"))
    return laid


def heatmap_figure(result: Heatmap, *, label: str | None = None) -> Figure:
    """Each image, its heat map, and the map of the untrained network: at most 8 images.

    Args:
        result: of `circuits.heatmap`.
        label: what the target is, such as the name of a class.
    """
    rows, side = min(len(result.ids), _MOST), 176
    columns = 2 if result.untrained is None else 3
    figure, axes = canvas.page(48 + max(columns * (side + 14), 520), 96 + rows * (side + 42))
    method = result.method + (f" at {result.layer}" if result.layer else "")
    more = f"; {rows} of {len(result.ids)} images" if len(result.ids) > rows else ""
    about = f"orange for it, blue against it, full color from the {100 * CLIPPED:g}th percentile of each map on{more}"
    canvas.heading(axes, f"{titled(result.target, label)}: {method}", about, limit=60, room=110)
    for i in range(rows):
        y = 84 + i * (side + 42)
        canvas.place_whole(axes, crops.pixels(result.images[i], len(result.images[i]))[..., :3], 24, y, side)
        canvas.note(axes, 24, y + side + 16, result.ids[i], size=10.5, limit=28)
        maps: list[tuple[Tensor, str]] = [(result.maps[i], f"response {number(float(result.response[i]))}")]
        if result.untrained is not None and result.similarity is not None:
            like = result.similarity[i]
            text = "the same everywhere" if like is None else f"correlation {minus(f'{like:.2f}')}"
            maps.append((result.untrained[i], f"untrained: {text}"))
        for k, (heat, text) in enumerate(maps):
            x = 24 + (k + 1) * (side + 14)
            canvas.place_whole(axes, overlay(heat, result.images[i]), x, y, side)
            canvas.note(axes, x, y + side + 16, text, size=10.5, limit=32)
    return figure
