"""Figures of toy models of superposition: weights, planes, solids.

The charts are in `circuits.plot.superposition.charts`.

They take what `sae.superposition` returns, or anything with the same attributes: nothing of `sae` is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette
from circuits.plot.units.weight_factors import FACTOR_COLORS

MARGIN = 24
_ONE_LINE = 700  # pixels that a line of some hundred letters takes
_REPRESENTED = 0.5
_CROWD, _CROWD_LEAST = 24, 0.5  # in larger groups fewer pairs are joined, or lines cover each other


Solved: TypeAlias = Any
"""A trained toy model, as `sae.superposition.Solution` is one, on the floor above: its model, weights `(m, n)`, gram,
bias, dimensionality, interference and dimensions_per_feature are drawn."""
Shape: TypeAlias = Any
"""A group of directions, as `sae.superposition.Polytope` is one: its name and members are drawn."""


def as_array(values: Any) -> NDArray[np.float64]:
    """Numbers of a tensor, an array or a list."""
    return np.asarray(values.tolist() if hasattr(values, "tolist") else values, dtype=np.float64)


def listed(solutions: Iterable[Solved]) -> list[Solved]:
    """The models to draw.

    Raises:
        CircuitsError: there is none.
    """
    models = list(solutions)
    if not models:
        raise CircuitsError("there is no trained model to draw")
    return models


def density_of(solution: Solved) -> float:
    """A model's density: the mean over its features."""
    return float(np.mean(solution.model.densities))


def _percent(density: float) -> str:
    return f"{100 * density:.3g} %"


