"""A table of small images: rows and columns with names, and measurements under each image."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.crops import Crop
from circuits.plot.visualization.card import why_none
from circuits.visualization.result import Visualization

MARGIN, GAP = 24, 10


@dataclass(frozen=True, eq=False)
class Tile:
    """An image and its measurements.

    Attributes:
        pixels: `(H, W, 3 or 4)` bytes; empty where there is none, which `status` explains.
        lines: below it; the first is in ink, others are muted.
        status: written on an empty tile.
        heading: above it.
    """

    pixels: Crop
    lines: tuple[str, ...] = ()
    status: str = "dead"
    heading: str = ""


def tile_of(result: Visualization, *lines: str, heading: str = "") -> Tile:
    """The tile of a visualization; an empty one for a dead unit."""
    if why_none(result) is not None:
        return Tile(np.zeros((0, 0, 3), np.uint8), lines, result.status, heading)
    return Tile(crops.pixels(result.image, result.channels), lines, heading=heading)


def image_table(
    rows: Sequence[Sequence[Tile | None]],
    *,
    title: str,
    about: str = "",
    names: Sequence[Sequence[str]] = (),
    columns: Sequence[str] = (),
    side: int = 132,
) -> Figure:
    """Images in rows.

    Args:
        rows: tiles, None for a gap.
        title: of the figure; about: a line below it.
        names: lines of text left of each row, the first bold.
        columns: a heading for each column.
        side: pixels of an image.

    Raises:
        CircuitsError: no tiles.
    """
    tiles = [tile for row in rows for tile in row if tile is not None]
    if not tiles:
        raise CircuitsError("there are no images to draw")
    across = max(len(row) for row in rows)
    left = MARGIN + (150 if names else 0)
    above = 20 if any(t.heading for t in tiles) else 0
    below = 15 * max(len(t.lines) for t in tiles) + 14
    top = MARGIN + (46 if about else 26) + (22 if columns else 0)
    width = max(left + across * (side + GAP) - GAP + MARGIN, 560)
    room = int((width - 2 * MARGIN) / 5.9)
    lines = textwrap.wrap(about, room, break_long_words=False, break_on_hyphens=False)
    top += 15 * max(0, len(lines) - 1)
    figure, axes = canvas.page(width, top + len(rows) * (above + side + below) + 8)
    canvas.write(axes, MARGIN, MARGIN + 12, title, size=15, bold=True, limit=max(30, int(room * 0.7)))
    for i, line in enumerate(lines):
        canvas.note(axes, MARGIN, MARGIN + 32 + 15 * i, line, size=11, limit=room + 8)
    for j, column in enumerate(columns):
        canvas.write(axes, left + j * (side + GAP), top - 8, column, size=11.5, bold=True, limit=int(side / 6.4))
    for i, row in enumerate(rows):
        y = top + i * (above + side + below) + above
        for k, line in enumerate(names[i] if i < len(names) else ()):
            canvas.write(axes, MARGIN, y + 16 + 17 * k, line, size=11 if k else 12.5, bold=not k, limit=24,
                         color=palette.MUTED if k else palette.INK)  # fmt: skip
        for j, tile in enumerate(row):
            if tile is not None:
                _draw(axes, tile, left + j * (side + GAP), y, side)
    return figure


def _draw(axes: Axes, tile: Tile, x: float, y: float, side: int) -> None:
    if tile.heading:
        canvas.write(axes, x, y - 6, tile.heading, size=11.5, bold=True, limit=int(side / 6.2))
    if not tile.pixels.size:
        canvas.mark(axes, x, y, side, tile.status)
    else:
        canvas.place_whole(axes, tile.pixels, x, y, side)
    for k, line in enumerate(tile.lines):
        canvas.write(axes, x, y + side + 15 + 15 * k, line, size=10.5, limit=int(side / 5.3),
                     color=palette.MUTED if k else palette.INK)  # fmt: skip
