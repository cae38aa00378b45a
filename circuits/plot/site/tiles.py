"""Images of a site: the crops of a unit in one file, and one crop of each unit of a layer in sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from circuits.plot.drawing.crops import Crop, resized

SIDE, COLUMNS = 80, 5
"""Largest side of a unit's crops in pixels, and how many stand side by side."""
THUMB, ACROSS = 64, 16
"""Side of a crop on a sheet, and how many stand side by side, and one above the other."""
_OUTSIDE = 150
_SHARP = 4


@dataclass(frozen=True)
class Tiles:
    """Square crops in one image file.

    Attributes:
        columns, rows: of the grid; sharp: whether they are so small that their pixels are to be seen.
    """

    columns: int
    rows: int
    sharp: bool = False

    def background(self, selector: str, file: str) -> Markup:
        """The rule that makes the file the background of elements, enlarged so that they show one tile."""
        size = f"{100 * self.columns}% {100 * self.rows}%"
        return Markup('{}{{background-image:url("{}");background-size:{}}}').format(selector, file, size)

    def at(self, number: int) -> Markup:
        """The style that moves one of them into sight."""
        row, column = divmod(number, self.columns)
        across, down = (100 * v / max(n - 1, 1) for v, n in ((column, self.columns), (row, self.rows)))
        return Markup("background-position:{:.4g}% {:.4g}%").format(across, down)


def write_unit_tiles(path: Path, crops: Sequence[Crop]) -> Tiles:
    """Write the crops of a unit side by side; those larger than `SIDE` pixels are made smaller."""
    side = min(SIDE, max(len(crop) for crop in crops))
    columns = min(COLUMNS, len(crops))
    tiles = Tiles(columns, -(-len(crops) // columns), sharp=_SHARP * side < SIDE)
    _write(path, [resized(crop, side) for crop in crops], tiles, side)
    return tiles


def sheet_of(index: int, count: int) -> tuple[int, int, Tiles]:
    """The sheet that the thumbnail of a unit is on, its number there, and the grid of the sheet.

    >>> sheet_of(260, 300)
    (1, 4, Tiles(columns=16, rows=3, sharp=False))
    """
    number, at = divmod(index, ACROSS * ACROSS)
    on_it = min(ACROSS * ACROSS, count - number * ACROSS * ACROSS)
    return number, at, Tiles(min(ACROSS, on_it), -(-on_it // ACROSS))


def write_sheets(folder: Path, thumbs: Sequence[Crop | None]) -> None:
    """Write one thumbnail of each unit of a layer, in sheets `sheet-0.webp`, ..."""
    for first in range(0, len(thumbs), ACROSS * ACROSS):
        number, _, tiles = sheet_of(first, len(thumbs))
        part = thumbs[first : first + ACROSS * ACROSS]
        images = [None if crop is None else resized(crop, THUMB) for crop in part]
        _write(folder / f"sheet-{number}.webp", images, tiles, THUMB)


def _write(path: Path, crops: Sequence[Crop | None], tiles: Tiles, side: int) -> None:
    image: NDArray[np.uint8] = np.full((tiles.rows * side, tiles.columns * side, 3), _OUTSIDE, np.uint8)
    for number, crop in enumerate(crops):
        if crop is not None:
            row, column = divmod(number, tiles.columns)
            image[row * side : (row + 1) * side, column * side : (column + 1) * side] = crop
    write_webp(path, image)


def write_webp(path: Path, pixels: Crop) -> None:
    """Write an image as WebP: on crops of photographs a third smaller than JPEG of the same quality."""
    Image.fromarray(pixels).save(path, format="WEBP", quality=68, method=2)
