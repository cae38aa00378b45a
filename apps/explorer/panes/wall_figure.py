"""A figure of thumbnails in a grid, each with its name."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.crops import Crop

TILE, GAP, MARGIN = 84, 10, 24


def wall_figure(tiles: Sequence[tuple[str, Crop]], title: str, *, columns: int = 12) -> Figure:
    """Thumbnails in a grid.

    Args:
        tiles: name and crop `(h, w, 3)` of each, in order.
        title: of the figure; columns: how many side by side.
    """
    rows = max(1, -(-len(tiles) // columns))
    step = TILE + 26
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    figure, axes = canvas.page(width, MARGIN + 34 + rows * step)
    canvas.write(axes, MARGIN, MARGIN + 10, title, size=15, bold=True, limit=90)
    for i, (name, crop) in enumerate(tiles):
        x, y = MARGIN + (i % columns) * (TILE + GAP), MARGIN + 30 + (i // columns) * step
        canvas.place_image(axes, crop, x, y, TILE, TILE)
        canvas.write(axes, x, y + TILE + 14, name, size=10.5, color=palette.MUTED, limit=14)
    return figure
