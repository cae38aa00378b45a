"""Charts of toy models of superposition: plateaus, phases, learning, vulnerability; and of directions' geometry.

They take what `sae.superposition` returns, or anything with the same attributes: nothing of `sae` is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import minus
from circuits.plot.superposition.models import Solved, as_array, density_of, listed
from circuits.plot.units.weight_factors import FACTOR_COLORS

MARGIN = 24
PHASE_COLORS = ("#FFFFFF", "#1F6FB2", "#CA5A00")
"""Ignored, dedicated, superposed."""
_BESIDE = {"pentagon": "bottom", "square antiprism": "top", "tetrahedron": "bottom", "triangle": "top"}
"""Which side of their line names are written on that would otherwise cover each other."""


def dimensions_figure(solutions: Iterable[Solved], plateaus: Mapping[str, float], *, title: str = "") -> Figure:
    """Dimensions per feature against sparsity, and each feature's own dimensionality, beside the plateaus of solids.

    Args:
        solutions: at several densities.
        plateaus: name -> dimensionality: `sae.superposition.PLATEAUS`.
        title: what they are.

    As in "The geometry of superposition" of Elhage et al. 2022.
    """
    models = sorted(listed(solutions), key=lambda s: -density_of(s))
    figure = canvas.figure_of_size(8.6, 5.0)
    axes = figure.add_axes((0.085, 0.125, 0.70, 0.735))
    head(figure, title or "Dimensions per feature", "dots: D of each feature; line: D* = m / |W|², of each model")
    _plateau_lines(axes, plateaus)
    generator = np.random.default_rng(0)
    sparsity = [1 / density_of(s) for s in models]
    for x, solution in zip(sparsity, models, strict=True):
        norms = np.linalg.norm(as_array(solution.weights), axis=0)
        dims = np.where(norms > 0.1, as_array(solution.dimensionality), 0.0)
        # spread sideways so that features on one plateau can be counted
        spread = x * np.exp(generator.uniform(-0.05, 0.05, len(dims)))
        axes.plot(spread, dims, ls="none", marker="o", ms=2.6, mew=0, color=palette.INHIBITS, alpha=0.45, zorder=2)
    star = [s.dimensions_per_feature for s in models]
    axes.plot(sparsity, star, color=palette.EXCITES, lw=1.8, marker="o", ms=4, zorder=3)
    log_axis(axes, sparsity)
    axes.set_ylim(-0.03, 1.08)
    canvas.name_axes(axes, "1 / density   (the paper's 1 / (1 − S))", "dimensions per feature")
    plain(axes)
    return figure


def _plateau_lines(axes: Axes, plateaus: Mapping[str, float]) -> None:
    for name, at in plateaus.items():
        axes.axhline(at, color=palette.LINE, lw=0.9, zorder=0)
        axes.annotate(
            canvas.printable(f"{name}  {_fraction(at)}"),
            (1.015, at),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            color=palette.MUTED,
            va=_BESIDE.get(name, "center"),
        )


def _fraction(value: float) -> str:
    for denominator in range(1, 9):
        if abs(value * denominator - round(value * denominator)) < 1e-9:
            return f"{round(value * denominator)}/{denominator}" if denominator > 1 else f"{round(value)}"
    return f"{value:.2f}"


def phase_figure(diagram: Any, *, title: str = "") -> Figure:
    """What becomes of the last feature, trained beside closed form: white ignored, blue dedicated, orange superposed.

    Trained cells are shaded by what was found: the fuller, the longer the feature's direction; from blue to orange with
    the interference it meets.

    Args:
        diagram: of `sae.superposition.phase_diagram`.
        title: what it is.
    """
    importances, densities = list(diagram.importances), list(diagram.densities)
    figure = canvas.figure_of_size(9.6, 5.0)
    n, m = diagram.features, diagram.hidden
    about = (
        f"n = {n} features in m = {m}; the last has importance r, the others 1; {diagram.agreement:.0%} of cells agree"
    )
    head(figure, title or "What becomes of the extra feature", about.replace("%", " %"))
    xs, ys = _edges_of(densities), _edges_of(importances)
    blends = np.ones((len(importances), len(densities), 3))
    white, blue, orange = (np.array([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for c in PHASE_COLORS)
    for i in range(len(importances)):
        for j in range(len(densities)):
            length, met = (min(1.0, float(v[i, j])) for v in (diagram.norms, diagram.interference))
            full = blue + (orange - blue) * met
            blends[i, j] = white + (full - white) * length
    flat = np.stack([white, blue, orange])[np.asarray(diagram.expected)]
    for panel, (pixels, name) in enumerate(((blends, "trained, best of the runs"), (flat, "closed forms"))):
        axes = figure.add_axes((0.085 + 0.445 * panel, 0.215, 0.40, 0.60))
        axes.pcolormesh(xs, ys, pixels, shading="flat", edgecolors=palette.LINE, linewidth=0.3)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xlabel("density", fontsize=9.5)
        if panel == 0:
            axes.set_ylabel("importance r of the extra feature", fontsize=9.5)
        if m == 1:
            r = np.geomspace(ys.min(), ys.max(), 400)
            less = np.minimum(r, 1 / r)
            axes.plot(4 * less / (2 + 5 * less), r, color=palette.INK, lw=1.3, ls=(0, (4, 3)))
            axes.set_ylim(min(ys), max(ys))
        plain(axes, grid=False)
    names = ["ignored", "a dimension of its own", "in superposition"]
    x = 0.085
    for name, color in zip(names, PHASE_COLORS, strict=True):
        figure.patches.append(
            Rectangle(
                (x, 0.045), 0.018, 0.03, facecolor=color, edgecolor=palette.MUTED, lw=0.6, transform=figure.transFigure
            )  # fmt: skip
        )
        figure.text(x + 0.026, 0.06, name, fontsize=9, va="center", color=palette.INK)
        x += 0.06 + 0.0095 * len(name)
    if m == 1:
        figure.text(x, 0.06, "- -  p* = 4r / (2 + 5r), and 4 / (2r + 5)", fontsize=9, va="center", color=palette.MUTED)
    return figure


def _edges_of(values: Sequence[float]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.asarray(values, dtype=np.float64))
    if len(logs) == 1:
        return np.asarray(np.exp(np.array([logs[0] - 0.5, logs[0] + 0.5])))
    middles = (logs[1:] + logs[:-1]) / 2
    return np.asarray(
        np.exp(np.concatenate([[2 * logs[0] - middles[0]], middles, [2 * logs[-1] - middles[-1]]])), dtype=np.float64
    )


def dynamics_figure(
    steps: Sequence[int], losses: Any, dimensionalities: Any, plateaus: Mapping[str, float], *, title: str = ""
) -> Figure:
    """The dimensionality of each feature while a model is trained, above its loss: both move in jumps.

    Args:
        steps: `(T,)`; losses: `(T,)`; dimensionalities: `(T, n)`.
        plateaus: name -> dimensionality.
        title: what it is.
    """
    values, loss = as_array(dimensionalities), as_array(losses)
    figure = canvas.figure_of_size(7.8, 5.6)
    head(figure, title or "Learning in jumps", "above: D of each feature; below: loss")
    upper, lower = figure.add_axes((0.10, 0.42, 0.72, 0.45)), figure.add_axes((0.10, 0.11, 0.72, 0.25))
    _plateau_lines(upper, plateaus)
    for j in range(values.shape[1]):
        upper.plot(steps, values[:, j], color=FACTOR_COLORS[j % len(FACTOR_COLORS)], lw=1.2, alpha=0.85)
    lower.plot(steps, loss, color=palette.INK, lw=1.4)
    lower.set_ylim(0, 1.08 * float(loss.max()))
    upper.set_ylabel("dimensionality", fontsize=9.5)
    upper.set_ylim(-0.03, 1.08)
    canvas.name_axes(lower, "training step", "loss")
    upper.set_xticklabels([])
    for axes in (upper, lower):
        axes.set_xlim(min(steps), max(steps))
        plain(axes)
    return figure


def vulnerability_figure(result: Any, *, title: str = "") -> Figure:
    """How much a small change of the input does, in the worst direction and in a random one, against superposition.

    Args:
        result: of `sae.superposition.vulnerability`.
        title: what it is.
    """
    figure = canvas.figure_of_size(9.6, 4.6)
    about = (
        f"changes of length {result.radius:g}; 1 is a model without superposition; correlation {result.correlation:.2f}"
    )
    head(figure, title or "Superposition is vulnerable", about)
    sparsity = 1 / np.asarray(result.densities)
    per = np.asarray(result.features_per_dimension)
    order = np.argsort(sparsity)
    left, right = figure.add_axes((0.075, 0.14, 0.40, 0.68)), figure.add_axes((0.575, 0.14, 0.40, 0.68))
    left.axhline(1, color=palette.LINE, lw=0.9)
    left.plot(
        sparsity[order], result.attacked[order], color=palette.EXCITES, marker="o", ms=4, lw=1.6, label="attacked"
    )
    left.plot(
        sparsity[order], result.random[order], color=palette.REST, marker="s", ms=3.5, lw=1.3, label="random change"
    )
    log_axis(left, sparsity)
    canvas.name_axes(left, "1 / density", "change of output / change of input")
    left.legend(fontsize=8.5, frameon=True, edgecolor="none", loc="upper left")
    right.plot(per, result.attacked, ls="none", marker="o", ms=5, color=palette.EXCITES)
    right.plot(per, result.random, ls="none", marker="s", ms=4, color=palette.REST)
    canvas.name_axes(right, "features per dimension  |W|² / m", "change of output / change of input")
    for axes in (left, right):
        axes.set_ylim(0, 1.15 * float(np.max(result.attacked)))
        plain(axes)
    return figure


def geometry_figure(result: Any, *, title: str = "") -> Figure:
    """Dimensionality and nearest cosine of a set of directions, beside directions that mean nothing.

    Args:
        result: of `sae.superposition.geometry`.
        title: what the directions are.
    """
    figure = canvas.figure_of_size(9.6, 4.2)
    about = f"{len(result.units)} directions in {result.dimensions} dimensions; gray: {result.control.kind} directions"
    head(figure, title or "How directions share their space", about)
    near = np.abs(result.cosines[:, 0])
    pairs = (
        (result.dimensionality, result.control.dimensionality, "dimensionality D of a direction", None),
        (near, result.control.nearest, "largest cosine (its size) with another", result.chance),
    )
    for i, (values, control, name, mark) in enumerate(pairs):
        axes = figure.add_axes((0.075 + 0.5 * i, 0.155, 0.41, 0.62))
        low, high = min(values.min(), control.min()), max(values.max(), control.max())
        bins = np.linspace(low - 1e-6, high + 1e-6, 50)
        axes.hist(control, bins.tolist(), color=palette.REST, alpha=0.55, lw=0)
        axes.hist(values, bins.tolist(), color=palette.EXCITES, alpha=0.75, lw=0)
        if mark is not None:
            axes.axvline(mark, color=palette.INK, lw=1, ls=(0, (4, 3)))
            beyond = float((values > mark).mean())
            axes.set_title(f"{100 * beyond:.0f} % beyond 1 in 100 of the control", fontsize=9, loc="left")
        else:
            text = f"median {np.median(values):.3g}, control {np.median(control):.3g}"
            axes.set_title(text, fontsize=9, loc="left")
        canvas.name_axes(axes, name, "directions")
        plain(axes)
    return figure


def head(figure: Figure, title: str, about: str) -> None:
    """A chart's title, and a line on what is drawn."""
    width, height = (side * canvas.DPI for side in figure.get_size_inches())
    for text, y, size, weight, color in (
        (title, 30, 11, "bold", palette.INK),
        (minus(about), 50, 8.5, "normal", palette.MUTED),
    ):
        figure.text(
            MARGIN / width, 1 - y / height, canvas.printable(text, 170), fontsize=size, fontweight=weight, color=color,
            parse_math=False, fontfamily=canvas.FONT,
        )  # fmt: skip


def log_axis(axes: Axes, values: Iterable[float]) -> None:
    """A logarithmic axis with plain numbers: 1, 2, 5, 10, ..."""
    low, high = min(values), max(values)
    axes.set_xscale("log")
    ticks = [lead * 10.0**power for power in range(-6, 7) for lead in (1, 2, 5)]
    labeled = [t for t in ticks if low * 0.99 <= t <= high * 1.01]
    axes.set_xticks(labeled, [f"{t:g}" for t in labeled])
    axes.minorticks_off()


def plain(axes: Axes, *, grid: bool = True) -> None:
    """Axes without what a chart does not need."""
    canvas.strip_spines(axes, palette.LINE, 8.5)
    axes.tick_params(length=3)
    if grid:
        axes.grid(axis="y", color=palette.LINE, lw=0.5, alpha=0.6)
        axes.set_axisbelow(True)
