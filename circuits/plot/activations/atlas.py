"""An activation atlas as a picture, and as a page whose cells tell what is in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.activations.atlas import Atlas, Cell
from circuits.activations.layout import Likeness
from circuits.plot.drawing import canvas, html_page, palette
from circuits.plot.drawing import crops as pictures
from circuits.plot.drawing.svg import escape
from circuits.plot.drawing.wording import minus, short
from circuits.plot.visualization.modes import mark
from zoo.images.sources import Source, open_images
from zoo.inputs import InputSpec

MARGIN = 24
_SMALLEST = 0.45  # side of the icon of a cell with hardly any samples, as a share of the fullest's

WHAT = {
    "samples": "samples and the nearest of another picture, cosine",
    "cells": "directions of cells side by side, cosine",
    "classes": "class pushes of cells side by side, cosine",
    "labels": "samples whose nearest of another picture has their label, share",
}


def atlas_figure(atlas: Atlas, *, tile: int = 64, density: bool = True, labels: bool = False) -> Figure:
    """The atlas as one picture: an icon for each cell, where it lies.

    Args:
        atlas: of `circuits.activation_atlas`.
        tile: pixels of a cell.
        density: draw cells the smaller the fewer samples they hold: the area goes with the logarithm of their number.
        labels: write the class that each cell pushes most under its icon.
    """
    row = tile + (14 if labels else 0)
    width, height = atlas.grid * tile, atlas.grid * row
    figure, axes = canvas.page(max(2 * MARGIN + width, 560), MARGIN + 50 + height + 68)
    room = int((max(2 * MARGIN + width, 560) - 2 * MARGIN) / 5.8)
    count = len(np.unique(atlas.images))
    about = f"{len(atlas.xy)} activation vectors of {count} pictures, averaged over a {atlas.grid}×{atlas.grid} grid"
    canvas.write(axes, MARGIN, MARGIN + 12, f"Atlas of {atlas.layer} in {atlas.model}", size=15, bold=True, limit=60)
    canvas.write(axes, MARGIN, MARGIN + 32, about, size=11, color=palette.MUTED, limit=room)
    top = MARGIN + 46
    scale = sizes(atlas) if density else np.ones(len(atlas.cells))
    for i, cell in enumerate(atlas.cells):
        side = tile * float(scale[i]) * 0.97
        x = MARGIN + cell.column * tile + (tile - side) / 2
        y = top + cell.row * row + (tile - side) / 2
        if atlas.statuses[i] != "ok":
            mark(axes, x, y, side, atlas.statuses[i])
        else:
            canvas.place_image(axes, pictures.pixels(atlas.icons[i], atlas.icons.shape[1]), x, y, side, side)
        if labels and cell.labels:
            name, at = cell.labels[0][0].split(",")[0], MARGIN + (cell.column + 0.5) * tile
            limit = max(4, int(tile / 5))
            canvas.write(axes, at, top + cell.row * row + tile + 9, name, size=8.5, align="center", limit=limit)
    below = ["size: how many samples lie in a cell"] if density else []
    below += [_said(one) for one in atlas.likeness if one.what in _SAID]
    for i, text in enumerate(below):
        canvas.write(axes, MARGIN, top + height + 18 + 17 * i, text, size=11, color=palette.MUTED, limit=room)
    return figure


def sizes(atlas: Atlas) -> NDArray[np.float64]:
    """Side of each cell's icon as a share of the largest, in [0.45, 1]: areas go with logarithms of counts."""
    counts = np.log1p(np.array([c.count for c in atlas.cells], dtype=np.float64))
    share = counts / max(float(counts.max(initial=0.0)), 1e-12)
    return np.asarray(np.maximum(_SMALLEST, np.sqrt(share)))


_SAID = {"cells": "cells side by side are alike by", "classes": "the classes that they push are alike by"}


def _said(one: Likeness) -> str:
    shuffled = "" if one.shuffled is None else f"; in shuffled data {one.shuffled:.2f}"
    return minus(f"{_SAID[one.what]} {one.neighbors:.2f} (any two {one.random:.2f}{shuffled})")


