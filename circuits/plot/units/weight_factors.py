"""Factors of weights: each a group of source channels in a color of its own, and where it acts on each target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from circuits.errors import CircuitsError
from circuits.plot.circuit.graph import NO_CROPS
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import kernel_effect, minus, short
from circuits.units.weight_factors import Factors

FACTOR_COLORS = ("#1B8A5A", "#8A3FB0", "#C9A200", "#D0356B", "#2AA7B5", "#7A5230", "#5B6ABF", "#8FA31E")
"""By index, distinct from the orange and blue of signs: `circuits.units.weight_factors.align` keeps a factor's index,
so its color."""

MARGIN, CELL, GAP = 24, 66, 12
_LIST, _BETWEEN = 216, 24  # width of a column, and between two


def color_of_factor(index: int) -> str:
    """Hex color of of a factor by its index; they come round again after eight."""
    return FACTOR_COLORS[index % len(FACTOR_COLORS)]


def blend(maps: Any, scale: float) -> NDArray[np.uint8]:
    """Maps of several factors in one image: white where there is nothing, a factor's color where it has weight.

    Args:
        maps: `(k, h, w)`, at or above zero.
        scale: the value of full color.

    Returns:
        RGB bytes `(h, w, 3)`; where factors meet, each takes away its share of light, as inks do.
    """
    values = np.clip(np.asarray(maps, dtype=np.float64) / scale, 0.0, 1.0)
    inks = np.array([[int(color_of_factor(k)[i : i + 2], 16) for i in (1, 3, 5)] for k in range(len(values))]) / 255.0
    light = np.prod(1.0 - values[..., None] * (1.0 - inks[:, None, None, :]), axis=0)
    return np.asarray(np.rint(light * 255), dtype=np.uint8)


def factor_figure(
    factors: Factors,
    images: crops.Crops = NO_CROPS,
    *,
    targets: Sequence[int] | None = None,
    n: int = 5,
    title: str = "",
) -> Figure:
    """A column for each factor: its strongest sources, and below them where it excites and inhibits each target.

    Left, all factors in one map in their colors: what excites a target, and what inhibits it.

    Args:
        factors: from `circuits.units.weight_factors.one_sided_nmf`.
        images: unit address (with or without the model's name) -> crops; shown above the sources' names.
        targets: which targets to show, by index; default the first eight.
        n: sources named for each factor.
        title: default the targets' names.

    Raises:
        CircuitsError: no such target.
    """
    rows = list(range(min(8, len(factors.targets)))) if targets is None else list(targets)
    if any(not 0 <= t < len(factors.targets) for t in rows) or not rows:
        raise CircuitsError(f"targets={rows}: there are {len(factors.targets)} targets, from 0")
    with_images = any(_crops(images, unit) for k in range(len(factors)) for unit, _ in factors.top(k, n))
    head, tiles = MARGIN + 62, (46 if with_images else 0)
    listed = head + 26 + tiles + n * 19 + 14
    left = MARGIN + 132
    start = left + 2 * (CELL + GAP) + 26
    width = start + len(factors) * (_LIST + _BETWEEN) - _BETWEEN + MARGIN
    height = listed + 24 + len(rows) * (CELL + GAP) + 44
    figure, axes = canvas.page(max(width, 560), height)
    canvas.heading(axes, title or _heading(factors), _about(factors), limit=90, room=160)
    scale = palette.shared_scale([factors.spatial[:, rows]])
    for k in range(len(factors)):
        _column(axes, factors, k, start + k * (_LIST + _BETWEEN), head, images, n, tiles)
    top = listed + 24
    for name, x in (("excited by", left), ("inhibited by", left + CELL + GAP)):
        canvas.note(axes, x + CELL / 2, top - 9, name, size=10.5, align="center")
    for row, t in enumerate(rows):
        y = top + row * (CELL + GAP)
        canvas.write(axes, left - 14, y + CELL / 2, short(factors.targets[t]), size=11, mono=True, align="right",
                     middle=True, limit=18)  # fmt: skip
        for sign, x in ((1, left), (-1, left + CELL + GAP)):
            rgb = blend((sign * factors.spatial[:, t]).clip(min=0), scale)
            canvas.place_whole(axes, rgb, x, y, CELL, sharp=True, edge=palette.LINE)
        for k in range(len(factors)):
            x = start + k * (_LIST + _BETWEEN)
            rgb = palette.encode(factors.spatial[k, t], scale)
            canvas.place_whole(axes, rgb, x, y, CELL, sharp=True, edge=color_of_factor(k))
            _effect(axes, factors.spatial[k, t], scale, x + CELL + 8, y + CELL / 2)
    canvas.color_bar(axes, start, top + len(rows) * (CELL + GAP) + 8, scale, "weight: excites, inhibits")
    return figure


def _heading(factors: Factors) -> str:
    count = len(factors.targets)
    return f"{short(factors.targets[0])}" if count == 1 else f"{short(factors.targets[0])} and {count - 1} more"


def _about(factors: Factors) -> str:
    source = factors.sources[0].rpartition(":")[0]
    text = f"{len(factors)} factors of the weights"
    if source:
        text += f" from {short(source)}"
    text += f" explain {100 * factors.explained:.0f} % of their sum of squares"
    if factors.shuffled:
        text += f"; {100 * float(np.mean(factors.shuffled)):.1f} % where channels are shuffled"
    return text


def _crops(images: crops.Crops, unit: str) -> Sequence[crops.Crop]:
    unit_crops = crops.of(images, unit)
    if unit_crops:
        return unit_crops
    return next((crops.of(images, full) for full in images if full.rpartition("/")[2] == unit), ())


def _column(axes: Axes, factors: Factors, k: int, x: float, y: float, images: crops.Crops, n: int, tiles: int) -> None:
    color = color_of_factor(k)
    axes.add_patch(Rectangle((x, y - 10), 12, 12, facecolor=color, lw=0))
    canvas.write(axes, x + 19, y, f"factor {k + 1}", size=12, bold=True)
    lost = f"without it {minus(f'{-100 * factors.each[k]:.0f}')} %"
    canvas.note(axes, x + _LIST, y, lost, size=11, align="right")
    top = factors.top(k, n)
    if tiles:
        for i, (unit, _) in enumerate(top[: _LIST // 44]):
            unit_crops = _crops(images, unit)
            if unit_crops:
                canvas.place_image(axes, crops.resized(unit_crops[0], 80), x + i * 44, y + 12, 40, 40)
    largest = top[0][1] if top else 1.0
    for i, (unit, value) in enumerate(top):
        at = y + 26 + tiles + i * 19
        canvas.write(axes, x, at, short(unit), size=10.5, mono=True, middle=True, limit=16)
        axes.barh(at, 76 * value / largest, left=x + 108, height=9, color=color, zorder=1)
        canvas.note(axes, x + _LIST, at, f"{value:.2f}", size=10.5, align="right", middle=True)


def _effect(axes: Axes, kernel: NDArray[np.float64], scale: float, x: float, y: float) -> None:
    """The effect of a factor on a target in words, where it is large."""
    if np.abs(kernel).max() < 0.25 * scale:
        return
    lines = kernel_effect(kernel).split(", ")
    for i, line in enumerate(lines):
        at = y + 14 * (i - (len(lines) - 1) / 2)
        canvas.note(axes, x, at, line, size=9.5, middle=True, limit=28)
