"""Figures of sparse autoencoders: one vector decomposed, densities of latents, and scaling with size and data.

They take numbers and images: nothing of `sae` is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from circuits.plot.drawing import canvas, palette
from circuits.plot.drawing.crops import Crop
from circuits.plot.drawing.wording import amount
from circuits.plot.sae.channel_dissection import shade
from circuits.plot.superposition.charts import head, plain

MARGIN = 24
Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """A latent that is active on a vector.

    Attributes:
        name: of the latent; value: how active.
        share: of the reconstruction's length about the offset that it gives, along it.
        crops: its top activating images.
    """

    name: str
    value: float
    share: float
    crops: Sequence[Crop]


def schematic_figure(
    image: Crop,
    box: tuple[float, float, float, float],
    vector: Numbers,
    parts: Sequence[Part],
    reconstruction: Numbers,
    *,
    title: str,
    about: str,
    remaining: int = 0,
) -> Figure:
    """A vector of many channels, the few latents that it is made of, and their sum.

    Args:
        image: `(H, W, 3)` bytes; box: `(top, left, bottom, right)` of what the vector is of, in shares of it.
        vector, reconstruction: `(d,)`.
        parts: latents to show, strongest first; remaining: how many more are active.
        title: of the figure; about: a line below it.
    """
    tile, gap, most = 62, 5, max((len(p.crops) for p in parts), default=0)
    left, wide, step = MARGIN, 232, 78
    middle = left + wide + 56
    across = 118 + most * (tile + gap)
    right = middle + across + 52
    rows = max(len(parts), 4)
    top = MARGIN + 72
    height = top + rows * step + 34
    figure, axes = canvas.page(right + wide + MARGIN, height)
    canvas.heading(axes, title, about, limit=80, room=150)
    canvas.write(axes, left, top - 14, "a position of an image", size=12, bold=True)
    side = 150.0
    canvas.place_image(axes, image, left, top, side, side)
    a, b, c, d = box
    axes.add_patch(
        Rectangle((left + b * side, top + a * side), (d - b) * side, (c - a) * side, fill=False,
                  edgecolor=palette.EXCITES, lw=1.8, zorder=5)
    )  # fmt: skip
    bars = top + side + 40
    scale = float(max(np.abs(vector).max(initial=0.0), np.abs(reconstruction).max(initial=0.0))) or 1.0
    canvas.write(axes, left, bars - 10, f"{len(vector)} channels", size=12, bold=True)
    signed = min(float(vector.min(initial=0.0)), float(reconstruction.min(initial=0.0))) < -0.02 * scale
    _bars(axes, vector, scale, left, bars, wide, 63 if signed else 84)
    canvas.note(axes, left, bars + 104, f"up to {amount(float(np.max(vector)))}", size=10.5)
    canvas.write(axes, middle, top - 14, f"{len(parts) + remaining} active latents", size=12, bold=True)
    for i, part in enumerate(parts):
        y = top + i * step
        axes.bar(middle + 5, 12, width=10, bottom=y + 10, color=shade(i))
        canvas.write(axes, middle + 16, y + 20, part.name, size=12, mono=True, bold=True, limit=12)
        lines = (f"{amount(part.value)} active", f"{100 * part.share:.0f} % of it")
        for k, line in enumerate(lines):
            canvas.note(axes, middle, y + 38 + 15 * k, line, size=10.5, limit=18)
        for k, crop in enumerate(part.crops):
            canvas.place_crop(axes, crop, middle + 118 + k * (tile + gap), y, tile)
    if remaining:
        y = top + len(parts) * step + 12
        canvas.note(axes, middle, y, f"and {remaining} more", size=11)
    canvas.write(axes, right, top - 14, "their sum", size=12, bold=True)
    _stack(axes, parts, right, top, wide)
    canvas.write(axes, right, bars - 10, f"{len(vector)} channels, reconstructed", size=12, bold=True)
    _bars(axes, reconstruction, scale, right, bars, wide, 63 if signed else 84)
    for x in (left + wide + 14, middle + across + 10):
        axes.annotate("", (x + 28, bars + 42), (x, bars + 42), arrowprops={"arrowstyle": "-|>", "color": palette.REST})
    return figure


def _bars(axes: Axes, values: Numbers, scale: float, x: float, y: float, width: float, height: float) -> None:
    """One thin bar a channel, from a line `height` below the top up, below it where negative."""
    step = width / len(values)
    at = x + (np.arange(len(values)) + 0.5) * step
    tall = np.clip(values / scale, -0.3, 1.0) * height
    axes.bar(at, -tall, width=max(step * 0.9, 0.5), bottom=y + height, lw=0,
             color=[palette.color_of(float(v)) for v in values])  # fmt: skip
    axes.plot([x, x + width], [y + height, y + height], color=palette.LINE, lw=0.9, zorder=1)


def _stack(axes: Axes, parts: Sequence[Part], x: float, y: float, width: float) -> None:
    """Shares of the reconstruction side by side, in the latents' shades; what is left is gray."""
    at = x
    for i, part in enumerate(parts):
        length = max(0.0, part.share) * width
        axes.add_patch(Rectangle((at, y), length, 26, color=shade(i), lw=0))
        at += length
    axes.add_patch(Rectangle((at, y), max(0.0, x + width - at), 26, color=palette.TILE, lw=0))
    canvas.note(axes, x, y + 44, "shares of the reconstruction, by latent", size=10.5)