def atlas_page(
    atlas: Atlas, *, command: str, python: str, photographs: Mapping[int, Sequence[pictures.Crop]] | None = None
) -> str:
    """The atlas as one self-contained HTML page, light and dark: point at a cell, or tab to it, to see what it holds.

    Args:
        atlas: of `circuits.activation_atlas`.
        command: the shell command that makes it again.
        python: the Python that does.
        photographs: cell number (its place in `atlas.cells`) -> crops of its examples.
    """
    found = photographs or {}
    count = len(np.unique(atlas.images))
    name = f'{escape(atlas.layer)} <span class="address">{escape(atlas.model)}</span>'
    facts = [
        ("pictures", count),
        ("samples", len(atlas.xy)),
        ("grid", f"{atlas.grid}×{atlas.grid}"),
        ("cells shown", len(atlas.cells)),
        ("samples shown", f"{sum(c.count for c in atlas.cells) / len(atlas.xy):.0%}"),
        ("icons", f"{atlas.settings['size']} pixels, {atlas.settings['steps']} steps"),
    ]
    lead = (
        "What this layer can say: activation vectors of many pictures, laid out so that what is alike lies together. "
        "Each icon shows the mean vector of its cell. Point at one, or tap it, for what is in it."
    )
    scale = sizes(atlas)
    cells = "".join(_cell(atlas, i, c, float(scale[i]), found.get(i, ())) for i, c in enumerate(atlas.cells))
    body = "".join(
        [
            f'<header><p class="eyebrow">Activation atlas</p><h1>{name}</h1><p class="lead">{escape(lead)}</p>',
            f"{html_page.facts(facts)}</header>",
            f'<section class="atlas" style="--grid:{atlas.grid}"><div class="board">{cells}</div>',
            '<aside class="hint">Point at an icon.</aside></section>',
            _likeness(atlas),
            html_page.again(command, python),
            html_page.origins(dict(atlas.provenance)),
        ]
    )
    return html_page.page(f"Atlas of {atlas.layer} in {atlas.model}", body, html_page.style("atlas.css"))


def _cell(atlas: Atlas, i: int, cell: Cell, scale: float, crops: Sequence[pictures.Crop]) -> str:
    where = f"row {cell.row + 1}, column {cell.column + 1}"
    if atlas.statuses[i] == "ok":
        pixels = pictures.pixels(atlas.icons[i], atlas.icons.shape[1])
        uri = pictures.data_uri(np.ascontiguousarray(pixels), photograph=True)
        # the picture is held once, as the style of its cell, and shown twice
        held, icon = f"--icon:url({uri})", '<i class="icon"></i>'
    else:
        held, icon = "", f'<i class="icon none">{escape(atlas.statuses[i])}</i>'
    place = f"grid-row:{cell.row + 1};grid-column:{cell.column + 1};--scale:{scale:.3f};{held}"
    return (
        f'<div class="cell" id="cell-{cell.row}-{cell.column}" tabindex="0" style="{place}" '
        f'aria-label="{where}: {cell.count} samples">{icon}{_panel(cell, where, icon, crops)}</div>'
    )


def _panel(cell: Cell, where: str, icon: str, crops: Sequence[pictures.Crop]) -> str:
    units = "".join(
        f'<tr><td class="address">{escape(short(u))}</td><td class="value">{minus(f"{s:+.1f}")}</td></tr>'
        for u, s in cell.units
    )
    labels = "".join(
        f'<tr><td>{escape(n)}</td><td class="value">{minus(f"{p:+.2f}")}</td></tr>' for n, p in cell.labels
    )
    shown = "".join(
        f'<img src="{pictures.data_uri(pictures.resized(c, pictures.embedded(c, 72)), photograph=True)}" alt="">'
        for c in crops
    )
    return (
        f'<aside class="panel"><div class="head">{icon}<p><b>{where}</b><br>{cell.count} samples</p></div>'
        + (f'<h4>Where it was sampled</h4><div class="found">{shown}</div>' if shown else "")
        + f"<h4>Units, in standard deviations above their means</h4><table>{units}</table>"
        + (f"<h4>Classes pushed, above the mean of all cells</h4><table>{labels}</table>" if labels else "")
        + "</aside>"
    )


def _likeness(atlas: Atlas) -> str:
    rows = "".join(
        f"<tr><td>{escape(WHAT.get(one.what, one.what))}</td>"
        + "".join(f'<td class="value">{_number(v)}</td>' for v in (one.neighbors, one.random, one.shuffled))
        + f'<td class="value">{one.pairs}</td></tr>'
        for one in atlas.likeness
    )
    note = (
        "Cosines are about the mean. Any two: of different pictures, or cells. Shuffled: neighbors again, when each "
        "channel's values are dealt out anew and laid out anew. A layout puts what is alike together, so that "
        "neighbors are alike is in part its own doing: the shuffled column says how far. What they push is computed "
        "from their directions, labels of pictures are not."
    )
    head = "".join(f'<th class="value">{n}</th>' for n in ("neighbors", "any two", "shuffled", "pairs"))
    return (
        f'<h2>Are neighbors alike?</h2><table class="likeness"><tr><th></th>{head}</tr>{rows}</table>'
        f'<p class="note">{note}</p>'
    )


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else minus(f"{value:.2f}")


def example_crops(atlas: Atlas, images: Source, spec: InputSpec, n: int = 4) -> dict[int, list[pictures.Crop]]:
    """The receptive fields that a cell's examples were sampled at: cell number -> crops, as `atlas_page` takes them.

    Args:
        atlas: of `circuits.activation_atlas`.
        images: the pictures it was made of.
        spec: the model's input.
        n: at most so many a cell.

    Raises:
        CircuitsError: these are not the pictures that the atlas was made of.
    """
    shown = {str(i): cell.examples[:n] for i, cell in enumerate(atlas.cells)}
    found = pictures.cut_examples(shown, open_images(images), spec)
    return {int(i): crops for i, crops in found.items()}