def _towards(share: float, ends: tuple[str, str] = ("#1D1C1A", "#E0A100")) -> tuple[float, float, float]:
    """A color between two, for interference: dark alone, yellow shared."""
    a, b = (np.array([int(end[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for end in ends)
    mixed = a + (b - a) * min(max(share, 0.0), 1.0)
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def _frame(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=palette.LINE, lw=0.8, zorder=4))


# -- features by features -------------------------------------------------------------------------


def gram_figure(solutions: Iterable[Solved], *, title: str = "") -> Figure:
    """`W^T W` and bias of each model, and below, by feature, the length of its direction, yellow where it interferes.

    Args:
        solutions: best drawn in order of density; at most 12 across.
        title: what they are.

    Raises:
        CircuitsError: none, or more than 12.

    As in "Demonstrating superposition" of Elhage et al. 2022.
    """
    models = listed(solutions)
    if len(models) > 12:
        raise CircuitsError(f"{len(models)} models do not fit into one figure: give at most 12")
    largest = max(len(as_array(s.bias)) for s in models)
    cell = max(2.0, min(22.0, 190.0 / largest))
    wide = cell * (largest + 2)
    step, bars, left = wide + 26, 130, MARGIN + 78
    width = max(left + len(models) * step + MARGIN - 26, 584)
    about = ["what of each feature (column) arrives at each output (row), and the bias b; ", "features by importance"]
    about = about if width < _ONE_LINE else ["".join(about)]
    top = MARGIN + 68 + 16 * len(about)
    figure, axes = canvas.page(width, top + cell * largest + 46 + bars + 118)
    canvas.write(axes, MARGIN, MARGIN + 12, title or "Superposition by density", size=15, bold=True, limit=100)
    for i, line in enumerate(about):
        canvas.note(axes, MARGIN, MARGIN + 32 + 16 * i, line, size=11, limit=130)
    scale = max(1.0, *(float(np.abs(as_array(s.gram)).max()) for s in models))
    base = top + cell * largest + 46 + bars
    reach = max(1.2, *(float(np.linalg.norm(as_array(s.weights), axis=0).max()) for s in models))
    canvas.write(axes, left - 14, top + cell * largest / 2, "W\u1d40W, b", size=12, align="right", middle=True)
    canvas.write(axes, left - 22, base - bars / 2 - 8, "length", size=11, align="right", middle=True)
    canvas.write(axes, left - 22, base - bars / 2 + 8, "of W\u1d62", size=11, align="right", middle=True)
    for i, solution in enumerate(models):
        x = left + i * step
        n = len(as_array(solution.bias))
        canvas.write(axes, x, top - 24, f"density {_percent(density_of(solution))}", size=11.5, bold=True, limit=24)
        represented = int((np.linalg.norm(as_array(solution.weights), axis=0) > _REPRESENTED).sum())
        text = f"{represented} features, D* {solution.dimensions_per_feature:.2f}"
        canvas.note(axes, x, top - 9, text, size=10, limit=30)
        side = cell * n
        canvas.place_image(axes, palette.encode(as_array(solution.gram), scale), x, top, side, side, sharp=True)
        _frame(axes, x, top, side, side)
        at = x + side + cell * 0.6
        bias = palette.encode(as_array(solution.bias)[:, None], scale)
        canvas.place_image(axes, bias, at, top, max(cell, 5), side, sharp=True)
        _frame(axes, at, top, max(cell, 5), side)
        _bars(axes, solution, x, base, cell, bars, reach)
        if i == 0:
            for tick in (0.0, 1.0):
                y = base - tick / reach * bars
                canvas.note(axes, x - 6, y, f"{tick:g}", size=10, align="right", middle=True)
    canvas.note(axes, left, base + 20, "features, most important first", size=10.5)
    y = base + 44
    canvas.color_bar(axes, left, y, scale, "weight, bias")
    ramp = np.array([[_towards(v / 60) for v in range(61)]])
    x = left + 260
    canvas.write(axes, x - 8, y + 5, "alone", size=10, align="right", middle=True)
    canvas.place_image(axes, (ramp * 255).astype(np.uint8), x, y, 60, 10)
    canvas.write(axes, x + 68, y + 5, "interference 1 and above", size=10, middle=True)
    return figure


def _bars(axes: Axes, solution: Solved, x: float, base: float, cell: float, tall: float, reach: float) -> None:
    norms, met = np.linalg.norm(as_array(solution.weights), axis=0), as_array(solution.interference)
    axes.plot([x, x + cell * len(norms)], [base, base], color=palette.MUTED, lw=0.8, zorder=3)
    at = base - tall / reach
    axes.plot([x, x + cell * len(norms)], [at, at], color=palette.LINE, lw=0.8, zorder=0)
    for j, (norm, shared) in enumerate(zip(norms.tolist(), met.tolist(), strict=True)):
        height = norm / reach * tall
        axes.add_patch(
            Rectangle((x + j * cell, base - height), max(cell * 0.86, 1), height, color=_towards(shared), lw=0)
        )


# -- features in the plane ------------------------------------------------------------------------


def planes_figure(solutions: Iterable[Solved], *, columns: int = 4, title: str = "") -> Figure:
    """The directions of features in two hidden dimensions; sets that are active together or never share a color.

    Args:
        solutions: with two hidden dimensions.
        columns: how many to a row.
        title: what they are.

    Raises:
        CircuitsError: none, or a model with other than two hidden dimensions.
    """
    models = listed(solutions)
    for solution in models:
        if as_array(solution.weights).shape[0] != 2:
            m = as_array(solution.weights).shape[0]
            raise CircuitsError(f"features in {m} hidden dimensions are not drawn in a plane: that takes 2")
    across = min(columns, len(models))
    side, gap, top = 190, 26, MARGIN + 66
    rows = math.ceil(len(models) / across)
    width = max(2 * MARGIN + across * (side + gap) - gap, 560)
    figure, axes = canvas.page(width, top + rows * (side + 58) + 8)
    reach = 1.12 * max(1.0, *(float(np.linalg.norm(as_array(s.weights), axis=0).max()) for s in models))
    sets = any(s.model.correlated or s.model.exclusive for s in models)
    about = "each line is the direction of one feature"
    about += "; features of one set share a color" if sets else ", darkest the most important"
    canvas.heading(axes, title or "Features in two dimensions", f"{about}; the ring has length 1", limit=90, room=110)
    for i, solution in enumerate(models):
        row, column = divmod(i, across)
        _plane(axes, solution, MARGIN + column * (side + gap), top + row * (side + 58), side, reach, sets)
    return figure


def _plane(axes: Axes, solution: Solved, x: float, y: float, side: float, reach: float, sets: bool) -> None:
    middle = (x + side / 2, y + 34 + side / 2)
    canvas.write(axes, x, y + 12, f"density {_percent(density_of(solution))}", size=11.5, bold=True, limit=26)
    names = _set_names(solution)
    weights = as_array(solution.weights)
    represented = int((np.linalg.norm(weights, axis=0) > _REPRESENTED).sum())
    text = names if sets else f"{represented} of {weights.shape[1]} features, D* {solution.dimensions_per_feature:.2f}"
    canvas.note(axes, x, y + 27, text, size=10, limit=40)
    scale = side / 2 / reach
    axes.add_patch(Circle(middle, scale, fill=False, edgecolor=palette.LINE, lw=0.9, zorder=0))
    axes.plot([middle[0] - 3, middle[0] + 3], [middle[1]] * 2, color=palette.MUTED, lw=0.7, zorder=1)
    axes.plot([middle[0]] * 2, [middle[1] - 3, middle[1] + 3], color=palette.MUTED, lw=0.7, zorder=1)
    for j in reversed(range(weights.shape[1])):
        tip = (middle[0] + scale * weights[0, j], middle[1] - scale * weights[1, j])
        color = _set_color(solution, j) if sets else _towards(j / max(1, weights.shape[1] - 1))
        axes.plot([middle[0], tip[0]], [middle[1], tip[1]], color=color, lw=1.7, zorder=2, solid_capstyle="round")
        axes.plot([tip[0]], [tip[1]], marker="o", ms=6, color=color, mec=palette.PAPER, mew=0.6, zorder=3)


def _set_names(solution: Solved) -> str:
    model = solution.model
    parts = [f"{len(model.correlated)} correlated sets"] if model.correlated else []
    parts += [f"{len(model.exclusive)} exclusive sets"] if model.exclusive else []
    return ", ".join(parts) or "independent"


def _set_color(solution: Solved, feature: int) -> str:
    groups = (*solution.model.correlated, *solution.model.exclusive)
    index = next((i for i, group in enumerate(groups) if feature in group), None)
    return palette.REST if index is None else FACTOR_COLORS[index % len(FACTOR_COLORS)]


# -- solids ---------------------------------------------------------------------------------------


def graph_figure(
    groups: Sequence[tuple[str, Any, Sequence[Shape]]], *, least: float = 0.15, columns: int = 3, title: str = ""
) -> Figure:
    """Features as points, joined where they interfere: each group a ring of its own, with the solid's name.

    Args:
        groups: for each panel a caption, directions `(n, d)`, and the solids they form (`solution.polytopes`).
        least: cosine above which two features are joined.
        columns: panels to a row.
        title: what they are.

    Raises:
        CircuitsError: no panel.
    """
    if not groups:
        raise CircuitsError("there is no set of directions to draw")
    across = min(columns, len(groups))
    side, gap, top = 330, 28, MARGIN + 66
    rows = math.ceil(len(groups) / across)
    figure, axes = canvas.page(max(2 * MARGIN + across * (side + gap) - gap, 560), top + rows * (side + 62) + 34)
    about = (
        f"points are features; lines join those whose cosine is above {least:g} in size, {_CROWD_LEAST:g} in groups "
    )
    about += f"of more than {_CROWD} (orange +, blue −)"
    canvas.heading(axes, title or "Features that share dimensions", about, limit=90, room=160)
    for i, (caption, directions, shapes) in enumerate(groups):
        row, column = divmod(i, across)
        x, y = MARGIN + column * (side + gap), top + row * (side + 62)
        canvas.write(axes, x, y + 12, caption, size=11.5, bold=True, limit=46)
        canvas.note(axes, x, y + 28, _counted(shapes), size=10, limit=62)
        _rings(axes, as_array(directions), shapes, x, y + 38, side, least)
    y = top + rows * (side + 62) + 8
    across_at = float(MARGIN)
    for k, name in enumerate(dict.fromkeys(shape.name for _, _, shapes in groups for shape in shapes)):
        if k > 7:
            break
        axes.plot([across_at + 5], [y], marker="o", ms=6, color=_shape_color(name), mew=0)
        canvas.write(axes, across_at + 15, y, name, size=10.5, middle=True, limit=20)
        across_at += 34 + 6.6 * len(name)
    return figure


def _counted(shapes: Sequence[Shape]) -> str:
    counts: dict[str, int] = {}
    for shape in shapes:
        counts[shape.name] = counts.get(shape.name, 0) + 1
    plural = {name: "" if count == 1 or name == "dedicated" else "s" for name, count in counts.items()}
    recognized = [f"{count} {name}{plural[name]}" for name, count in counts.items() if name != "unrecognized"]
    unrecognized = [len(shape.members) for shape in shapes if shape.name == "unrecognized"]
    return ", ".join([*recognized, *(f"a group of {size}" for size in unrecognized)]) or "no feature"


def _shape_color(name: str) -> str:
    names = ("dedicated", "digon", "triangle", "pentagon", "tetrahedron", "square antiprism", "hexagon", "heptagon")
    order = (5, 0, 1, 3, 2, 4, 6, 7)
    return FACTOR_COLORS[order[names.index(name)]] if name in names else palette.REST


def _rings(
    axes: Axes, rows: NDArray[np.float64], shapes: Sequence[Shape], x: float, y: float, side: float, least: float
) -> None:
    """Groups packed in rows, largest first, each on a circle whose size goes with its number of members."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    ordered = sorted(shapes, key=lambda s: -len(s.members))
    # room for one member, made smaller until all groups fit the square
    for spacing in np.linspace(34, 2, 65):
        radii = [max(spacing * 0.6, spacing * len(s.members) / (2 * math.pi) * 1.25) for s in ordered]
        centers = _packed(radii, side, spacing)
        if centers is not None:
            break
    else:
        return
    for shape, radius, (cx, cy) in zip(ordered, radii, centers, strict=True):
        ring = _around(unit[list(shape.members)])
        count = len(shape.members)
        spread = 0.0 if count == 1 else radius * 0.92
        at = {
            member: (
                x + cx + spread * math.cos(2 * math.pi * k / count),
                y + cy + spread * math.sin(2 * math.pi * k / count),
            )
            for k, member in enumerate(shape.members[i] for i in ring)
        }
        lines, tints, widths = [], [], []
        for position, a in enumerate(shape.members):
            for b in shape.members[position + 1 :]:
                cosine = float(unit[a] @ unit[b])
                if abs(cosine) > (least if count <= _CROWD else max(least, _CROWD_LEAST)):
                    lines.append([at[a], at[b]])
                    tints.append(palette.color_of(cosine))
                    widths.append(0.25 + 1.5 * abs(cosine) * min(1.0, 14 / count))
        alpha = 0.75 if count <= 12 else 0.4
        axes.add_collection(LineCollection(lines, colors=tints, linewidths=widths, zorder=1, alpha=alpha))
        xs, ys = zip(*at.values(), strict=True)
        axes.plot(xs, ys, ls="none", marker="o", ms=5, mew=0.5, mec=palette.PAPER, color=_shape_color(shape.name))


def _packed(radii: Sequence[float], side: float, gap: float) -> list[tuple[float, float]] | None:
    centers: list[tuple[float, float]] = []
    cx, cy, tall = 0.0, 0.0, 0.0
    for radius in radii:
        if 2 * radius > side:
            return None
        if cx + 2 * radius > side:
            cx, cy, tall = 0.0, cy + tall + gap, 0.0
        centers.append((cx + radius, cy + radius))
        cx, tall = cx + 2 * radius + gap, max(tall, 2 * radius)
    return centers if cy + tall <= side else None


def _around(unit: NDArray[np.float64]) -> list[int]:
    """The order of a group's members around its ring: by angle in the plane that holds most of them."""
    if len(unit) < 3:
        return list(range(len(unit)))
    _, _, axes = np.linalg.svd(unit, full_matrices=False)
    flat = unit @ axes[:2].T
    return [int(i) for i in np.argsort(np.arctan2(flat[:, 1], flat[:, 0]), kind="stable")]


# -- neurons --------------------------------------------------------------------------------------


def neurons_figure(solutions: Iterable[Solved], *, title: str = "") -> Figure:
    """Weights of hidden neurons (rows) by feature (columns), neurons in the order of the feature they weigh most.

    Args:
        solutions: with neurons: kinds "absolute" and "privileged".
        title: what they are.
    """
    models = listed(solutions)
    n = max(as_array(s.weights).shape[1] for s in models)
    cell = max(6.0, min(20.0, 220.0 / n))
    top, step = MARGIN + 84, cell * n + 30
    tall = max(cell * as_array(s.weights).shape[0] for s in models)
    figure, axes = canvas.page(max(2 * MARGIN + 24 + len(models) * step, 560), top + tall + 70)
    about = "weights into each neuron (row) of each feature (column, most important first)"
    canvas.heading(axes, title or "Weights of neurons", about, limit=100, room=120)
    scale = palette.shared_scale([as_array(s.weights) for s in models])
    for i, solution in enumerate(models):
        weights = as_array(solution.weights)
        x = MARGIN + 24 + i * step
        order = np.argsort(np.abs(weights).argmax(axis=1), kind="stable")
        share = np.abs(weights).max(axis=1) / np.maximum(np.abs(weights).sum(axis=1), 1e-9)
        alive = np.abs(weights).max(axis=1) > 0.2
        single = int(((share > 0.8) & alive).sum())
        canvas.write(axes, x, top - 24, f"density {_percent(density_of(solution))}", size=11.5, bold=True, limit=24)
        text = f"{single} of {int(alive.sum())} for one feature"
        canvas.note(axes, x, top - 9, text, size=10, limit=34)
        wide, high = cell * weights.shape[1], cell * weights.shape[0]
        canvas.place_image(axes, palette.encode(weights[order], scale), x, top, wide, high, sharp=True)
        _frame(axes, x, top, wide, high)
    canvas.note(axes, MARGIN + 10, top + tall / 2, "neurons", size=11, align="center", rotation=90)
    canvas.note(axes, MARGIN + 24, top + tall + 18, "features", size=11)
    canvas.color_bar(axes, MARGIN + 24, top + tall + 38, scale, "weight")
    return figure
