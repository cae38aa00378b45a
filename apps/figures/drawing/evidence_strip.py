"""The evidence for the label of a unit in one strip: visualization, dataset examples, tuning, weights."""

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


def evidence_strip(
    unit: str,
    visualizations: Mapping[str, Sequence[crops.Crop]],
    examples: Sequence[crops.Crop],
    synthetic: Tuning,
    rotated: JointTuning,
    inputs: Sequence[tuple[str, Any]],
    outputs: Sequence[tuple[str, Any]],
    *,
    about: str = "",
) -> Figure:
    """Six panels on one unit: visualization, examples, synthetic stimuli, rotated examples, inputs and outputs.

    Args:
        unit: address.
        visualizations: unit -> feature visualizations, of it, its inputs and its outputs.
        examples: crops of its top activating images.
        synthetic: its tuning to stimuli with an orientation and a radius.
        rotated: its tuning to rotated dataset examples.
        inputs, outputs: `(unit, kernel)` of the incoming and outgoing weights, strongest first.
        about: a line below the title.
    """
    figure, axes = canvas.page(2 * MARGIN + 3 * WIDE + 2 * GAP, MARGIN + 56 + 2 * (HIGH + 46) + 10)
    canvas.write(axes, MARGIN, MARGIN + 10, short(unit), size=15, bold=True, limit=40)
    canvas.write(axes, MARGIN, MARGIN + 29, about, size=11, color=palette.MUTED, limit=120)
    names = (
        "1 feature visualization", "2 dataset examples", "3 synthetic curves",
        "4 rotated examples", "5 incoming weights", "6 outgoing weights",
    )  # fmt: skip
    at = []
    for i, name in enumerate(names):
        x, y = MARGIN + (i % 3) * (WIDE + GAP), MARGIN + 62 + (i // 3) * (HIGH + 46)
        canvas.write(axes, x, y, name, size=12.5, bold=True, limit=40)
        at.append((x, y + 14))
    own = visualizations.get(unit, ())
    draw_crop(axes, own[0] if len(own) else None, *at[0], HIGH - 6)
    tile = (HIGH - 6 - 8) / 3
    for i, crop in enumerate(examples[:9]):
        draw_crop(axes, crop, at[1][0] + (i % 3) * (tile + 4), at[1][1] + (i // 3) * (tile + 4), tile)
    _map(axes, synthetic, unit, *at[2])
    _rotated(axes, rotated, *at[3])
    scale = palette.shared_scale([k for _, k in (*inputs, *outputs)])
    for (x, y), edges, first in ((at[4], inputs, True), (at[5], outputs, False)):
        _edges(axes, edges, visualizations, x, y, scale, first)
    return figure


def _map(axes: Axes, tuning: Tuning, unit: str, x: float, y: float) -> None:
    down, along = tuning.axis("radius"), tuning.axis("orientation")
    values = tuning.over("radius", "orientation")[tuning.row(unit)].double().numpy()
    start, wide, high = x + 46, WIDE - 46, HIGH - 46
    canvas.place_image(axes, palette.encode(values[::-1], float(values.max()) or 1.0), start, y, wide, high, sharp=True)
    axes.add_patch(Rectangle((start, y), wide, high, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=4))
    for k, label in enumerate(reversed(down.labels)):
        canvas.write(
            axes, start - 7, y + (k + 0.5) * high / len(down), label, size=10, align="right", middle=True, limit=7
        )
    for k in range(0, len(along), max(1, len(along) // 6)):
        canvas.write(
            axes, start + (k + 0.5) * wide / len(along), y + high + 15, along.labels[k], size=10, align="center"
        )
    text = "radius (pixels) against orientation (degrees)"
    canvas.write(axes, start, y + high + 32, text, size=10, color=palette.MUTED, limit=60)


def _rotated(axes: Axes, rotated: JointTuning, x: float, y: float) -> None:
    angles = np.asarray(rotated.angles.values, dtype=np.float64)
    rows = rotated.responses[0].clamp_min(0).double().numpy()
    top = float(rows.max()) or 1.0
    start, wide, high = x + 10, WIDE - 20, HIGH - 46
    bottom = y + high

    def across(degrees: Any) -> Any:
        return start + np.asarray(degrees) / 360 * wide

    for k in range(0, 361, 90):
        axes.plot([across(k)] * 2, [y, bottom], color=palette.LINE, lw=0.8, zorder=0)
        canvas.write(axes, float(across(k)), bottom + 15, str(k), size=10, align="center")
    axes.plot([start, start + wide], [bottom, bottom], color=palette.MUTED, lw=0.9)
    around = np.append(angles, 360.0)
    for row in rows:
        axes.plot(across(around), bottom - np.append(row, row[0]) / top * (high - 6), color=palette.REST, lw=0.8,
                  alpha=0.55, zorder=1)  # fmt: skip
    mean = rows.mean(axis=0)
    axes.plot(across(around), bottom - np.append(mean, mean[0]) / top * (high - 6), color=palette.EXCITES, lw=2.2,
              zorder=2)  # fmt: skip
    text = f"response against rotation (degrees); bold: mean of {len(rows)}"
    canvas.write(axes, start, bottom + 32, text, size=10, color=palette.MUTED, limit=60)


def _edges(
    axes: Axes,
    edges: Sequence[tuple[str, Any]],
    visualizations: Mapping[str, Sequence[crops.Crop]],
    x: float,
    y: float,
    scale: float,
    first: bool,
) -> None:
    """Visualizations with kernels: the kernel is to the right of an input and to the left of an output."""
    tile = (HIGH - 12) / 3
    for i, (name, kernel) in enumerate(edges[:3]):
        top = y + i * (tile + 6)
        at_picture, at_kernel = (x, x + tile + 24) if first else (x + tile + 24, x)
        crop = next(iter(visualizations.get(name, ())), None)
        draw_crop(axes, crop, at_picture, top, tile)
        rgb = palette.encode(kernel, scale)
        box = fitted(Box(at_kernel, top, tile, tile), rgb.shape[:2])
        color = palette.color_of(float(np.asarray(kernel).sum()))
        canvas.place_image(axes, rgb, box.x, box.y, box.width, box.height, sharp=True)
        axes.add_patch(Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=color, lw=1, zorder=4))
        axes.plot([x + tile + 4, x + tile + 20], [top + tile / 2] * 2, color=color, lw=1.8, solid_capstyle="butt")
        canvas.write(axes, x + 2 * tile + 34, top + tile / 2, short(name), size=10.5, mono=True, middle=True, limit=15)
