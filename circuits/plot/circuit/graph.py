"""The graph of a circuit as a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Curve

from circuits.plot.circuit.graph_layout import (
    ARROW,
    MARGIN,
    SCALE_HEIGHT,
    SCALE_WIDTH,
    Layout,
    PlacedEdge,
    PlacedNode,
    PlacedRest,
    bars_per_row,
    curve,
    layout,
)
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import counted, number, short
from circuits.tracing.circuit import Circuit

NO_CROPS: Mapping[str, list[crops.Crop]] = {}


def circuit_graph(circuit: Circuit, images: crops.Crops = NO_CROPS) -> Figure:
    """Draw a circuit: layers as columns, images of the units, kernels on the lines between them.

    Lines are orange with an arrow head where the source excites, blue with a bar where it inhibits; their
    width is the source's share of the strongest input of that target. A gray box is the sum of all units
    not shown. Kernels into one layer share one color scale.

    Args:
        circuit: from `circuits.trace` or a file.
        images: unit address -> crops `(h, w, 3)` uint8, as `images` cuts them; a missing unit is a gray tile.
    """
    placed = layout(circuit)
    figure, axes = canvas.page(placed.width, placed.height)
    for x, name in placed.headings:
        canvas.note(axes, x, 34, name, size=12, mono=True, limit=28)
    layer = {n.unit: n.layer for n in circuit.nodes}
    for line in sorted(placed.edges, key=lambda line: abs(line.strength)):
        _draw_line(axes, line)
    for line in placed.edges:
        if line.edge is not None and line.kernel is not None:
            _draw_kernel(axes, line, placed.scales[layer[line.edge.target]])
    for node in placed.nodes:
        _draw_node(axes, node, images)
    for rest in placed.rests:
        _draw_rest(axes, rest)
    _legend(axes, placed)
    return figure


def _draw_line(axes: Axes, line: PlacedEdge) -> None:
    color = palette.color_of(line.strength) if line.edge is not None else palette.REST
    start, straight, bend, turn, end = curve(line)
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    style = {"edgecolor": color, "facecolor": "none", "alpha": 0.85, "capstyle": "butt"}
    points = line.width * 72 / canvas.DPI
    axes.add_patch(PathPatch(Curve([start, straight, bend, turn, end], codes), linewidth=points, zorder=1, **style))
    if line.kernel is not None:
        (x0, y0), (x1, y1) = line.source, (line.kernel.x, line.kernel.middle)
        mid = (x0 + x1) / 2
        stub = Curve([(x0, y0), (mid, y0), (mid, y1), (x1, y1)], [Curve.MOVETO] + [Curve.CURVE4] * 3)
        axes.add_patch(PathPatch(stub, linewidth=min(points, 2.2), zorder=1, **style))
        above = line.start[1] - line.width / 2 - 4
        canvas.write(axes, line.start[0] + 5, above, number(line.strength), size=10.5, color=color)
    (x, y), wide = line.end, max(5.0, line.width * 0.9 + 2)
    if line.strength >= 0:
        axes.add_patch(_head(x, y, ARROW + 1, wide, color))
    else:
        axes.add_patch(Rectangle((x - ARROW, y - wide), 3.5, 2 * wide, facecolor=color, lw=0))


def _head(x: float, y: float, length: float, half: float, color: str) -> Polygon:
    """An arrow head that points right, its tip at `(x, y)`."""
    return Polygon([(x, y), (x - length, y - half), (x - length, y + half)], closed=True, facecolor=color, lw=0)


def _draw_kernel(axes: Axes, line: PlacedEdge, scale: float) -> None:
    assert line.edge is not None and line.kernel is not None
    box, rgb, color = line.kernel, palette.encode(line.edge.kernel, scale), palette.color_of(line.strength)
    canvas.place_whole(axes, rgb, box.x, box.y, box.width, box.height, sharp=True, edge=color, lw=1.1)


def _draw_node(axes: Axes, placed: PlacedNode, images: crops.Crops) -> None:
    node, box = placed.node, placed.box
    tiles = crops.of(images, node.unit)
    room = max(12, int(box.width / 6.6))
    if tiles:
        side, gap = round(placed.tile * 2), 6
        sheet = crops.montage(tiles, placed.rows, placed.columns, side, gap)
        canvas.place_image(axes, sheet, box.x, box.y, box.width, box.height)
    else:
        canvas.rounded(axes, box.x, box.y, box.width, box.height)
        middle = box.x + box.width / 2
        style: dict[str, Any] = {"mono": True, "color": palette.MUTED, "align": "center", "middle": True, "zorder": 4}
        canvas.write(axes, middle, box.middle, short(node.unit), size=11, limit=room, **style)
    y = box.y + box.height + 16
    if node.label:
        canvas.write(axes, box.x, y, node.label, size=12.5, bold=True, limit=room)
        y += 16
    if tiles:
        canvas.note(axes, box.x, y, short(node.unit), size=11, mono=True, limit=room)


def _draw_rest(axes: Axes, placed: PlacedRest) -> None:
    box, rest = placed.box, placed.rest
    canvas.rounded(axes, box.x, box.y, box.width, box.height, 6)
    canvas.note(axes, box.x + 10, box.middle, rest_text(placed), size=11, middle=True, zorder=4)
    canvas.write(axes, box.right - 10, box.middle, number(rest.strength), size=11, align="right", middle=True, zorder=4)


def rest_text(placed: PlacedRest) -> str:
    """What stands in the gray box."""
    count = placed.rest.count
    if count == 0 and placed.rest.error is not None:
        return "left over by the latents" if placed.box.width > 165 else "left over"
    return counted(count, "other unit") if count == 1 or placed.box.width > 165 else f"{count} others"


def _legend(axes: Axes, placed: Layout) -> None:
    per_row = bars_per_row(placed.width)
    rows = -(-len(placed.scales) // per_row)
    y, x = placed.height - 26 - rows * SCALE_HEIGHT, MARGIN
    for text, strength in (("excites", 1.0), ("inhibits", -1.0), ("units not shown", 0.0)):
        color = palette.color_of(strength)
        axes.plot([x, x + 22], [y, y], color=color, lw=2.6, solid_capstyle="butt", zorder=1)
        if strength >= 0:
            axes.add_patch(_head(x + 31, y, 10, 6, color))
        else:
            axes.add_patch(Rectangle((x + 22, y - 6), 3.5, 12, facecolor=color, lw=0))
        canvas.note(axes, x + 38, y, text, size=11, middle=True)
        x += 58 + 7 * len(text)
    for i, (layer, scale) in enumerate(placed.scales.items()):
        x, row = MARGIN + (i % per_row) * SCALE_WIDTH, i // per_row
        canvas.color_bar(axes, x, y + 22 + row * SCALE_HEIGHT, scale, f"weights into {layer}")
