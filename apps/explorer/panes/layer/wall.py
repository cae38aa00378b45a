"""The units of a layer as tiles: their images, labels and notes; and a figure of thumbnails in a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from apps.explorer import page_frame
from apps.explorer.components.gallery import tile
from apps.explorer.panes.unit.polysemanticity import stored_rows
from apps.explorer.resources import layer_polysemanticity
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.dataset.scan_results import LayerScan
from circuits.network.address import Unit
from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.crops import Crop
from circuits.units.polysemanticity import polysemantic

TILE, GAP, MARGIN = 84, 10, 24
TILES = {"example": "Top activating image", "four": "Four images", "visualization": "Feature visualization"}


def labels_of(at: Location) -> dict[int, str]:
    """Labels of the layer's units, or names of its classes, by number."""
    units = {Unit.parse(address): label for address, label in state.names_of(at).items()}
    return {unit.index or 0: label for unit, label in units.items() if unit.space == at.unit.space}


def polysemanticity(at: Location, scanned: LayerScan) -> Mapping[int, float] | None:
    """Scores of the layer's units by number, of those with enough top activating images; None while they are computed.

    Raises:
        CircuitsError: no unit has enough, or the layer's input is the image.
    """
    if known := stored_rows(at):
        return {Unit.parse(unit).index or 0: row.score for unit, row in known.items()}
    examples = layer_polysemanticity.examples_of(at.model, at.scanned, at.unit.space)
    model, images = at.model, state.images_of(at)
    rows = page_frame.background_result(
        ("layer polysemanticity", model.digest, at.scanned.manifest["digest"], str(at.unit)),
        f"clustering the top activating images of {len(examples)} units by contributions",
        lambda report: polysemantic(model, list(examples), images=images, examples=examples, progress=report).rows,
        model=model,
    )
    return None if rows is None else {Unit.parse(row.unit).index or 0: row.score for row in rows}


def tiles(
    at: Location, visible: Sequence[int], notes: Sequence[str], labels: Mapping[int, str], kind: str
) -> list[dict[str, Any]]:
    """Tiles of units.

    Args:
        at: the layer; visible: numbers of units; notes: of all units, by number; labels: by number.
        kind: one of `TILES`.
    """
    thumbs = state.thumbs_of(at, at.unit.space, 4 if kind == "four" else 1) or ()
    visualizations = state.visualizations_of(at) if kind == "visualization" else {}
    result = []
    for index in visible:
        unit = str(replace(at.unit, index=index))
        src = thumbs[index] if index < len(thumbs) else None
        if kind == "visualization":
            results = sorted(visualizations.get(unit, ()), key=lambda item: item.kind != "positive")
            src = state.visualization_uri(results[0]) if results else None
        name = labels.get(index, "")
        missing = "not visualized yet" if kind == "visualization" else "never active" if thumbs else "…"
        note = " ".join(part for part in (f":{index}" if name else "", notes[index]) if part)
        alt = f"{at.unit.space}:{index} {name}" if src else missing
        result.append(tile(unit, src, alt=alt, name=name or f":{index}", note=note))
    return result


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
