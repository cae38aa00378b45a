"""Heat maps of several units beside each other, each in shares of its own peak."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import amount, short
from circuits.tuning.curves import Tuning

MARGIN, GAP = 24, 30


def tuning_maps(
    tuning: Tuning,
    units: Sequence[str],
    rows: str,
    *,
    title: str,
    about: str = "",
) -> Figure:
    """A heat map for each unit: orientations across, `rows` upwards, white is no response, full color the unit's peak.

    Args:
        tuning: of `circuits.tune`.
        units: addresses.
        rows: name of an axis; the maximum over all others, the mean over samples.
        title: of the figure; about: a line below it.
    """
    down, along = tuning.axis(rows), tuning.axis("orientation")
    table = tuning.over(rows, "orientation").double().numpy()
    across = max(1, min(3, len(units)))
    wide, cell = 270.0, 26.0
    high = cell * len(down)
    indent, head, foot = 58.0, MARGIN + 74.0, 34.0
    deep = -(-len(units) // across)
    step = high + foot + GAP
    width = MARGIN * 2 + across * (indent + wide + 12)
    figure, axes = canvas.page(width, head + deep * step + 26)
    canvas.write(axes, MARGIN, MARGIN + 10, title, size=15, bold=True, limit=int(width / 9.5))
    canvas.write(axes, MARGIN, MARGIN + 29, about, size=11, color=palette.MUTED, limit=int(width / 5.8))
    for i, unit in enumerate(units):
        values = table[tuning.row(unit)]
        x = MARGIN + (i % across) * (indent + wide + 12) + indent
        y = head + (i // across) * step
        peak = float(values.max())
        canvas.write(axes, x, y - 8, short(unit), size=12, bold=True, limit=24)
        canvas.write(axes, x + wide, y - 8, f"peak {amount(peak)}", size=10.5, color=palette.MUTED, align="right")
        canvas.place_image(axes, palette.encode(values[::-1], peak or 1.0), x, y, wide, high, sharp=True)
        axes.add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=4))
        for k, label in enumerate(reversed(down.labels)):
            canvas.write(axes, x - 7, y + (k + 0.5) * cell, label, size=10, align="right", middle=True, limit=8)
        interval = max(1, math.ceil(len(along) / 8))
        for k, label in enumerate(along.labels):
            if k % interval == 0:
                canvas.write(
                    axes, x + (k + 0.5) * wide / len(along), y + high + 14, label, size=10, align="center", limit=8
                )
    about = " against ".join(f"{a.name} ({a.unit})" if a.unit else a.name for a in (down, along))
    y = head + deep * step - 4
    canvas.write(axes, MARGIN + indent, y + 6, about, size=11, color=palette.MUTED, middle=True, limit=90)
    x = MARGIN + indent + 6.3 * len(about) + 30
    canvas.write(axes, x, y + 6, "0", size=10, middle=True)
    canvas.place_image(axes, palette.encode([[k / 60 for k in range(61)]], 1.0), x + 12, y, 90, 10)
    axes.add_patch(Rectangle((x + 12, y), 90, 10, fill=False, edgecolor=palette.LINE, lw=0.6, zorder=4))
    canvas.write(axes, x + 110, y + 6, "peak", size=10, middle=True, limit=20)
    return figure
