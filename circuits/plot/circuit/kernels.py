"""Kernels, always between images of their source and their target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.attribution.expanded_weights import ExpandedWeights
from circuits.plot.circuit.graph import NO_CROPS
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import edge_effect, number, short
from circuits.tracing.circuit import Edge

TILE, GAP = 60, 4


def draw_unit(
    axes: Axes,
    unit: str,
    images: crops.Crops,
    x: float,
    y: float,
    *,
    columns: int = 1,
    rows: int = 1,
    tile: int = TILE,
) -> None:
    """The montage of a unit at `(x, y)`, or a gray tile with its address."""
    width, height = columns * (tile + GAP) - GAP, rows * (tile + GAP) - GAP
    unit_crops = crops.of(images, unit)
    if unit_crops:
        canvas.place_image(axes, crops.montage(unit_crops, rows, columns, tile * 2, GAP * 2), x, y, width, height)
        return
    canvas.rounded(axes, x, y, width, height)
    style: dict[str, Any] = {"size": 9.5, "mono": True, "color": palette.MUTED, "align": "center", "middle": True}
    layer, colon, index = short(unit).rpartition(":")
    room = max(6, int(width / 6))
    if colon and len(short(unit)) > room:
        canvas.write(axes, x + width / 2, y + height / 2 - 7, layer, limit=room, zorder=4, **style)
        canvas.write(axes, x + width / 2, y + height / 2 + 7, f":{index}", limit=room, zorder=4, **style)
    else:
        canvas.write(axes, x + width / 2, y + height / 2, short(unit), limit=room, zorder=4, **style)


def kernel_strip(edges: Sequence[Edge], images: crops.Crops = NO_CROPS, *, scale: float | None = None) -> Figure:
    """One row for each edge: images of the source, the kernel, images of the target, and its effect.

    Args:
        edges: of a circuit, in the order given.
        images: unit address -> crops.
        scale: the weight that is fully colored; default the largest among `edges`, one scale for all rows.
    """
    scale = palette.shared_scale(e.kernel for e in edges) if scale is None else scale
    row, head = TILE + 38, 30
    strip = 3 * (TILE + GAP) - GAP
    left, at_kernel, at_target = 24, 24 + strip + 30, 24 + strip + 30 + TILE + 30
    width = at_target + strip + 330
    figure, axes = canvas.page(width, head + max(1, len(edges)) * row + 40)
    for i, edge in enumerate(edges):
        y = head + i * row
        color = palette.color_of(edge.strength or edge.sign)
        middle = y + TILE / 2
        for x in (left + strip + 4, at_kernel + TILE + 4):
            axes.plot([x, x + 22], [middle, middle], color=color, lw=1.8, solid_capstyle="butt")
        draw_unit(axes, edge.source, images, left, y, columns=3)
        canvas.place_whole(axes, palette.encode(edge.kernel, scale), at_kernel, y, TILE, sharp=True, edge=color, lw=0.9)
        draw_unit(axes, edge.target, images, at_target, y, columns=3)
        for x, unit in ((left, edge.source), (at_target, edge.target)):
            canvas.note(axes, x, y + TILE + 16, short(unit), size=11, mono=True, limit=26)
        x = at_target + strip + 22
        canvas.write(axes, x, middle - 2, number(edge.strength), size=15, bold=True, color=color)
        canvas.write(axes, x, middle + 17, edge_effect(edge), size=11, limit=46)
    if not edges:
        canvas.note(axes, left, head + 30, "no edges", size=12)
    canvas.color_bar(axes, left, head + max(1, len(edges)) * row + 8, scale, "weight")
    return figure


def kernel_grid(
    weights: ExpandedWeights,
    images: crops.Crops = NO_CROPS,
    *,
    sources: Sequence[int] | None = None,
    n: int = 10,
    model: str | None = None,
    scale: float | None = None,
) -> Figure:
    """Kernels of a layer as a table: a column for each source under its image, a row for each target beside its.

    Args:
        weights: from `circuits.expanded_weights`.
        images: unit address (with or without the model's name) -> crops.
        sources: source channels to show; default the `n` with the largest norm over all targets.
        n: how many sources when they are not given.
        model: name of the model, where `images` is keyed by full addresses.
        scale: the weight that is fully colored; default the largest shown.
    """
    kernels = weights.kernels.detach().cpu().double().numpy()
    if sources is None:
        order = weights.norms.detach().cpu().norm(dim=0).argsort(descending=True, stable=True)
        sources = order[:n].tolist()
    scale = palette.shared_scale([kernels[:, list(sources)]]) if scale is None else scale
    before = f"{model}/" if model else ""
    left, top, step = 24 + TILE + 24, 24 + TILE + 34, TILE + 12
    width = left + max(1, len(sources)) * step + 20
    figure, axes = canvas.page(max(width, 300), top + max(1, len(weights.targets)) * (step + 16) + 44)
    canvas.note(axes, 24, 24 + TILE / 2, weights.source, size=10, mono=True, limit=12)
    for j, channel in enumerate(sources):
        x = left + j * step
        draw_unit(axes, f"{before}{weights.source}:{channel}", images, x, 24)
        canvas.note(axes, x, 24 + TILE + 15, f":{channel}", size=11, mono=True)
    for i, target in enumerate(weights.targets):
        y = top + i * (step + 16)
        draw_unit(axes, before + target, images, 24, y)
        canvas.note(axes, 24, y + TILE + 14, target, size=9.5, mono=True, limit=14)
        for j, channel in enumerate(sources):
            rgb = palette.encode(kernels[i, channel], scale)
            canvas.place_whole(axes, rgb, left + j * step, y, TILE, sharp=True, edge=palette.LINE, lw=0.9)
    canvas.color_bar(axes, 24, top + len(weights.targets) * (step + 16) + 12, scale, "weight")
    return figure
