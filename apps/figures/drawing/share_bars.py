"""Shares as stacked bars, such as those of families of units in the weights of a unit."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette
from circuits.plot.units.weight_factors import color_of_factor

MARGIN = 24


def share_bars(shares: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str = "", about: str = "") -> Figure:
    """Stacked bars in groups; each part has its share written in it where there is room, and its name in the key.

    Args:
        shares: group -> bar -> part -> share; a part keeps its color within a group, "other" is gray.
        title: of the figure; about: a line below it.

    Raises:
        CircuitsError: nothing to draw, or shares below zero.
    """
    bars = [bar for group in shares.values() for bar in group.values()]
    if not bars or any(v < 0 for bar in bars for v in bar.values()):
        raise CircuitsError("share_bars draws at least one bar, of shares from zero")
    start, wide, step, head = 230.0, 620.0, 30.0, 84.0
    between, key = 34.0, 22.0
    height = head + sum(len(g) * step + between + key for g in shares.values()) + 12
    figure, axes = canvas.page(start + wide + MARGIN + 10, height)
    canvas.heading(axes, title, about, limit=95, room=150, y=32)
    y = head
    for group, rows in shares.items():
        parts = list(dict.fromkeys(p for bar in rows.values() for p in bar))
        inks = {p: palette.REST if p == "other" else color_of_factor(i) for i, p in enumerate(parts)}
        canvas.write(axes, MARGIN, y + 8, group, size=12, bold=True, limit=60)
        y += 18
        for name, bar in rows.items():
            canvas.write(axes, start - 10, y + step / 2 - 2, name, size=11, align="right", middle=True, limit=32)
            total = sum(bar.values()) or 1.0
            x = start
            for part in parts:
                share = bar.get(part, 0.0) / total
                axes.add_patch(
                    Rectangle((x, y), share * wide, step - 7, facecolor=inks[part], edgecolor=palette.PAPER, lw=1)
                )
                text = f"{100 * share:.0f} %"
                if share * wide > 9 * len(text):
                    canvas.write(axes, x + share * wide / 2, y + step / 2 - 3, text, size=10, color=palette.PAPER,
                                 bold=True, align="center", middle=True, zorder=5)  # fmt: skip
                x += share * wide
            y += step
        x = start
        for part in parts:
            axes.add_patch(Rectangle((x, y - 1), 10, 10, facecolor=inks[part], lw=0))
            canvas.write(axes, x + 15, y + 4, part, size=10.5, middle=True, limit=30)
            x += 15 + 6.4 * min(30, len(part)) + 20
        y += key + between - 18
    return figure
