"""Figures of what latents are worth: the best unit for each part, and orientations round the circle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Wedge

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette

MARGIN = 24
_MARKS = {  # of each kind, in order: marker, color, filled
    0: ("D", palette.INK, True),
    1: ("o", palette.EXCITES, True),
    2: ("o", palette.REST, False),
    3: ("x", palette.REST, True),
}
_NAMES = {"auc": "AUC", "iou": "IoU"}
_CHANCE = {"auc": 0.5}


def part_dots(
    parts: Sequence[str], series: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], *, title: str = ""
) -> Figure:
    """Scores of the best units for each part, a row a part, one panel a measure; the mean over parts below.

    Args:
        parts: names.
        series: kind -> measure ("auc", "iou") -> one list of scores, a part each, for every SAE of the kind. At
            most four kinds, the channels first.
        title: what they are.

    Raises:
        CircuitsError: nothing to draw, more kinds than can be distinguished, or lists of other lengths.
    """
    if not parts or not series or len(series) > len(_MARKS):
        raise CircuitsError(f"part_dots draws at least one part and 1 to {len(_MARKS)} kinds of units")
    measures = list(next(iter(series.values())))
    if any(len(scores) != len(parts) for kinds in series.values() for rows in kinds.values() for scores in rows):
        raise CircuitsError(f"a score for each of {len(parts)} parts is asked for")
    first = next(iter(series.values()))[measures[-1]]
    order = np.argsort([-np.mean([scores[k] for scores in first]) for k in range(len(parts))], kind="stable").tolist()
    step, left, wide, gap, head = 19, 120, 300, 40, 96
    bottom = head + step * (len(parts) + 1.6)
    figure, axes = canvas.page(left + len(measures) * (wide + gap) + MARGIN - 16, bottom + 40)
    canvas.write(axes, MARGIN, 32, title or "The best unit for each part", size=15, bold=True, limit=80)
    x = float(MARGIN) + 4
    for i, kind in enumerate(series):
        _mark(axes, x, 55, i)
        canvas.write(axes, x + 11, 55, kind, size=11, middle=True, limit=40)
        x += 36 + 6.4 * len(kind)
    for i, k in enumerate(order):
        canvas.write(
            axes, left - 12, head + (i + 0.5) * step, parts[k].replace("_", " "), size=11, align="right", middle=True
        )
        if i % 2 == 0:
            across = (left - 8, left + len(measures) * (wide + gap) - gap + 8)
            axes.fill_between(
                across, head + i * step, head + (i + 1) * step, color=palette.TILE, alpha=0.35, lw=0, zorder=0
            )
    mean_at = head + step * (len(parts) + 0.9)
    canvas.write(axes, left - 12, mean_at, "mean", size=11, bold=True, align="right", middle=True)
    for j, measure in enumerate(measures):
        start = left + j * (wide + gap)
        values = [v for kinds in series.values() for scores in kinds[measure] for v in scores]
        low = min(_CHANCE.get(measure, 0.0), math.floor(min(values) * 10) / 10)
        ticks = np.linspace(low, 1, round((1 - low) * 10) + 1) if low >= 0.4 else np.linspace(low, 1, 6)

        def at(v: float, start: float = start, low: float = low) -> float:
            return start + (v - low) / (1 - low) * wide

        canvas.write(
            axes, start + wide / 2, head - 12, _NAMES.get(measure, measure), size=12, bold=True, align="center"
        )
        for tick in ticks.tolist():
            chance = math.isclose(tick, _CHANCE.get(measure, -1))
            axes.plot([at(tick)] * 2, [head, bottom], color=palette.MUTED if chance else palette.LINE, lw=0.8, zorder=1)
            canvas.note(axes, at(tick), bottom + 16, f"{tick:.1f}", size=10, align="center")
            if chance:
                canvas.note(axes, at(tick), bottom + 30, "chance", size=10, align="center")
        for i in reversed(range(len(series))):
            rows = list(series.values())[i][measure]
            for scores in rows:
                for row, k in enumerate(order):
                    _mark(axes, at(scores[k]), head + (row + 0.5) * step, i)
                _mark(axes, at(float(np.mean(scores))), mean_at, i)
    return figure


def orientation_dials(
    dials: Mapping[str, Sequence[float]],
    *,
    reference: str,
    within: float = 10.0,
    notes: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Preferred orientations as ticks round circles, one circle a set of detectors.

    On every circle those of the reference stand inside, and the stretches farther than `within` from all of them are
    shaded: what others are to fill.

    Args:
        dials: name -> degrees counter-clockwise, 0 to the right.
        reference: which of them the others are held against.
        within: degrees.
        notes: name -> a line below the circle (default: how many, and the largest gap).
        title: what they are.

    Raises:
        CircuitsError: no such reference.
    """
    if reference not in dials:
        raise CircuitsError(f"no set {reference!r} among {', '.join(dials) or 'none'}")
    side, head, foot = 250, 70, 62
    columns = min(4, len(dials))
    rows = math.ceil(len(dials) / columns)
    figure, axes = canvas.page(2 * MARGIN + columns * side, head + rows * (side + foot))
    about = f"gray: farther than {within:g}° from every one of the {reference}, which are the inner ticks"
    canvas.heading(axes, title or "Preferred orientations", about, limit=30 * columns, room=34 * columns, y=32)
    own = [d % 360 for d in dials[reference]]
    for i, (name, degrees) in enumerate(dials.items()):
        x = MARGIN + (i % columns + 0.5) * side
        y = head + (i // columns) * (side + foot) + side / 2
        radius = side / 2 - 34
        _dial(axes, x, y, radius, own, within)
        is_reference = name == reference
        for turn in own:
            _tick(axes, x, y, turn, 0.62 * radius, 0.78 * radius, palette.INK, 1.3)
        for turn in [] if is_reference else degrees:
            _tick(axes, x, y, turn, 0.8 * radius, radius, palette.EXCITES, 1.1 if len(degrees) <= 100 else 0.5)
        fits = max(7.5, min(11.0, 118 / max(1, len(name))))  # within the inner ticks
        canvas.write(axes, x, y - 8, name, size=fits, bold=True, align="center", middle=True, limit=18)
        canvas.write(axes, x, y + 9, f"{len(degrees)} detectors", size=10.5, align="center", middle=True)
        note = (notes or {}).get(name) or _note(own, degrees, is_reference, reference)
        canvas.note(axes, x, y + side / 2 + 12, note, size=10.5, align="center", limit=44)
    return figure


def _note(own: Sequence[float], degrees: Sequence[float], is_reference: bool, reference: str) -> str:
    if is_reference:
        return f"largest gap {_gap(own):.0f}°"
    return f"largest gap {_gap(degrees):.0f}°, with {reference} {_gap([*own, *degrees]):.0f}°"


def _gap(degrees: Sequence[float]) -> float:
    from circuits.tuning.circular_statistics import largest_gap

    return largest_gap(degrees)


def _dial(axes: Axes, x: float, y: float, radius: float, own: Sequence[float], within: float) -> None:
    axes.add_patch(Circle((x, y), radius, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=1))
    ordered = sorted(own)
    ends = zip(ordered, [*ordered[1:], ordered[0] + 360], strict=True) if ordered else [(-within, 360 + within)]
    for a, b in ends:
        if b - a > 2 * within:
            # the page's y runs down, angles run counter-clockwise as seen
            start, stop = -(b - within), -(a + within)
            axes.add_patch(Wedge((x, y), radius, start, stop, width=0.4 * radius, color=palette.TILE, lw=0, zorder=0))
    for turn in range(0, 360, 90):
        out = radius + 16
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        canvas.note(axes, x + out * c, y - out * s, f"{turn}°", size=10, align="center", middle=True)


def _tick(axes: Axes, x: float, y: float, turn: float, inner: float, outer: float, color: str, width: float) -> None:
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    axes.plot([x + inner * c, x + outer * c], [y - inner * s, y - outer * s], color=color, lw=width, zorder=3)


def _mark(axes: Axes, x: float, y: float, kind: int) -> None:
    marker, color, filled = _MARKS[kind]
    face = color if filled else palette.PAPER
    axes.plot([x], [y], marker=marker, ms=4.6, mfc=face, mec=color, mew=1.1, alpha=0.9, ls="none",
              zorder=6 - kind)  # fmt: skip
