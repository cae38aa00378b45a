"""Figures of the modes of feature visualization: the spectrum, the decomposed unit, caricatures, a trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from circuits.errors import CircuitsError, shorten
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import amount, minus, short
from circuits.plot.visualization.card import why_none
from circuits.visualization.modes.caricature import Decomposed, Strip
from circuits.visualization.modes.spectrum import SLIGHTLY, Spectrum
from circuits.visualization.result import Visualization
from zoo.images.sources import Source
from zoo.inputs import InputSpec

MARGIN, GAP = 24, 14
_FAINTEST = 0.15  # opacity of a tile that hardly counts: still to be seen


def spectrum_strip(result: Spectrum, images: Source, spec: InputSpec) -> Figure:
    """The spectrum of a unit, from low to high: visualization, four groups of photographs, visualization; the values.

    Args:
        result: of `circuits.visualization.spectrum`.
        images: the photographs it was gathered on.
        spec: the model's input.

    Raises:
        CircuitsError: these are not the photographs that the spectrum was gathered on.
    """
    side, step = 168, 168 + GAP
    figure, axes = canvas.page(2 * MARGIN + 6 * step - GAP, MARGIN + 60 + side + 136)
    canvas.write(axes, MARGIN, MARGIN + 12, short(result.unit), size=15, bold=True, limit=40)
    about = f"from most negative to most positive; photographs: {result.images} ({result.count})"
    canvas.note(axes, MARGIN, MARGIN + 31, about, size=11, limit=150)
    top = MARGIN + 62
    cut = crops.cut_examples(result.examples, images, spec)
    names = ["negative optimum", *(f"{n} examples" if n[0] == "m" else n for n in cut), "positive optimum"]
    for i, name in enumerate(names):
        x = MARGIN + i * step
        canvas.write(axes, x, top - 8, name, size=11.5, bold=i in (0, 5), limit=26)
        if i in (0, 5):
            optimum = result.negative if i == 0 else result.positive
            draw_result(axes, optimum, x, top, side)
            text = "" if why_none(optimum) else f"{'peak' if i else 'lowest'} {amount(optimum.peak)}"
        else:
            examples = result.examples[list(cut)[i - 1]]
            _quilt(axes, list(cut.values())[i - 1], x, top, side)
            text = _range([e.value for e in examples]) if examples else "no value has this sign"
        canvas.note(axes, x, top + side + 18, text, size=11, limit=28)
    _number_line(axes, result, MARGIN, top + side + 58, 6 * step - GAP)
    return figure


def _range(values: Sequence[float]) -> str:
    low, high = amount(min(values)), amount(max(values))
    return low if low == high else f"{low} to {high}"


def _quilt(axes: Axes, examples: Sequence[crops.Crop], x: float, y: float, side: float) -> None:
    """Crops in a square of `side`, as many rows as columns."""
    if not examples:
        canvas.mark(axes, x, y, side, "none")
        return
    across = math.ceil(math.sqrt(len(examples)))
    gap = 4
    tile = (side - (across - 1) * gap) / across
    for i, crop in enumerate(examples):
        row, column = divmod(i, across)
        canvas.place_crop(axes, crop, x + column * (tile + gap), y + row * (tile + gap), tile)


def _number_line(axes: Axes, result: Spectrum, x: float, y: float, width: float) -> None:
    """All values on one line, in standard deviations, the optima too: how far they lie beyond photographs."""
    groups = [(e.value, 0) for examples in result.examples.values() for e in examples]
    optima = [(v.peak, 1) for v in (result.negative, result.positive) if v.status == "ok" and math.isfinite(v.peak)]
    values = [(v, kind) for v, kind in [*groups, *optima] if math.isfinite(v)] or [(0.0, 0)]
    low, high = min(0.0, *(v for v, _ in values)), max(0.0, *(v for v, _ in values))
    room = (high - low) or 1.0

    def along(value: float) -> float:
        return x + 10 + (value - low) / room * (width - 20)

    axes.plot([x, x + width], [y, y], color=palette.LINE, lw=1.2, solid_capstyle="butt", zorder=1)
    axes.plot([along(0)] * 2, [y - 9, y + 9], color=palette.INK, lw=1.2, zorder=2)
    canvas.write(axes, along(0), y + 24, "0", size=11, align="center")
    if result.spread > 0:
        for sign in (-1, 1):
            if low <= sign * result.spread <= high and result.spread / room > 0.008:
                axes.plot([along(sign * result.spread)] * 2, [y - 5, y + 5], color=palette.REST, lw=1, zorder=2)
                text = minus(f"{sign:+d} sd")
                if result.spread / room > 0.04:
                    canvas.note(axes, along(sign * result.spread), y + 24, text, size=10, align="center")
    for value, kind in values:
        axes.plot(
            [along(value)], [y], marker="D" if kind else "o", ms=6 if kind else 5, mew=0.8, mec=palette.PAPER,
            color=palette.color_of(value), zorder=4, ls="none",
        )  # fmt: skip
    canvas.note(axes, x, y + 46, f"values of {result.layer}: circles photographs, diamonds optima at their best "
                 f"position; 1 sd = {amount(result.spread)}; slightly: nearest to ±{SLIGHTLY:g} sd",
                 size=10.5, limit=190)  # fmt: skip


def decomposed_grid(result: Decomposed) -> Figure:
    """A visualization for each position, fainter the smaller its weights, and beside them the norms as small maps.

    Args:
        result: of `circuits.visualization.decomposed`.
    """
    rows, columns = result.norms.shape
    side = 118 if max(rows, columns) <= 5 else max(40, 590 // max(rows, columns))
    gap, top = 4, MARGIN + 56
    width, height = columns * (side + gap) - gap, rows * (side + gap) - gap
    room, key = 150, 190
    tall = 2 * (room * rows / max(rows, columns) + 64) + 30
    figure, axes = canvas.page(max(MARGIN + width + 34 + key + MARGIN, 470), top + max(height, tall) + MARGIN)
    canvas.write(axes, MARGIN, MARGIN + 12, short(result.target), size=15, bold=True, limit=40)
    about = f"feature visualization by position, in the features of {result.source}"
    canvas.note(axes, MARGIN, MARGIN + 31, about, size=11, limit=70)
    for i, row in enumerate(result.visualizations):
        for j, visualization in enumerate(row):
            x, y = MARGIN + j * (side + gap), top + i * (side + gap)
            if visualization is None:
                axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=palette.LINE, lw=0.8, zorder=2))
                canvas.write(axes, x + side / 2, y + side / 2, "·", size=13, color=palette.REST, align="center")
            else:
                draw_result(axes, visualization, x, y, side, opacity=max(_FAINTEST, float(result.opacity[i, j])))
    x = MARGIN + width + 34
    end = _heat_map(axes, "norms of all weights", result.norms.numpy(), x, top, room)
    text = f"white 0, orange {amount(result.largest)}"
    canvas.note(axes, x, end, text, size=10.5, limit=28)
    if not result.inhibition:
        end = _heat_map(axes, "of those that excite", result.excitation.numpy(), x, end + 28, room)
        canvas.note(axes, x, end, "the fainter an image, the less", size=10.5, limit=34)
    if any(p is None for row in result.visualizations for p in row):
        text = "·  too small, or only inhibits"
        canvas.note(axes, x, end + 22, text, size=10.5, limit=32)
    return figure


def _heat_map(axes: Axes, name: str, values: NDArray[np.float32], x: float, y: float, room: float) -> float:
    """Numbers from 0 to 1 as cells within a square under their name; the baseline of what is written below."""
    rows, columns = values.shape
    cell = room / max(rows, columns)
    canvas.write(axes, x, y + 9, name, size=11, limit=24)
    box = (x, y + 20, cell * columns, cell * rows)
    canvas.place_image(axes, palette.encode(values, 1.0), *box, sharp=True)
    axes.add_patch(Rectangle(box[:2], *box[2:], fill=False, edgecolor=palette.LINE, lw=0.9, zorder=4))
    return y + 38 + float(cell * rows)


def strip(result: Strip) -> Figure:
    """The photograph, and beside it the caricature that each layer makes of it.

    Args:
        result: of `circuits.visualization.caricature_strip`.
    """
    side = 200
    step = side + GAP
    figure, axes = canvas.page(2 * MARGIN + (1 + len(result.layers)) * step - GAP, MARGIN + 20 + side + 52)
    top = MARGIN + 20
    canvas.write(axes, MARGIN, top - 9, "photograph", size=12, limit=24)
    canvas.place_whole(axes, crops.pixels(result.image, len(result.image)), MARGIN, top, side)
    canvas.note(axes, MARGIN, top + side + 18, result.id, size=10.5, limit=30)
    for i, (layer, visualization) in enumerate(zip(result.layers, result.visualizations, strict=True)):
        x = MARGIN + (i + 1) * step
        canvas.write(axes, x, top - 9, layer, size=12, bold=True, limit=24)
        draw_result(axes, visualization, x, top, side)
        text = f"{result.exaggeration[i]:.3g} times as much, cosine {minus(f'{result.similarity[i]:.2f}')}"
        canvas.note(axes, x, top + side + 18, text, size=10.5, limit=34)
    return figure


def trajectory_strip(result: Visualization, *, columns: int = 8) -> Figure:
    """The images of a run in the order of their steps, and the objective below them.

    Args:
        result: with frames: of `circuits.visualization.trajectory`, `accentuate`, or `visualize(..., frames=...)`.
        columns: images side by side.

    Raises:
        CircuitsError: it has no frames.
    """
    if not result.frames:
        raise CircuitsError(f"{shorten(result.unit)} has no frames: ask for them with frames=, or use trajectory")
    steps = sorted(result.frames)
    across = max(1, min(columns, len(steps)))
    side = 112
    step, rows = side + 10, -(-len(steps) // across)
    top, width = MARGIN + 32, across * (side + 10) - 10
    below = top + rows * (step + 18)
    figure, axes = canvas.page(max(2 * MARGIN + width, 360), below + 118)
    canvas.write(axes, MARGIN, MARGIN + 12, short(result.unit), size=15, bold=True, limit=40)
    for i, at in enumerate(steps):
        x, y = MARGIN + (i % across) * step, top + (i // across) * (step + 18)
        canvas.place_whole(axes, crops.pixels(result.frames[at], result.channels), x, y, side)
        name = "start" if at == 0 else f"step {at}"
        canvas.note(axes, x, y + side + 15, name, size=10.5, limit=16)
    _history(axes, result, steps, MARGIN, below + 12, max(width, 312), 62)
    return figure


def _history(
    axes: Axes, result: Visualization, steps: Sequence[int], x: float, y: float, width: float, height: float
) -> None:
    """The objective against the logarithm of the step, the steps of the images marked."""
    values = np.asarray(result.history, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return
    low, high = float(finite.min()), float(finite.max())

    def point(step: int) -> tuple[float, float]:
        share = math.log(step) / math.log(len(values))
        return x + share * width, y + height - (values[step - 1] - low) / ((high - low) or 1.0) * height

    line = np.array([point(s) for s in range(1, len(values) + 1) if math.isfinite(values[s - 1])])
    axes.plot(line[:, 0], line[:, 1], color=palette.REST, lw=1.1, zorder=2)
    marked = np.array(
        [point(s) for s in steps if 1 <= s <= len(values) and math.isfinite(values[s - 1])] or [(x, y + height)]
    )
    axes.plot(marked[:, 0], marked[:, 1], color=palette.EXCITES, marker="o", ms=4, ls="none", zorder=3)
    text = f"objective, step 1 to {len(values)} (logarithmic): {amount(low)} to {amount(high)}"
    canvas.note(axes, x, y + height + 24, text, size=10.5, limit=max(20, int(width / 6)))


# -- what they share --------------------------------------------------------------------------------------------


def draw_result(
    axes: Axes, result: Visualization, x: float, y: float, side: float, *, opacity: float | None = None
) -> None:
    """A visualization within a square, or the mark of one that has no image; `opacity` fades it to the paper."""
    if why_none(result) is not None:
        canvas.mark(axes, x, y, side, result.status)
        return
    pixels = crops.pixels(result.image, result.channels)
    if opacity is not None:
        solid = pixels if pixels.shape[2] == 4 else np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        pixels = np.concatenate([solid[..., :3], np.rint(solid[..., 3:] * opacity).astype(np.uint8)], axis=2)
    canvas.place_whole(axes, pixels, x, y, side)
