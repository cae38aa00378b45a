"""The size curve of a ranking, beside those of random circuits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from circuits.errors import CircuitsError
from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.wording import held_at, minus
from circuits.plot.superposition.charts import head, plain
from circuits.tracing.curves.size_curve import SizeCurve

COLORS = ("#1F6FB2", "#CA5A00", "#3B8C4B", "#8A4FA8", "#B08A00", "#4D4D4D")
NULLS = {"strong": "random among the strongest", "matched": "random, as active", "any": "random, any"}


def size_curve_figure(curves: SizeCurve | Sequence[SizeCurve], *, title: str = "") -> Figure:
    """The share of a target that circuits keep, by their size, with 95 % intervals over images.

    Args:
        curves: one, or several of one target (the random circuits drawn are those of the first).
        title: default the target.

    Raises:
        CircuitsError: no curve, or curves of several targets, or of units and of edges.
    """
    listed = [curves] if isinstance(curves, SizeCurve) else list(curves)
    if not listed:
        raise CircuitsError("size_curve_figure draws at least one curve")
    first = listed[0]
    if any(curve.target != first.target for curve in listed):
        raise CircuitsError(f"curves of several targets: {', '.join(sorted({c.target for c in listed}))}")
    if any(curve.of != first.of for curve in listed):
        raise CircuitsError("a curve of units and a curve of edges count different things: draw one kind")
    figure = canvas.figure_of_size(10.4, 4.8)
    axes = figure.add_axes((0.075, 0.13, 0.54, 0.7))
    seen = "images that the ranking did not see" if first.held_out else "images, some of which were ranked on"
    other = f"every other {first.of.removesuffix('s')} {held_at(first.baseline)}"
    about = f"share of its {first.measure} kept, {other}; {first.n_images} {seen}"
    head(figure, title or first.target, about)
    for style, (kind, null) in zip((":", "--", "-."), first.nulls.items(), strict=False):
        label = f"{NULLS.get(kind, kind)}: CPR {np.mean(null.cpr):.2f}, CMD {np.mean(null.cmd):.2f}"
        axes.plot(first.sizes, np.median(null.f, axis=0), ls=style, lw=1.2, color=palette.MUTED, label=minus(label))
    for i, curve in enumerate(listed):
        color = COLORS[i % len(COLORS)]
        label = f"by {curve.method}: CPR {curve.cpr.value:.2f}, CMD {curve.cmd.value:.2f}"
        axes.fill_between(curve.sizes, curve.f_low, curve.f_high, color=color, alpha=0.15, lw=0)
        axes.plot(curve.sizes, curve.f, marker="o", ms=4, lw=1.8, color=color, label=minus(label))
    for level in (0.0, 1.0):
        axes.axhline(level, color=palette.LINE, lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    lowest = min(min(curve.f) for curve in listed)
    axes.set_ylim(max(-1.0, min(-0.05, lowest - 0.05)), max(1.08, min(2.0, max(max(c.f) for c in listed) + 0.05)))
    axes.set_xlabel(f"{first.of} in the circuit, of {first.n_units}", fontsize=9.5)
    axes.set_ylabel("share kept", fontsize=9.5)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    plain(axes)
    return figure
