"""Units beside each other: feature visualizations, tuning, and top activating photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.crops import Crop
from circuits.plot.drawing.wording import short
from circuits.tuning.circular_statistics import vector_mean
from circuits.tuning.curves import Curve

MARGIN, GAP = 24, 14
_DIAL, _LINE = 54, 15


@dataclass(frozen=True, eq=False)
class UnitLook:
    """What a figure shows of a unit.

    Attributes:
        unit: address.
        visualizations: optimized images; an empty one stands for a dead unit.
        crops: photographs, strongest first.
        curve: its radial tuning curve, drawn as a dial.
        notes: short lines beside it; heading: instead of its address.
    """

    unit: str
    visualizations: Sequence[Crop] = ()
    crops: Sequence[Crop] = ()
    curve: Curve | None = None
    notes: Sequence[str] = field(default=())
    heading: str = ""

    @property
    def name(self) -> str:
        """The heading, or the address without the model."""
        return self.heading or short(self.unit)


def unit_grid(looks: Sequence[UnitLook], *, columns: int = 5, tile: float = 168, title: str, about: str = "") -> Figure:
    """A tile for each unit: its visualization, and below it its dial and notes.

    Args:
        looks: the units, in the order of reading.
        columns: tiles side by side; tile: pixels of one.
        title: what they are; about: a line below it.
    """
    columns = max(1, min(columns, len(looks)))
    dial = any(look.curve is not None for look in looks)
    lines = max((len(look.notes) for look in looks), default=0)
    foot = max(_DIAL + 8 if dial else 0, 18 + _LINE * lines)
    rows, head = -(-len(looks) // columns), MARGIN + 44
    width = max(2 * MARGIN + columns * (tile + GAP) - GAP, 560)
    figure, axes = canvas.page(width, head + rows * (tile + foot + GAP + 6) + MARGIN - GAP)
    _heading(axes, title, about, width)
    for i, look in enumerate(looks):
        x, y = MARGIN + (i % columns) * (tile + GAP), head + (i // columns) * (tile + foot + GAP + 6)
        draw_crop(axes, look.visualizations[0] if look.visualizations else None, x, y, tile)
        left = x
        if look.curve is not None:
            dial_of(axes, look.curve, x + _DIAL / 2, y + tile + 8 + _DIAL / 2, _DIAL / 2)
        if dial:
            left += _DIAL + 8
        room = int((tile - (left - x)) / 5.9)
        canvas.write(axes, left, y + tile + 20, look.name, size=11.5, bold=True, limit=room)
        for k, line in enumerate(look.notes):
            canvas.note(axes, left, y + tile + 20 + _LINE * (k + 1), line, size=10.5, limit=room + 3)
    return figure


def unit_rows(
    looks: Sequence[UnitLook], *, columns: int = 6, rows: int = 1, tile: float = 96, title: str, about: str = ""
) -> Figure:
    """A row for each unit: its visualizations large, its dial and notes, and photographs.

    Args:
        looks: the units, from above.
        columns, rows: photographs beside each other and below (no columns: none); tile: pixels of one.
        title: what they are; about: a line below it.
    """
    count = max((len(look.visualizations) for look in looks), default=0)
    high = max(rows * (tile + 4) - 4, tile)
    side = min(high, 190.0)
    wide = count * (side + 6) - 6 if count else 0
    notes = 132.0
    left, at_crops = MARGIN, MARGIN + notes + (wide + 22 if count else 0)
    head = MARGIN + 50
    width = max(at_crops + max(0, columns * (tile + 4) - 4) + MARGIN, 560)
    step = high + 22
    figure, axes = canvas.page(width, head + len(looks) * step + 6)
    _heading(axes, title, about, width)
    for i, look in enumerate(looks):
        y = head + i * step
        canvas.write(axes, left, y + 12, look.name, size=12, bold=True, limit=20)
        for k, line in enumerate(look.notes):
            canvas.note(axes, left, y + 12 + _LINE * (k + 1), line, size=10.5, limit=24)
        if look.curve is not None:
            below = y + 20 + _LINE * len(look.notes)
            dial_of(axes, look.curve, left + _DIAL / 2, min(below, y + high - _DIAL) + _DIAL / 2, _DIAL / 2)
        for k, visualization in enumerate(look.visualizations):
            draw_crop(axes, visualization, left + notes + k * (side + 6), y, side)
        for k, crop in enumerate(look.crops[: columns * rows]):
            row, column = divmod(k, columns)
            draw_crop(axes, crop, at_crops + column * (tile + 4), y + row * (tile + 4), tile)
        if columns and not look.crops:
            canvas.note(axes, at_crops, y + 30, "active on no image", size=11)
    return figure


def draw_crop(axes: Axes, crop: Crop | None, x: float, y: float, side: float) -> None:
    """A crop in a square; without one a hatched tile, which cannot be mistaken for an image."""
    if crop is None or not crop.size:
        canvas.mark(axes, x, y, side, "dead")
        return
    canvas.place_crop(axes, crop, x, y, side)


def radial_line(
    curve: Curve, x: float, y: float, radius: float, *, peak_up: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """A radial tuning curve as a closed line around `(x, y)`, in shares of its peak; None for one without responses.

    Orientations that repeat after 180 degrees are drawn twice; `peak_up` turns the curve so that its peak points up.
    """
    values = curve.responses.clamp_min(0).double().numpy()
    if not values.max() > 0:
        return None
    turns = np.radians(np.asarray(curve.axis.values, dtype=np.float64))
    if peak_up:
        turns = turns - turns[int(values.argmax())] + math.pi / 2
    elif curve.axis.period == 180:
        turns, values = np.concatenate([turns, turns + math.pi]), np.concatenate([values, values])
    size, around = np.append(values, values[0]) / values.max() * radius, np.append(turns, turns[0])
    return x + size * np.cos(around), y - size * np.sin(around)


def direction_of(curve: Curve) -> float:
    """Where a curve points, in degrees: its mean direction on a full circle, else its peak."""
    if curve.axis.is_full_circle and curve.axis.period:
        mean = float(vector_mean(curve.responses, curve.axis.values, curve.axis.period)[0])
        if not math.isnan(mean):
            return mean
    return float(curve.axis.values[int(curve.responses.argmax())])


def dial_of(axes: Axes, curve: Curve, x: float, y: float, radius: float) -> None:
    """A small radial tuning curve: responses around the circle in shares of the peak."""
    axes.add_patch(Circle((x, y), radius, facecolor=palette.PAPER, edgecolor=palette.LINE, lw=1, zorder=2))
    line = radial_line(curve, x, y, radius - 2)
    if line is not None:
        axes.fill(*line, color=palette.EXCITES, alpha=0.25, zorder=3, lw=0)
        axes.plot(*line, color=palette.EXCITES, lw=1.3, zorder=3, solid_joinstyle="round")


def _heading(axes: Axes, title: str, about: str, width: float) -> None:
    room = int((width - 2 * MARGIN) / 5.6)
    canvas.write(axes, MARGIN, MARGIN + 10, title, size=15, bold=True, limit=int(room * 0.66))
    canvas.note(axes, MARGIN, MARGIN + 29, about, size=11, limit=room)
