"""The two groups of channels behind high-low frequency detectors, and the side of each."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.plot.circuit.graph import NO_CROPS
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.canvas import Box, fitted
from circuits.plot.drawing.unit_rows import MARGIN, draw_crop
from circuits.plot.drawing.wording import short
from circuits.plot.units.weight_factors import color_of_factor
from circuits.units.high_low_factors import FrequencyFactors

TILE, CELL = 96.0, 58.0


def frequency_factor_figure(
    factors: FrequencyFactors,
    images: crops.Crops = NO_CROPS,
    *,
    detectors: Sequence[int] | None = None,
    n: int = 5,
) -> Figure:
    """A row for each factor: its strongest channels with the frequency each prefers, and its weights into detectors.

    Args:
        factors: of `circuits.frequency_factors`.
        images: unit address -> crops.
        detectors: indices of those to draw; default the first eight.
        n: channels of each factor.
    """
    indices = list(range(min(8, len(factors.targets)))) if detectors is None else list(detectors)
    model = factors.targets[0].partition("/")[0]
    head, step = MARGIN + 66.0, TILE + 76
    start = MARGIN + n * (TILE + 8) + 34
    width = max(start + len(indices) * (CELL + 10) + MARGIN, 640)
    figure, axes = canvas.page(width, head + 2 * step + 36)
    text = f"Two factors of {len(factors.targets)} high-low frequency detectors"
    canvas.write(axes, MARGIN, MARGIN + 10, text, size=15, bold=True, limit=80)
    level = sorted(factors.shuffled)[int(0.95 * len(factors.shuffled))]
    about = (
        f"two factors of their weights from {factors.source}: {factors.octaves:.2f} octaves apart "
        f"(channels' frequencies shuffled: 95 % below {level:.2f})"
    )
    canvas.write(axes, MARGIN, MARGIN + 29, about, size=11, color=palette.MUTED, limit=int(width / 5.9))
    scale = palette.shared_scale([factors.maps[indices]])
    for k, (name, mean) in enumerate((("high frequency", factors.high), ("low frequency", factors.low))):
        y = head + k * step
        axes.add_patch(Rectangle((MARGIN, y - 9), 11, 11, facecolor=color_of_factor(k), lw=0))
        text = f"{name}: {mean:.3f} cycles per pixel"
        canvas.write(axes, MARGIN + 18, y, text, size=12, bold=True, limit=60)
        for i, (channel, share, frequency) in enumerate(factors.top(k, n)):
            x = MARGIN + i * (TILE + 8)
            unit = f"{model}/{factors.source}:{channel}"
            draw_crop(axes, next(iter(images.get(unit, ())), None), x, y + 12, TILE)
            canvas.write(axes, x, y + TILE + 27, short(unit), size=10.5, mono=True, limit=15)
            note = f"{frequency:.3f}, {100 * share:.0f} %"
            canvas.write(axes, x, y + TILE + 42, note, size=10.5, color=palette.MUTED, limit=18)
        for j, t in enumerate(indices):
            x = start + j * (CELL + 10)
            box = fitted(Box(x, y + 12 + (TILE - CELL) / 2, CELL, CELL), factors.maps[t, k].shape)
            rgb = palette.encode(factors.maps[t, k], scale)
            canvas.place_image(axes, rgb, box.x, box.y, box.width, box.height, sharp=True)
            axes.add_patch(
                Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=color_of_factor(k), lw=1)
            )
            canvas.write(axes, x + CELL / 2, y + TILE + 14, factors.targets[t].rpartition(":")[2], size=10.5, mono=True,
                         align="center", color=palette.MUTED, limit=8)  # fmt: skip
        layer = short(factors.targets[0]).rpartition(":")[0]
        canvas.write(axes, start, y, f"weights into detectors of {layer}", size=11, color=palette.MUTED, limit=60)
    canvas.color_bar(axes, start, head + 2 * step - 6, scale, "weight: excites, inhibits")
    note = "below a channel: preferred cycles per pixel, share of the factor"
    canvas.write(axes, MARGIN, head + 2 * step, note, size=10.5, color=palette.MUTED, limit=90)
    return figure
