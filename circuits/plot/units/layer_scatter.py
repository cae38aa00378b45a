"""A layer's units beside each other: every pair of measures as a cloud, and its correlation beside chance.

It takes what `sae.superposition.layer_units.layer_units` returns, or anything with the same
attributes: nothing of `sae` is imported here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import minus
from circuits.plot.superposition.charts import head, plain

LABELS = {
    "density": ("density", "share of positions where it is active"),
    "importance": ("importance", "KL when ablated, nats"),
    "polysemanticity": ("polysemanticity", "score"),
    "dimensionality": ("D of its latents", "mean D_i of what writes to it"),
    "writers": ("latents that write to it", "effective number"),
}
_LOGARITHMIC = ("density", "importance", "writers")


def layer_units_figure(result: Any, *, title: str = "", columns: int = 4) -> Figure:
    """Every pair of measures that `result.correlations` holds, a dot per unit.

    Args:
        result: of `sae.superposition.layer_units.layer_units`.
        title: what the units are.
        columns: clouds side by side.
    """
    pairs = list(result.correlations)
    rows = -(-len(pairs) // columns)
    width, height, above = 3.1 * columns + 0.4, 3.0 * rows + 0.9, 0.75
    figure = canvas.figure_of_size(width, height)
    head(figure, title or "Units of a layer", "rank correlation over units; in brackets 95 % of it with units shuffled")
    for i, pair in enumerate(pairs):
        row, column = divmod(i, columns)
        left = (0.8 + column * 3.1) / width
        bottom = 1 - (above + (row + 1) * 3.0 - 0.62) / height
        axes = figure.add_axes((left, bottom, 2.2 / width, 1.92 / height))
        _cloud(axes, result, pair)
    return figure


def _cloud(axes: Axes, result: Any, pair: tuple[str, str]) -> None:
    x, y = (np.asarray(getattr(result, name), dtype=np.float64) for name in pair)
    for name, values, scale in (
        (pair[0], x, axes.set_xscale),
        (pair[1], y, axes.set_yscale),
    ):
        if name in _LOGARITHMIC:
            scale("log")
            values[values <= 0] = np.nan
    correlation = result.correlations[pair]
    strong = correlation.p < 0.01
    axes.plot(x, y, ls="none", marker="o", ms=2.6, mew=0, alpha=0.5, color=palette.EXCITES if strong else palette.REST)
    text = f"{correlation.rho:+.2f}  [{correlation.low:+.2f}, {correlation.high:+.2f}]"
    axes.set_title(minus(text), fontsize=9, loc="left", color=palette.INK if strong else palette.MUTED)
    axes.set_xlabel(": ".join(LABELS[pair[0]]), fontsize=8)
    axes.set_ylabel(LABELS[pair[1]][0], fontsize=8)
    axes.tick_params(labelsize=7, which="both")
    plain(axes)
