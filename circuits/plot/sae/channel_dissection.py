"""The figure of a decomposed channel: its examples, and below them the latents that write to it, each with its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.attribution.contributions import checked_examples
from circuits.common.examples import Example
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.crops import Crop
from circuits.plot.drawing.wording import minus, number, short
from circuits.units.channel_dissection import Dissection, Writer
from zoo.images.sources import Source, open_images
from zoo.inputs import InputSpec

MARGIN, TILE, GAP, NAMES = 24, 88, 4, 196
_STRIP = 56


def dissection_figure(
    result: Dissection,
    images: Source,
    spec: InputSpec,
    *,
    visualizations: Mapping[str, Crop] | None = None,
    columns: int = 9,
) -> Figure:
    """A channel decomposed: a row of its strongest examples, then a row for each latent that writes to it.

    Under the channel's examples a strip per example shows the contributions: each latent's in its own shade,
    those of other latents and the rest in grays.

    Args:
        result: of `circuits.units.channel_dissection.dissect`.
        images: the images it was computed on.
        spec: the model's input.
        visualizations: address -> its feature visualization, before the examples.
        columns: crops in a row.

    Raises:
        CircuitsError: these are not the images that it was computed on.
    """
    opened = open_images(images)
    visualizations = visualizations or {}
    groups = {result.unit: result.examples[:columns]} | {w.unit: w.examples[:columns] for w in result.writers}
    for unit, examples in groups.items():
        checked_examples(examples, opened, unit)
    cut = crops.cut_examples(groups, opened, spec)
    wide = TILE + GAP
    left = MARGIN + NAMES + (wide + 10 if visualizations else 0)
    width = left + columns * wide + MARGIN
    top = MARGIN + 62
    below = top + TILE + 10 + _STRIP + 62
    figure, axes = canvas.page(width, below + len(result.writers) * (TILE + 14) + 34)
    shares = result.shares
    text = (
        f"on its {len(result.examples)} strongest examples the {len(result.writers)} latents shown contribute "
        f"{100 * shares['writers']:.0f} % of its response, other latents {100 * shares['others']:.0f} %, "
        f"the error of the SAE {100 * shares['rest']:.0f} %"
    )
    canvas.heading(axes, f"{short(result.unit)}, decomposed", minus(text), limit=60, room=170)
    _row(axes, cut[result.unit], visualizations.get(result.unit), left, top, bool(visualizations))
    canvas.write(axes, MARGIN, top + 18, "the channel", size=13, bold=True)
    canvas.note(axes, MARGIN, top + 36, f"responses {_span(result.examples)}", size=11)
    _strip(axes, result, left, top + TILE + 10, columns)
    canvas.note(axes, MARGIN, top + TILE + 10 + 14, "contributions to each", size=11)
    canvas.write(axes, MARGIN, below - 14, "latents that write to it", size=12, bold=True)
    canvas.note(axes, left, below - 14, "top activating images of the latent itself", size=11)
    for i, writer in enumerate(result.writers):
        y = below + i * (TILE + 14)
        _row(axes, cut[writer.unit], visualizations.get(writer.unit), left, y, bool(visualizations))
        _label(axes, writer, i, len(result.examples), MARGIN, y)
    return figure


def _span(examples: tuple[Example, ...]) -> str:
    return f"{number(examples[-1].value)} to {number(examples[0].value)}"


def _row(axes: Axes, examples: list[Crop], visualization: Crop | None, left: float, y: float, space: bool) -> None:
    if space and visualization is not None:
        canvas.place_image(axes, crops.resized(visualization, 2 * TILE), left - TILE - GAP - 10, y, TILE, TILE)
    for i, crop in enumerate(examples):
        canvas.place_crop(axes, crop, left + i * (TILE + GAP), y, TILE)


def _label(axes: Axes, writer: Writer, i: int, count: int, x: float, y: float) -> None:
    axes.bar(x + 6, 14, width=12, bottom=y + 4, color=shade(i))
    canvas.write(axes, x + 20, y + 15, short(writer.unit), size=12, mono=True, limit=24)
    canvas.write(axes, x, y + 36, minus(f"{100 * writer.share:.0f} % of the response"), size=11)
    canvas.note(axes, x, y + 53, minus(f"weight {writer.weight:.2g}"), size=11)
    text = f"largest on {writer.leads} of {count}"
    canvas.note(axes, x, y + 70, text, size=11)


def shade(i: int) -> str:
    """The color of the i-th writer: as distinct as a strip of bars needs."""
    return _SHADES[i % len(_SHADES)]


_SHADES = ("#CA5A00", "#1F6FB2", "#5B8C3A", "#8B5FA8", "#C2A000", "#2E9C95", "#B0416B", "#7A5C3E")


def _strip(axes: Axes, result: Dissection, left: float, y: float, columns: int) -> None:
    """A stacked bar under every example: heights are shares of the response, negative parts left out."""
    for k, example in enumerate(result.examples[:columns]):
        x, at = left + k * (TILE + GAP), y + _STRIP
        parts = [*zip(result.contributions[k], map(shade, range(len(result.writers))), strict=True)]
        parts += [(result.others[k], palette.REST), (result.rest[k], palette.LINE)]
        total = max(float(np.sum([max(0.0, float(v)) for v, _ in parts])), 1e-9)
        for value, color in parts:
            height = max(0.0, float(value)) / total * _STRIP
            axes.bar(x + TILE / 2, -height, width=TILE, bottom=at, color=color, linewidth=0)
            at -= height
        label = result.labels[k] if result.labels is not None else example.id.rpartition("/")[2]
        canvas.note(axes, x, y + _STRIP + 14, label, size=9, limit=15)
