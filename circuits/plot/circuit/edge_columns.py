"""Edges in columns: source, kernel and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.unit_rows import MARGIN, UnitLook, draw_crop

GAP = 22
NOTES = 260  # pixels that notes take where images leave less


@dataclass(frozen=True, eq=False)
class EdgeLook:
    """What is shown of an edge.

    Attributes:
        source: the unit; target: the unit with the incoming weight, or None where the heading names it.
        kernel: `(kh, kw)` weights.
        notes: a line or two below.
    """

    source: UnitLook
    target: UnitLook | None
    kernel: NDArray[Any]
    notes: Sequence[str] = ()


def edge_columns(
    columns: Mapping[str, Sequence[EdgeLook]],
    *,
    tile: float = 96,
    title: str,
    about: str = "",
    own_scales: bool = False,
) -> Figure:
    """A column for each group of edges: the source's image, the kernel, the target's image, and notes.

    All kernels share one color scale, unless columns are to have one each.

    Args:
        columns: heading -> edges, from above.
        tile: pixels of an image.
        title: what they are; about: a line below it.
        own_scales: whether each column has a color scale of its own.
    """
    scales = {name: palette.shared_scale(e.kernel for e in edges) for name, edges in columns.items()}
    if not own_scales:
        scales = dict.fromkeys(scales, max(scales.values(), default=1.0))
    tiles = 3 if any(e.target is not None for edges in columns.values() for e in edges) else 2
    wide = max(tiles * tile + (tiles - 1) * GAP, NOTES)
    lines = max((len(e.notes) for edges in columns.values() for e in edges), default=0)
    step, head = tile + 22 + 15 * lines + 14, MARGIN + 72
    deep = max((len(edges) for edges in columns.values()), default=0)
    width = max(2 * MARGIN + len(columns) * (wide + 40) - 40, 560)
    figure, axes = canvas.page(width, head + deep * step + 34)
    room = int((width - 2 * MARGIN) / 5.6)
    canvas.write(axes, MARGIN, MARGIN + 10, title, size=15, bold=True, limit=int(room * 0.66))
    canvas.note(axes, MARGIN, MARGIN + 29, about, size=11, limit=room)
    for c, (name, edges) in enumerate(columns.items()):
        x = MARGIN + c * (wide + 40)
        canvas.write(axes, x, head - 14, name, size=12.5, bold=True, limit=int(wide / 6.6))
        for i, edge in enumerate(edges):
            _edge(axes, edge, x, head + i * step, tile, scales[name])
        if own_scales or c == 0:
            canvas.color_bar(axes, x, head + deep * step + 4, scales[name], "weight: excites, inhibits")
    return figure


def _edge(axes: Axes, edge: EdgeLook, x: float, y: float, tile: float, scale: float) -> None:
    sign = float(edge.kernel.sum())
    color = palette.color_of(sign)
    looks = [edge.source, None, edge.target] if edge.target is not None else [edge.source, None]
    for k, look in enumerate(looks):
        left = x + k * (tile + GAP)
        if k:
            axes.plot([left - GAP + 4, left - 4], [y + tile / 2] * 2, color=color, lw=1.8, solid_capstyle="butt")
        if look is None:
            rgb = palette.encode(edge.kernel, scale)
            canvas.place_whole(axes, rgb, left, y, tile, sharp=True, edge=color, lw=1.1)
            continue
        draw_crop(
            axes,
            look.visualizations[0] if look.visualizations else look.crops[0] if look.crops else None,
            left,
            y,
            tile,
        )
        canvas.write(axes, left, y + tile + 15, look.name, size=10.5, mono=True, limit=int((tile + GAP) / 6.4))
    for i, line in enumerate(edge.notes):
        canvas.note(axes, x, y + tile + 31 + 15 * i, line, size=10.5, limit=60)
