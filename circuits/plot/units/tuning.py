"""Figures of tuning: radial curves, orientation curves, heat maps, the stimuli themselves, weights against angles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.crops import pixels
from circuits.plot.drawing.unit_rows import direction_of, radial_line
from circuits.plot.drawing.wording import amount, minus, short
from circuits.stimuli import Stimuli
from circuits.tuning.curves import Curve, Tuning
from circuits.tuning.detectors.sign_rule import SignRule
from zoo.inputs import InputSpec

MARGIN = 24
_MOST = 24  # curves in one figure; more cannot be distinguished


def radial_tuning(tuning: Tuning | Sequence[Curve], units: Sequence[str] | None = None, *, title: str = "") -> Figure:
    """Responses around the circle of orientations, one closed curve a unit, its number where its curve points.

    Each curve is drawn in shares of its own peak, at the unit's preferred values of all other axes. Colors go round
    the circle with the preferred orientation. For lines, whose orientations repeat after 180 degrees, the curve is
    drawn twice.

    Args:
        tuning: of `circuits.tune`, or radial curves.
        units: addresses; by default the most strongly responding, at most 24.
        title: what they are.

    Raises:
        CircuitsError: no curve to draw, or stimuli without orientations all the way round.
    """
    curves = _curves(tuning, units)
    size, head = 560.0, 70
    figure, axes = canvas.page(size + 2 * MARGIN, head + size + MARGIN)
    about = "response in shares of each unit's peak; degrees counter-clockwise, 0 to the right"
    canvas.heading(axes, title or _title(tuning, "radial tuning"), about, limit=60, room=90, y=32)
    x, y, radius = MARGIN + size / 2, head + size / 2, size / 2 - 68
    _dial(axes, x, y, radius)
    labels = []
    for curve in curves:
        period = curve.axis.period or 360.0
        line = radial_line(curve, x, y, radius)
        if line is None:
            continue
        direction = direction_of(curve)
        color = palette.hue(direction, period)
        axes.plot(*line, color=color, lw=1.6, zorder=3, solid_joinstyle="round")
        axes.fill(*line, color=color, alpha=0.07, zorder=2)
        labels.append((direction, curve.unit, color))
    for angle, direction, unit, color in _spread(labels):
        text = unit.rpartition(":")[2]
        turn, out = math.radians(angle), radius + 27
        tip = math.radians(direction)
        axes.plot(
            [x + (radius + 3) * math.cos(tip), x + (out - 16) * math.cos(turn)],
            [y - (radius + 3) * math.sin(tip), y - (out - 12) * math.sin(turn)],
            color=color, lw=0.8, zorder=3,
        )  # fmt: skip
        canvas.write(
            axes, x + out * math.cos(turn), y - out * math.sin(turn), text,
            size=12, bold=True, color=color, align="center", middle=True, zorder=5
        )  # fmt: skip
    return figure


def tuning_curves(
    tuning: Tuning | Sequence[Curve], units: Sequence[str] | None = None, *, title: str = "", shares: bool = True
) -> Figure:
    """Responses against orientation (or any axis of numbers), one line a unit.

    Args:
        tuning: of `circuits.tune` (its orientations are drawn), or curves along any one axis.
        units: addresses; by default the most strongly responding, at most 24.
        title: what they are.
        shares: in shares of each unit's peak; otherwise responses as they are.

    Raises:
        CircuitsError: no curve to draw, or an axis of words.
    """
    curves = _curves(tuning, units, closed=False)
    axis = curves[0].axis
    if any(isinstance(v, str) for v in axis.values):
        raise CircuitsError(f"the axis {axis.name} has words for values: draw tuning_map instead")
    figure, axes = _plot(760, 400, title or _title(tuning, f"tuning to {axis.name}"))
    positions = [float(v) if math.isfinite(v) else math.nan for v in axis.values]
    logarithmic = axis.period is None and min(v for v in positions if v == v) > 0
    ends: list[tuple[float, float, str, str]] = []
    for curve in curves:
        values = curve.responses.double().numpy()
        peak = values.max()
        if shares:
            values = values / peak if peak > 0 else values * 0
        direction = direction_of(curve) if axis.period else 360.0 * len(ends) / len(curves)
        color = palette.hue(direction, axis.period or 360.0)
        if axis.is_full_circle and axis.period:
            axes.plot([*positions, positions[0] + axis.period], [*values, values[0]], color=color, lw=1.7)
        else:
            axes.plot(positions, values, color=color, lw=1.7)
        at = int(np.nanargmax(np.where(np.isnan(positions), -np.inf, values)))
        ends.append((positions[at], float(values[at]), curve.unit.rpartition(":")[2], color))
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(
            [p for p in positions if p == p], [label for label, p in zip(axis.labels, positions, strict=True) if p == p]
        )
        axes.minorticks_off()
    if axis.period:
        axes.set_xlim(0, axis.period)
        axes.set_xticks(np.arange(0, axis.period + 1, axis.period / 8))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0), high + 0.12 * (high - low))
    for px, py, text, color in _stacked(ends, axes):
        axes.text(
            px, py, canvas.printable(text), color=color, fontsize=8.5, fontweight="bold", ha="center", va="bottom"
        )
    canvas.name_axes(
        axes, f"{axis.name} ({axis.unit})" if axis.unit else axis.name, "response / peak" if shares else "response"
    )
    return figure


def tuning_map(
    tuning: Tuning, unit: str, rows: str | None = None, columns: str | None = None, *, title: str = ""
) -> Figure:
    """One unit's responses along two axes as a heat map: by default orientation across, the next axis down.

    Args:
        tuning: of `circuits.tune`.
        unit: address.
        rows, columns: names of axes; over all others the maximum (over draws the mean).
        title: by default the unit's address.

    Raises:
        CircuitsError: the stimuli have one axis only. StimuliError: no such axis.
    """
    names = [a.name for a in tuning.axes if not a.average]
    if len(names) < 2:
        raise CircuitsError(f"{tuning.stimuli} vary along one axis only: draw tuning_curves instead")
    columns = columns or names[0]
    rows = rows or next(n for n in names if n != columns)
    down, across = tuning.axis(rows), tuning.axis(columns)
    values = tuning.over(rows, columns)[tuning.row(unit)].double().numpy()
    cell_w, cell_h = max(14, min(46, 620 // len(across))), 28
    left, top = 110, 84
    width, height = cell_w * len(across), cell_h * len(down)
    figure, axes = canvas.page(max(left + width + 2 * MARGIN, 470), top + height + 96)
    canvas.heading(
        axes, title or short(tuning.units[tuning.row(unit)]), f"response to {tuning.stimuli}", limit=50, room=60, y=32
    )
    scale = palette.shared_scale([values])
    canvas.place_image(axes, palette.encode(values, scale), left, top, width, height, sharp=True)
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=4))
    for i, label in enumerate(down.labels):
        canvas.write(axes, left - 8, top + (i + 0.5) * cell_h, label, size=10.5, align="right", middle=True, limit=18)
    every = max(1, math.ceil(len(across) * 34 / max(width, 1)))
    for j, label in enumerate(across.labels):
        if j % every == 0:
            x = left + (j + 0.5) * cell_w
            canvas.write(axes, x, top + height + 16, label, size=10.5, align="center", limit=12)
    about = [f"{a.name} ({a.unit})" if a.unit else a.name for a in (down, across)]
    canvas.note(axes, MARGIN, top - 8, about[0], size=10.5, limit=40)
    canvas.note(axes, left + width / 2, top + height + 34, about[1], size=10.5, align="center")
    y = top + height + 56
    if values.min() < 0:
        canvas.color_bar(axes, left, y, scale, "response")
    else:
        ramp = palette.encode([[i / 60 * scale for i in range(61)]], scale)
        canvas.write(axes, left, y + 5, "0", size=10, middle=True)
        canvas.place_image(axes, ramp, left + 12, y, 90, 10)
        axes.add_patch(Rectangle((left + 12, y), 90, 10, fill=False, edgecolor=palette.LINE, lw=0.6, zorder=4))
        canvas.write(axes, left + 110, y + 5, f"{amount(float(values.max()))} response", size=10, middle=True, limit=30)
    return figure


def stimuli_strip(stimuli: Stimuli, spec: InputSpec | None = None, *, columns: int = 12, title: str = "") -> Figure:
    """Some of the stimuli as they are drawn: the first axis across, the next down, the first value of all others.

    Args:
        stimuli: from `circuits.stimuli`.
        spec: the model's input, whose gray and channels are drawn; only 1 and 3 channels can be shown.
        columns: at most so many of the first axis, evenly spread; at most 8 of the second.
        title: by default the name of the stimuli.

    Raises:
        CircuitsError: images of another number of channels.
    """
    spec = InputSpec(size=96) if spec is None else spec
    if spec.channels not in (1, 3):
        raise CircuitsError(f"images of {spec.channels} channels cannot be shown; those of 1 or 3 can")
    varied = [a for a in stimuli.axes if not a.average and len(a) > 1][:2] or list(stimuli.axes[:1])
    picks = [_few(len(a), most) for a, most in zip(varied, (columns, 8), strict=False)]
    across, down = picks[0], picks[1] if len(picks) > 1 else [0]
    side, gap, left, top = 64, 6, 100 if len(picks) > 1 else MARGIN, 78
    figure, axes = canvas.page(
        max(left + len(across) * (side + gap) + MARGIN, 420), top + len(down) * (side + gap) + 48
    )
    canvas.write(axes, MARGIN, 30, title or stimuli.name, size=15, bold=True, limit=60)
    about = " × ".join(f"{len(a)} {a.name}" for a in stimuli.axes)
    canvas.note(axes, MARGIN, 48, f"{len(stimuli)} stimuli: {about}", size=10.5, limit=100)
    for i, r in enumerate(down):
        for j, c in enumerate(across):
            indices = {varied[0].name: c} | ({varied[1].name: r} if len(varied) > 1 else {})
            index = int(np.ravel_multi_index([indices.get(a.name, 0) for a in stimuli.axes], stimuli.shape))
            image = stimuli.tensor(spec, indices=[index])[0]
            x, y = left + j * (side + gap), top + i * (side + gap)
            canvas.place_image(axes, pixels(image, spec.channels), x, y, side, side)
            if i == 0:
                label = varied[0].labels[c]
                canvas.write(axes, x + side / 2, top - 7, label, size=10, align="center", limit=14)
        if len(varied) > 1:
            canvas.write(
                axes, left - 10, y + side / 2, varied[1].labels[r], size=10, align="right", middle=True, limit=16
            )
    foot = f"across: {varied[0].name} ({varied[0].unit})" if varied[0].unit else f"across: {varied[0].name}"
    if len(varied) > 1:
        foot += f"; down: {varied[1].name}" + (f" ({varied[1].unit})" if varied[1].unit else "")
    canvas.note(axes, MARGIN, top + len(down) * (side + gap) + 18, foot, size=10.5, limit=110)
    return figure


def sign_rule_scatter(rule: SignRule, *, title: str = "") -> Figure:
    """Weights between detectors against the angle between their orientations, with the cosine that fits best.

    Args:
        rule: of `circuits.detectors.sign_rule`.
        title: what they are.
    """
    figure, axes = _plot(560, 380, title or "Weights against the angle between detectors")
    half = rule.period / 2
    angles, weights = rule.angles.ravel(), rule.weights.ravel()
    axes.axhline(0, color=palette.LINE, lw=1, zorder=0)
    axes.scatter(angles, weights, s=16, c=[palette.color_of(w) for w in weights], alpha=0.7, linewidths=0, zorder=2)
    at = np.linspace(-half, half, 181)
    basis = np.cos(2 * np.pi / rule.period * angles)
    slope = float(np.cov(basis, weights)[0, 1] / max(np.var(basis, ddof=1), 1e-12))
    middle = float(weights.mean() - slope * basis.mean())
    axes.plot(at, middle + slope * np.cos(2 * np.pi / rule.period * at), color=palette.INK, lw=1.3, zorder=3)
    axes.set_xlim(-half, half)
    axes.set_xticks(np.arange(-half, half + 1, half / 4))
    canvas.name_axes(axes, "source's orientation less target's (degrees)", "expanded weight, summed")
    level = float(np.quantile(rule.shuffled, 0.95))
    text = minus(f"r = {rule.correlation:.2f} with the cosine; 95 % of {len(rule.shuffled)} shuffles below {level:.2f}")
    axes.set_title(text, fontsize=9, color=palette.MUTED, loc="left")
    return figure


# -- what they share ------------------------------------------------------------------------------------------


def _curves(tuning: Tuning | Sequence[Curve], units: Sequence[str] | None, *, closed: bool = True) -> list[Curve]:
    if isinstance(tuning, Tuning):
        if units is None:
            order = tuning.peaks.argsort(descending=True, stable=True)[:_MOST].tolist()
            units = [tuning.units[i] for i in order]
        curves = [tuning.radial(unit) for unit in units]
    else:
        curves = list(tuning)
        if units is not None:
            curves = [c for c in curves if c.unit in units or c.unit.rpartition("/")[2] in units]
    if not curves:
        raise CircuitsError("there is no curve to draw")
    if len(curves) > _MOST:
        raise CircuitsError(f"{len(curves)} curves cannot be distinguished in one figure; name at most {_MOST} units")
    if closed and not all(c.axis.is_full_circle for c in curves):
        raise CircuitsError("a radial figure needs orientations at even steps all the way round")
    return curves


def _title(tuning: Tuning | Sequence[Curve], kind: str) -> str:
    return f"{tuning.layer}: {kind}, {tuning.stimuli}" if isinstance(tuning, Tuning) else kind.capitalize()


def _dial(axes: Axes, x: float, y: float, radius: float) -> None:
    for share in (0.25, 0.5, 0.75, 1.0):
        axes.add_patch(Circle((x, y), share * radius, fill=False, edgecolor=palette.LINE, lw=0.8, zorder=0))
    for degrees in range(0, 360, 45):
        turn = math.radians(degrees)
        c, s = math.cos(turn), math.sin(turn)
        axes.plot([x, x + radius * c], [y, y - radius * s], color=palette.LINE, lw=0.8, zorder=0)
        out = radius + 58
        canvas.note(axes, x + out * c, y - out * s, f"{degrees}°", size=10, align="center", middle=True)


def _spread(labels: Sequence[tuple[float, str, str]], room: float = 6.5) -> list[tuple[float, float, str, str]]:
    """Angles for labels around a circle, spread where they would overlap: `(angle, direction, unit, color)`."""
    ordered = sorted(labels)
    angles = [d for d, _, _ in ordered]
    for _ in range(200):
        moved = False
        for i in range(len(angles)):
            j = (i + 1) % len(angles)
            if i == j:
                continue
            gap = (angles[j] - angles[i] + (360 if j == 0 else 0)) - room
            if gap < -1e-6:
                angles[i] += gap / 2
                angles[j] -= gap / 2
                moved = True
        if not moved:
            break
    return [(p, d, u, c) for p, (d, u, c) in zip(angles, ordered, strict=True)]


def _stacked(ends: Sequence[tuple[float, float, str, str]], axes: Axes) -> list[tuple[float, float, str, str]]:
    """Labels at peaks, those that would cover each other stacked."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    placed: list[tuple[float, float, str, str]] = []
    for x, y, text, color in sorted(ends):
        while any(_near(x, px, left, right, axes) and abs(y - py) < 0.04 * (high - low) for px, py, _, _ in placed):
            y += 0.045 * (high - low)
        placed.append((x, y, text, color))
    axes.set_ylim(low, max([high, *(y + 0.07 * (high - low) for _, y, _, _ in placed)]))
    return placed


def _near(a: float, b: float, left: float, right: float, axes: Axes) -> bool:
    if axes.get_xscale() == "log":
        a, b, left, right = (math.log(v) for v in (a, b, left, right))
    return abs(a - b) < 0.045 * (right - left)


def _few(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spread, the first among them."""
    if count <= most:
        return list(range(count))
    return sorted({int(i) for i in np.arange(most) * count / most})


def _plot(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure with one ordinary axes, in the house's type."""
    figure = canvas.figure_of_size(width / canvas.DPI, height / canvas.DPI)
    axes = figure.add_axes((78 / width, 58 / height, 1 - 110 / width, 1 - 128 / height))
    figure.text(
        MARGIN / width, 1 - 30 / height, canvas.printable(title, 70), fontsize=11, fontweight="bold",
        color=palette.INK, parse_math=False,
    )  # fmt: skip
    canvas.strip_spines(axes)
    return figure, axes