def densities_figure(groups: Mapping[str, Numbers], *, title: str, about: str, floor: float) -> Figure:
    """Histograms of the densities of units, one curve for each group.

    Args:
        groups: name -> share of positions at which each unit is active, `(units,)`; the first is drawn in full color.
        title: of the figure; about: a line below it.
        floor: smallest share that can be distinguished from never.
    """
    figure = canvas.figure_of_size(8.6, 4.6)
    axes = figure.add_axes((0.085, 0.135, 0.89, 0.66))
    head(figure, title, about)
    low = np.log10(floor)
    edges = np.linspace(low - 0.35, 0.0, 46)
    tones = (palette.EXCITES, palette.INHIBITS, palette.REST)
    for i, (name, shares) in enumerate(groups.items()):
        logs = np.log10(np.maximum(np.asarray(shares, dtype=np.float64), floor / 2))
        counts, _ = np.histogram(np.clip(logs, edges[0], 0.0), bins=edges)
        tone = tones[i % len(tones)]
        silent = int((np.asarray(shares) == 0).sum())
        label = f"{name}: {len(shares)}" + (f", {silent} silent" if silent else "")
        axes.stairs(100 * counts / len(shares), edges, color=tone, lw=1.8, fill=False, label=label, zorder=4 - i)
        axes.stairs(100 * counts / len(shares), edges, color=tone, fill=True, alpha=0.14, zorder=3 - i)
    ticks = [t for t in range(int(np.ceil(low)), 1)]
    axes.set_xticks(ticks, [_percent(10.0**t) for t in ticks])
    canvas.name_axes(axes, "density: share of positions at which a unit is active (logarithmic)", "units, %")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, fontsize=8.5, frameon=False)
    plain(axes)
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def scaling_figure(
    sizes: Sequence[int], unexplained: Mapping[str, Sequence[float]], baselines: Mapping[str, Sequence[float]],
    *, title: str, about: str,
) -> Figure:  # fmt: skip
    """Variance that SAEs of growing size leave unexplained, a line for each amount of data, baselines dashed.

    Args:
        sizes: latents; unexplained: name -> fraction of variance for each size; baselines: the same.
        title: of the figure; about: a line below it.
    """
    figure = canvas.figure_of_size(8.6, 4.4)
    axes = figure.add_axes((0.085, 0.14, 0.63, 0.70))
    head(figure, title, about)
    tones = ("#F0B98A", "#E08A45", palette.EXCITES)
    for i, (name, values) in enumerate(unexplained.items()):
        tone = tones[len(tones) - len(unexplained) + i] if len(unexplained) <= len(tones) else palette.EXCITES
        axes.plot(sizes, values, color=tone, lw=2, marker="o", ms=5, label=name, zorder=4)
    for i, (name, values) in enumerate(baselines.items()):
        tone = (palette.INHIBITS, palette.REST)[i % 2]
        axes.plot(sizes, values, color=tone, lw=1.4, ls=(0, (4, 3)), marker="s", ms=3.5, label=name, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes), [f"{s:,}" for s in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, None)
    canvas.name_axes(axes, "latents", "variance unexplained, held-out images")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=8.5, frameon=False)
    plain(axes)
    return figure
