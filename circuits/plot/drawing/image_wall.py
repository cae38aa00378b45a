"""Walls of small images: layers in rows, first kernels, and a unit's incoming and outgoing weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.errors import CircuitsError
from circuits.plot.circuit.graph import NO_CROPS
from circuits.plot.circuit.kernels import draw_unit
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import edge_effect, minus, number, short
from circuits.tracing.circuit import Edge

MARGIN, GAP = 24, 8


def layer_rows(
    rows: Mapping[str, Sequence[str]],
    images: crops.Crops,
    *,
    notes: Mapping[str, str] | None = None,
    title: str = "",
    about: str = "",
) -> Figure:
    """A row for each layer: its name, and images of some of its units.

    Args:
        rows: layer -> addresses of units.
        images: unit -> crops, of which the first is shown.
        notes: layer -> a line below its name.
        title: what they are; about: a line below it.

    Raises:
        CircuitsError: no rows.
    """
    if not rows:
        raise CircuitsError("there are no layers to draw")
    tile, left, head, step = 92.0, 170.0, 76.0, 92.0 + 30.0
    most = max(len(units) for units in rows.values())
    width = max(left + most * (tile + GAP) + MARGIN, 640)
    figure, axes = canvas.page(width, head + len(rows) * step + 8)
    canvas.heading(axes, title, about, limit=90, room=int(width / 6), y=32)
    for i, (layer, units) in enumerate(rows.items()):
        y = head + i * step
        canvas.write(axes, MARGIN, y + tile / 2 - 4, layer, size=13, bold=True, limit=18)
        canvas.note(axes, MARGIN, y + tile / 2 + 14, (notes or {}).get(layer, ""), size=10.5,
                     limit=26)  # fmt: skip
        for j, unit in enumerate(units):
            x = left + j * (tile + GAP)
            draw_unit(axes, unit, images, x, y, tile=int(tile))
            text = f":{unit.rpartition(':')[2]}"
            canvas.note(axes, x, y + tile + 14, text, size=10.5, mono=True)
    return figure


def kernel_wall(
    kernels: NDArray[np.float32],
    names: Sequence[str],
    *,
    notes: Sequence[str] = (),
    columns: int = 12,
    title: str = "",
    about: str = "",
) -> Figure:
    """Kernels over input channels, each as a small image: gray is zero, the largest weight of each is full contrast.

    Args:
        kernels: `(units, channels, kh, kw)`; of three channels in color, of others their mean.
        names: one for each; notes: one for each, below it.
        columns: kernels side by side.
        title: what they are; about: a line below it.
    """
    values = np.asarray(kernels, dtype=np.float64)
    columns = max(1, min(columns, len(values)))
    tile, head, step = 66.0, 76.0, 66.0 + (36.0 if notes else 24.0)
    rows = -(-len(values) // columns)
    width = max(2 * MARGIN + columns * (tile + GAP) - GAP, 560)
    figure, axes = canvas.page(width, head + rows * step + 10)
    canvas.heading(axes, title, about, limit=int(width / 9), room=int(width / 6), y=32)
    for i, kernel in enumerate(values):
        x, y = MARGIN + (i % columns) * (tile + GAP), head + (i // columns) * step
        largest = float(np.abs(kernel).max()) or 1.0
        canvas.place_image(axes, crops.pixels(0.5 + kernel / (2 * largest), len(kernel)), x, y, tile, tile,
                           sharp=True)  # fmt: skip
        canvas.write(axes, x, y + tile + 13, names[i], size=10.5, mono=True, limit=9)
        if notes:
            canvas.note(axes, x, y + tile + 25, notes[i], size=9.5, limit=13)
    return figure


def weights_page(
    unit: str,
    inputs: Sequence[Edge],
    outputs: Sequence[Edge],
    images: crops.Crops = NO_CROPS,
    *,
    title: str = "",
    about: Sequence[str] = ("", ""),
) -> Figure:
    """The weights page of a unit: incoming and outgoing weights, each unit beside its kernel, strongest first.

    Args:
        unit: address.
        inputs, outputs: edges into and out of it, in the order given.
        images: unit -> crops: four of each are shown.
        title: default the unit's address.
        about: a line for the inputs, one for the outputs.
    """
    columns, tile, wide, step = 5, 64.0, 64.0 * 2 + 22.0, 64.0 + 44.0
    sections = [part for part in (("incoming", inputs, about[0]), ("outgoing", outputs, about[1])) if part[1]]
    rows = sum(-(-len(edges) // columns) for _, edges, _ in sections)
    head = 148.0
    width = max(2 * MARGIN + columns * (wide + 18) - 18, 640)
    figure, axes = canvas.page(width, head + rows * step + len(sections) * 44)
    draw_unit(axes, unit, images, MARGIN, MARGIN, columns=2, rows=2, tile=46)
    canvas.write(axes, MARGIN + 116, MARGIN + 26, title or short(unit), size=17, bold=True, limit=60)
    y = head
    for name, edges, note in sections:
        canvas.write(axes, MARGIN, y, name, size=13, bold=True)
        canvas.note(axes, MARGIN + 78, y, note, size=11, limit=int((width - 380) / 5.6))
        scale = palette.shared_scale(e.kernel for e in edges)
        canvas.color_bar(axes, width - 250, y - 9, scale, "weight")
        y += 16
        for i, edge in enumerate(edges):
            x, top = MARGIN + (i % columns) * (wide + 18), y + (i // columns) * step
            other = edge.source if edge.target == unit else edge.target
            draw_unit(axes, other, images, x, top, columns=2, rows=2, tile=30)
            rgb = palette.encode(edge.kernel, scale)
            canvas.place_whole(axes, rgb, x + tile + 8, top, tile, sharp=True, edge=palette.LINE)
            canvas.write(axes, x, top + tile + 14, short(other), size=10, mono=True, limit=17)
            canvas.write(axes, x + wide - 14, top + tile + 28, minus(f"{edge.weight:+.2g}"), size=10,
                         color=palette.color_of(edge.weight), align="right", bold=True)  # fmt: skip
        y += -(-len(edges) // columns) * step + 28
    return figure


def kernel_between(edge: Edge, images: crops.Crops = NO_CROPS, *, about: str = "") -> Figure:
    """One kernel, large, between an image of its source and one of its target.

    Args:
        edge: with its kernel.
        images: unit -> crops, of which the first is shown.
        about: a line below the title.
    """
    side, gap, top = 220.0, 58.0, 84.0
    width = 2 * MARGIN + 3 * side + 2 * gap
    figure, axes = canvas.page(width, top + side + 96)
    canvas.write(axes, MARGIN, 32, f"{short(edge.source)} into {short(edge.target)}", size=15, bold=True)
    canvas.note(axes, MARGIN, 52, about, size=11, limit=130)
    ink = palette.color_of(edge.strength)
    scale = palette.shared_scale([edge.kernel])
    for i, unit in ((0, edge.source), (2, edge.target)):
        x = MARGIN + i * (side + gap)
        draw_unit(axes, unit, images, x, top, tile=int(side))
        canvas.write(axes, x, top + side + 18, short(unit), size=12, mono=True, limit=28)
    rgb = palette.encode(edge.kernel, scale)
    canvas.place_whole(axes, rgb, MARGIN + side + gap, top, side, sharp=True, edge=ink)
    for x in (MARGIN + side + 8, MARGIN + 2 * side + gap + 8):
        axes.annotate("", (x + gap - 16, top + side / 2), (x, top + side / 2),
                      arrowprops={"arrowstyle": "-|>", "color": ink, "lw": 1.6})  # fmt: skip
    x = MARGIN + side + gap
    lines = edge_effect(edge).split(", ")[:2]
    for i, line in enumerate(lines):
        canvas.write(axes, x, top + side + 18 + 16 * i, line, size=11.5, limit=38)
    below = top + side + 20 + 16 * len(lines)
    canvas.note(axes, x, below, f"sum of the weights {number(edge.strength)}", size=11)
    canvas.color_bar(axes, x, below + 12, scale, "weight")
    return figure
