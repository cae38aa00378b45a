"""Figures of curve detectors: responses above their stimuli, and radial curves side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.crops import Crop
from circuits.plot.drawing.unit_rows import direction_of, radial_line
from circuits.tuning.curves import Curve

MARGIN = 24


def orientation_plot(
    curves: Sequence[Curve],
    stimuli: Sequence[Crop],
    *,
    shares: bool = True,
    control: Sequence[Curve] = (),
    title: str = "",
    about: str = "",
    label: str = "",
) -> Figure:
    """Responses against orientation, the stimuli themselves below the axis.

    Args:
        curves: along one axis of orientations all the way round; each line bears its unit's number at its peak.
        stimuli: images of stimuli, at even steps from 0 degrees.
        shares: in shares of each unit's peak; otherwise responses as they are.
        control: further curves, drawn thin and gray.
        title: what they are; about: a line below it.
        label: what the gray ones are, for the legend.

    Raises:
        CircuitsError: no curves, or orientations that do not go all the way round.
    """
    if not curves or not all(c.axis.is_full_circle and c.axis.period for c in (*curves, *control)):
        raise CircuitsError("an orientation plot needs curves of orientations at even steps all the way round")
    period = curves[0].axis.period or 360.0
    width, height, left, tile = 900.0, 470.0, 78.0, 44.0
    figure, page = canvas.page(width, height)
    canvas.write(page, MARGIN, 32, title, size=15, bold=True, limit=90)
    canvas.note(page, MARGIN, 52, about, size=11, limit=150)
    wide, top, foot = width - left - 40, 84.0, 124.0
    axes = figure.add_axes((left / width, foot / height, wide / width, 1 - (foot + top) / height))
    for curve in control:
        axes.plot(*_closed(curve, shares, period), color=palette.REST, lw=0.7, alpha=0.6, zorder=1)
    peaks = []
    for curve in curves:
        x, y = _closed(curve, shares, period)
        color = palette.hue(direction_of(curve), curve.axis.period or 360.0)
        axes.plot(x, y, color=color, lw=2.0 if len(curves) == 1 else 1.7, zorder=3)
        at = int(np.argmax(y[:-1]))
        peaks.append((float(x[at]), float(y[at]), curve.unit.rpartition(":")[2], color))
    axes.set_facecolor("none")
    canvas.strip_spines(axes)
    axes.axhline(0, color=palette.LINE, lw=0.8, zorder=0)
    axes.set_xlim(0, period)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), high + 0.05 * (high - low))
    low, high = axes.get_ylim()
    axes.set_xticks(np.arange(0, period + 1, period / 8))
    axes.set_xlabel("")
    axes.set_ylabel("response / its peak" if shares else "response (activation)", fontsize=9.5)
    _numbers(page, peaks, left, wide, period, top, height - foot, low, high)
    for i, stimulus in enumerate(stimuli):
        middle = left + wide * i / len(stimuli)
        canvas.place_image(page, stimulus, middle - tile / 2, height - foot + 28, tile, tile)
    canvas.write(
        page, left + wide / 2, height - 28, "orientation (degrees counter-clockwise), and the stimuli there",
        size=11, align="center", limit=90
    )  # fmt: skip
    if control:
        canvas.note(page, width - 40, 72, label, size=10.5, align="right", limit=90)
    return figure


def radial_panels(
    panels: Mapping[str, Sequence[Curve]], *, notes: Mapping[str, str] | None = None, title: str = "", about: str = ""
) -> Figure:
    """Radial tuning curves in several circles side by side, each curve turned so that its peak points up.

    What is left at the bottom is the echo: a response to the opposite orientation.

    Args:
        panels: name -> curves of orientations all the way round; at most five.
        notes: name -> a line below its circle.
        title: what they are; about: a line below it.

    Raises:
        CircuitsError: nothing to draw, or orientations that do not go all the way round.
    """
    if not 1 <= len(panels) <= 5 or not all(c.axis.is_full_circle for rows in panels.values() for c in rows):
        raise CircuitsError("radial panels are one to five, of orientations at even steps all the way round")
    side, head, foot = 236.0, 92.0, 40.0
    width = max(2 * MARGIN + side * len(panels), 560)
    figure, axes = canvas.page(width, head + side + foot)
    canvas.heading(axes, title, about, limit=int(width / 8.6), room=int(width / 5.8), y=32)
    for i, (name, rows) in enumerate(panels.items()):
        x, y, radius = MARGIN + (i + 0.5) * side, head + side / 2, side / 2 - 30
        canvas.write(axes, x, head - 4, name, size=12, bold=True, align="center", limit=32)
        for share in (0.5, 1.0):
            axes.add_patch(Circle((x, y), share * radius, fill=False, edgecolor=palette.LINE, lw=0.8, zorder=0))
        for degrees in range(0, 360, 45):
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            axes.plot([x, x + radius * c], [y, y - radius * s], color=palette.LINE, lw=0.7, zorder=0)
        for degrees, text, out in ((90, "preferred", 11), (270, "opposite", 15)):
            s = math.sin(math.radians(degrees))
            at = y - (radius + out) * s + (4 if s > 0 else 0)
            canvas.note(axes, x, at, text, size=9.5, align="center")
        for curve in rows:
            line = radial_line(curve, x, y, radius, peak_up=True)
            if line is None:
                continue
            color = palette.hue(direction_of(curve), curve.axis.period or 360.0)
            axes.plot(*line, color=color, lw=1.4, zorder=3, solid_joinstyle="round")
            axes.fill(*line, color=color, alpha=0.06, zorder=2)
        note = (notes or {}).get(name, "")
        canvas.write(axes, x, head + side + 14, note, size=11, align="center", limit=36)
    return figure


def _closed(curve: Curve, shares: bool, period: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = curve.responses.double().numpy()
    if shares:
        values = values / values.max() if values.max() > 0 else values * 0
    degrees = np.asarray(curve.axis.values, dtype=np.float64)
    return np.append(degrees, degrees[0] + period), np.append(values, values[0])


def _numbers(
    page: Axes, peaks: Sequence[tuple[float, float, str, str]], left: float, wide: float, period: float,
    top: float, bottom: float, low: float, high: float,
) -> None:  # fmt: skip
    """The units' numbers above their peaks, higher where they would cover each other."""
    placed: list[tuple[float, float]] = []
    for degrees, value, text, color in sorted(peaks):
        x = left + wide * degrees / period
        y = bottom - (bottom - top) * (value - low) / (high - low) - 5
        while any(abs(x - px) < 6 + 7 * len(text) and abs(y - py) < 12 for px, py in placed):
            y -= 12
        placed.append((x, y))
        canvas.write(page, x, y, text, size=11, bold=True, color=color, align="center", zorder=6)
