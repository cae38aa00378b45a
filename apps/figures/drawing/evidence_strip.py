"""Everything that speaks for a unit being what it is called, in one strip: pictures, photographs, tuning, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.canvas import Box, fitted
from circuits.plot.drawing.unit_rows import MARGIN, draw_crop
from circuits.plot.drawing.wording import short
from circuits.tuning.curves import Tuning
from circuits.tuning.joint_tuning import JointTuning

WIDE, HIGH, GAP = 316.0, 252.0, 26.0


def argument_strip(
    unit: str,
    shown: Mapping[str, Sequence[crops.Crop]],
    photographs: Sequence[crops.Crop],
    drawn: Tuning,
    turned: JointTuning,
    inputs: Sequence[tuple[str, Any]],
    clients: Sequence[tuple[str, Any]],
    *,
    about: str = "",
) -> Figure:
    """Six panels on one unit: its picture, photographs, drawn stimuli, turned photographs, inputs, and clients.

    Args:
        unit: address.
        shown: unit -> pictures made by optimization, of it, its inputs and its clients.
        photographs: crops that it answers to, strongest first.
        drawn: its tuning to stimuli with an orientation and a radius.
        turned: photographs of it, turned.
        inputs, clients: `(unit, kernel)` of what it reads and of what reads it, strongest first.
        about: a line below the title.
    """
    figure, axes = canvas.page(2 * MARGIN + 3 * WIDE + 2 * GAP, MARGIN + 56 + 2 * (HIGH + 46) + 10)
    canvas.write(axes, MARGIN, MARGIN + 10, short(unit), size=15, bold=True, limit=40)
    canvas.write(axes, MARGIN, MARGIN + 29, about, size=11, color=palette.MUTED, limit=120)
    names = (
        "1 what it looks for", "2 photographs it answers to", "3 drawn curves",
        "4 photographs turned", "5 what it reads", "6 what reads it",
    )  # fmt: skip
    at = []
    for i, name in enumerate(names):
        x, y = MARGIN + (i % 3) * (WIDE + GAP), MARGIN + 62 + (i // 3) * (HIGH + 46)
        canvas.write(axes, x, y, name, size=12.5, bold=True, limit=40)
        at.append((x, y + 14))
    made = shown.get(unit, ())
    draw_crop(axes, made[0] if len(made) else None, *at[0], HIGH - 6)
    tile = (HIGH - 6 - 8) / 3
    for i, crop in enumerate(photographs[:9]):
        draw_crop(axes, crop, at[1][0] + (i % 3) * (tile + 4), at[1][1] + (i // 3) * (tile + 4), tile)
    _map(axes, drawn, unit, *at[2])
    _turned(axes, turned, *at[3])
    scale = palette.shared_scale([k for _, k in (*inputs, *clients)])
    for (x, y), edges, first in ((at[4], inputs, True), (at[5], clients, False)):
        _edges(axes, edges, shown, x, y, scale, first)
    return figure


def _map(axes: Axes, drawn: Tuning, unit: str, x: float, y: float) -> None:
    down, along = drawn.axis("radius"), drawn.axis("orientation")
    values = drawn.over("radius", "orientation")[drawn.row(unit)].double().numpy()
    left, wide, high = x + 46, WIDE - 46, HIGH - 46
    canvas.place_image(axes, palette.encode(values[::-1], float(values.max()) or 1.0), left, y, wide, high, sharp=True)
    axes.add_patch(Rectangle((left, y), wide, high, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=4))
    for k, label in enumerate(reversed(down.labels)):
        place = y + (k + 0.5) * high / len(down)
        canvas.write(axes, left - 7, place, label, size=10, align="right", middle=True, limit=7)
    for k in range(0, len(along), max(1, len(along) // 6)):
        place = left + (k + 0.5) * wide / len(along)
        canvas.write(axes, place, y + high + 15, along.labels[k], size=10, align="center")
    text = "radius (pixels) against orientation (degrees)"
    canvas.write(axes, left, y + high + 32, text, size=10, color=palette.MUTED, limit=60)


def _turned(axes: Axes, turned: JointTuning, x: float, y: float) -> None:
    angles = np.asarray(turned.angles.values, dtype=np.float64)
    rows = turned.responses[0].clamp_min(0).double().numpy()
    top = float(rows.max()) or 1.0
    left, wide, high = x + 10, WIDE - 20, HIGH - 46
    bottom = y + high

    def across(degrees: Any) -> Any:
        return left + np.asarray(degrees) / 360 * wide

    for k in range(0, 361, 90):
        axes.plot([across(k)] * 2, [y, bottom], color=palette.LINE, lw=0.8, zorder=0)
        canvas.write(axes, float(across(k)), bottom + 15, str(k), size=10, align="center")
    axes.plot([left, left + wide], [bottom, bottom], color=palette.MUTED, lw=0.9)
    around = np.append(angles, 360.0)
    for row in rows:
        axes.plot(across(around), bottom - np.append(row, row[0]) / top * (high - 6), color=palette.REST, lw=0.8,
                  alpha=0.55, zorder=1)  # fmt: skip
    mean = rows.mean(axis=0)
    axes.plot(across(around), bottom - np.append(mean, mean[0]) / top * (high - 6), color=palette.EXCITES, lw=2.2,
              zorder=2)  # fmt: skip
    text = f"response against turn (degrees); bold: mean of {len(rows)}"
    canvas.write(axes, left, bottom + 32, text, size=10, color=palette.MUTED, limit=60)


def _edges(
    axes: Axes,
    edges: Sequence[tuple[str, Any]],
    shown: Mapping[str, Sequence[crops.Crop]],
    x: float,
    y: float,
    scale: float,
    first: bool,
) -> None:
    """Pictures with kernels between them and the unit: kernels to the right of what is read, left of what reads."""
    tile = (HIGH - 12) / 3
    for i, (name, kernel) in enumerate(edges[:3]):
        top = y + i * (tile + 6)
        at_picture, at_kernel = (x, x + tile + 24) if first else (x + tile + 24, x)
        made = shown.get(name, ())
        draw_crop(axes, made[0] if len(made) else None, at_picture, top, tile)
        rgb = palette.encode(kernel, scale)
        box = fitted(Box(at_kernel, top, tile, tile), rgb.shape[:2])
        color = palette.color_of(float(np.asarray(kernel).sum()))
        canvas.place_image(axes, rgb, box.x, box.y, box.width, box.height, sharp=True)
        axes.add_patch(Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=color, lw=1, zorder=4))
        axes.plot([x + tile + 4, x + tile + 20], [top + tile / 2] * 2, color=color, lw=1.8, solid_capstyle="butt")
        canvas.write(axes, x + 2 * tile + 34, top + tile / 2, short(name), size=10.5, mono=True, middle=True, limit=15)
