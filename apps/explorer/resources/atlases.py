"""Finished activation atlases of the store: `STORE/MODEL/atlases/NAME/`, as `circuits atlas --out` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from circuits.activations.atlas import Atlas
from circuits.activations.atlas_store import INDEX, load_atlas
from circuits.errors import CircuitsError, shorten
from circuits.plot.drawing import crops

FOLDER = "atlases"


def names(folder: Path) -> list[str]:
    """Names of the atlases in a model's folder of the store."""
    return sorted(path.parent.name for path in (folder / FOLDER).glob(f"*/{INDEX}"))


def stamp(folder: Path, name: str) -> int:
    """The time of the last change of an atlas's files."""
    return max(path.stat().st_mtime_ns for path in (folder / FOLDER / name).iterdir())


def opened(folder: Path, name: str, weights: str) -> Atlas:
    """A finished atlas of the model's present weights.

    Raises:
        CircuitsError: it is not finished, damaged, or of other weights.
    """
    atlas = load_atlas(folder / FOLDER / name)
    missing = atlas.statuses.count("missing")
    if missing:
        raise CircuitsError(
            f"the atlas {shorten(name, 60)} is not finished: {missing} of its {len(atlas.cells)} icons are missing. "
            "The command that began it goes on"
        )
    if atlas.provenance.get("weights") != weights:
        raise CircuitsError(f"the atlas {shorten(name, 60)} is of other weights of {atlas.model}: make it again")
    return atlas


def sheet(atlas: Atlas) -> tuple[str, int]:
    """All icons side by side as a data URI, and how many stand in a row."""
    side, across = atlas.icons.shape[-1], max(1, int(np.ceil(np.sqrt(len(atlas.cells)))))
    rows = max(1, -(-len(atlas.cells) // across))
    pixels = np.zeros((rows * side, across * side, 3), np.uint8)
    for number, icon in enumerate(atlas.icons):
        y, x = divmod(number, across)
        image = crops.pixels(icon, atlas.icons.shape[1])[..., :3]
        pixels[y * side : (y + 1) * side, x * side : (x + 1) * side] = image
    return crops.data_uri(pixels, photograph=True), across
