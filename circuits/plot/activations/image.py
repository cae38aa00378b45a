"""Figures of one image, decomposed: the semantic dictionary, the activation grid, groups, and attributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from circuits.activations.neuron_groups import Groups
from circuits.activations.semantic_dictionary import ActivationGrid, Entry, SemanticDictionary
from circuits.activations.spatial_attribution import PositionCheck, SpatialAttribution
from circuits.attribution.attribute import Attribution
from circuits.errors import CircuitsError
from circuits.network.operations import Pair
from circuits.plot.drawing import canvas, crops, palette
from circuits.plot.drawing.wording import amount, number as signed, short
from circuits.plot.visualization.modes import draw_result

MARGIN = 24
_OPAQUE = 0.85  # of the strongest position of a map over an image, which stays visible


def dictionary_figure(result: SemanticDictionary) -> Figure:
    """An image with positions marked, and for each the most active units of the layer there, with their icons.

    Args:
        result: of `circuits.activations.semantic_dictionary.semantic_dictionary`.
    """
    side, crop, tile = 270, 112, 112
    rows, most = len(result.entries), max(len(e.units) for e in result.entries)
    step = tile + 60
    left = MARGIN + side + 34
    width = left + crop + 26 + most * (tile + 14) + MARGIN
    figure, axes = canvas.page(width, MARGIN + 44 + max(side + 40, rows * step))
    _title(axes, f"{short(result.layer)} at {rows} position{'s' * (rows != 1)}", "the most active units and their "
           "feature visualizations; below: activation here, and on average over the image")  # fmt: skip
    top = MARGIN + 54
    pixels, high = _input_image(axes, result, top, side)
    for i, entry in enumerate(result.entries):
        y = top + i * step
        _spot(axes, result, entry, MARGIN, top, side, high, f"{i + 1}")
        canvas.place_image(axes, crops.resized(crops.cut(pixels, entry.box), 2 * crop), left, y, crop, crop)
        canvas.write(axes, left, y + crop + 16, f"{i + 1}  at {entry.position[0]},{entry.position[1]}", size=11)
        for k, unit in enumerate(entry.units):
            x = left + crop + 26 + k * (tile + 14)
            if entry.icons:
                draw_result(axes, entry.icons[k], x, y, tile)
            else:
                canvas.mark(axes, x, y, tile, "no icon")
            canvas.write(axes, x, y + tile + 16, short(unit).rpartition(":")[2], size=12, mono=True, bold=True)
            text = f"{amount(entry.values[k])}, average {amount(entry.typical[k])}"
            canvas.note(axes, x, y + tile + 31, text, size=10, limit=26)
    return figure


def _input_image(
    axes: Axes, result: SemanticDictionary | ActivationGrid, top: float, side: float
) -> tuple[crops.Crop, float]:
    """The image that was decomposed, its name below it; its pixels, and its height on the page."""
    pixels = crops.pixels(result.image, len(result.image))
    high = side * pixels.shape[0] / pixels.shape[1]
    canvas.place_image(axes, pixels, MARGIN, top, side, high)
    canvas.note(axes, MARGIN, top + high + 18, result.id, size=10.5, limit=int(side / 6.1))
    return pixels, high


def _spot(
    axes: Axes, result: SemanticDictionary, entry: Entry, x: float, y: float, wide: float, high: float, name: str
) -> None:
    """A position of the map on the image, with its number, and around it the receptive field where it is smaller."""
    height, width = result.image.shape[1:]
    top, left, bottom, right = entry.box
    if (bottom - top, right - left) < (height, width):
        box = (x + left / width * wide, y + top / height * high)
        size = ((right - left) / width * wide, (bottom - top) / height * high)
        axes.add_patch(Rectangle(box, *size, fill=False, edgecolor=palette.EXCITES, lw=1.1, alpha=0.8, zorder=5))
    cell = (wide / result.size[1], high / result.size[0])
    corner = (x + entry.position[1] * cell[0], y + entry.position[0] * cell[1])
    axes.add_patch(Rectangle(corner, *cell, fill=False, edgecolor=palette.EXCITES, lw=1.8, zorder=6))
    at = (corner[0] + cell[0] / 2, corner[1] + cell[1] / 2)
    axes.plot(*at, marker="o", ms=13, color=palette.EXCITES, mec=palette.PAPER, mew=1.2, zorder=6)
    canvas.write(axes, *at, name, size=11, bold=True, color=palette.PAPER, align="center", middle=True, zorder=7)


def grid_figure(result: ActivationGrid, *, magnitude: bool = True) -> Figure:
    """An image, and beside it the activation grid of a layer: an icon for each position.

    Args:
        result: of `circuits.activations.semantic_dictionary.activation_grid`.
        magnitude: draw icons in proportion to the magnitude of the activations there.
    """
    rows, columns = result.norms.shape
    tile = max(30.0, min(84.0, 620 / max(rows, columns)))
    height, width = rows * tile, columns * tile
    side = min(340.0, max(220.0, height))
    figure, axes = canvas.page(2 * MARGIN + side + 34 + width, MARGIN + 60 + max(height, side + 30) + 12)
    content = "activations whitened by the layer's covariance" if result.whitened else "activations"
    size = "; size: magnitude" if magnitude else ""
    each = "position" if result.pooled == 1 else f"{result.pooled} by {result.pooled} positions"
    _title(axes, f"Activation grid of {short(result.layer)}", f"one icon for each {each}: {content}{size}")
    top = MARGIN + 54
    _input_image(axes, result, top, side)
    for i, row in enumerate(result.icons):
        for j, icon in enumerate(row):
            if icon is None:
                continue
            extent = tile * (float(result.scales[i, j]) if magnitude else 1.0) * 0.97
            x, y = MARGIN + side + 34 + (j + 0.5) * tile - extent / 2, top + (i + 0.5) * tile - extent / 2
            draw_result(axes, icon, x, y, extent)
    return figure


def groups_figure(result: Groups, image: Tensor, *, index: int = 0) -> Figure:
    """Each group of channels: its map on an image, its feature visualization, and its attribution to classes.

    Args:
        result: of `circuits.activations.neuron_groups.neuron_groups`.
        image: `(C, H, W)` in [0, 1], as the network gets it.
        index: which of the images of `result` that is.
    """
    k, tile, bars = len(result.directions), 132, 210
    has_icons, step = bool(result.icons), 176
    across = tile + 14 + (tile + 14 if has_icons else 0) + (bars if result.classes else 0) + 20
    columns = 2 if k > 1 else 1
    rows = -(-k // columns)
    top = MARGIN + 78
    figure, axes = canvas.page(max(2 * MARGIN + columns * across, 620), top + rows * step + 6)
    _title(axes, f"{k} groups of channels of {short(result.layer)}", f"{result.ids[index]}: the groups hold "
           f"{result.explained:.0%} of the activations' squares; of shuffled channels, as many groups "
           f"{result.shuffled:.0%}")  # fmt: skip
    if result.classes:
        rest = ", ".join(
            f"{n} {signed(float(result.rest[index, c]))}" for c, n in enumerate(_plain_names(result.names))
        )
        canvas.note(axes, MARGIN, MARGIN + 50, f"bars: attribution of a group to a class score, to first order; "
                     f"remainder: {rest}", size=11, limit=178)  # fmt: skip
    largest = float(result.pushes[:, index].abs().max()) if result.classes else 1.0
    gray = _gray(image)
    strongest = float(result.maps[:, index].max())
    for g in range(k):
        x, y = MARGIN + (g % columns) * across, top + (g // columns) * step
        _over(axes, gray, result.maps[g, index].numpy(), strongest, x, y, tile)
        units = ", ".join(unit.rpartition(":")[2] for unit, _ in result.units(4)[g])
        canvas.write(axes, x, y + tile + 17, f"group {g}", size=12, bold=True)
        canvas.note(axes, x + 62, y + tile + 17, f"channels {units}", size=10, limit=44)
        x += tile + 14
        if has_icons:
            draw_result(axes, result.icons[g], x, y, tile)
            x += tile + 14
        for c, name in enumerate(_plain_names(result.names)):
            _bar(axes, name, float(result.pushes[g, index, c]), largest, x, y + 12 + c * 40, bars - 36)
    return figure


def attribution_figure(
    attributions: Sequence[Attribution] | Attribution,
    image: Tensor,
    *,
    names: Sequence[str] = (),
    checks: Sequence[PositionCheck] = (),
    top: int = 6,
) -> Figure:
    """Attribution of a class to the positions and channels of a layer, on one image; a row for each.

    Args:
        attributions: of `circuits.attribute` on that image alone, from the same layer.
        image: `(C, H, W)` in [0, 1], as the network gets it.
        names: of the targets.
        checks: of `circuits.activations.spatial_attribution.check_positions`: the effect of ablating each position.
        top: channels of each.

    Raises:
        CircuitsError: attributions on several images.
    """
    rows = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    if not rows or any(len(f.values) != 1 for f in rows):
        raise CircuitsError("a figure of attribution is of one image: attribute one alone")
    side, step = 190, 190 + 62
    bars = 250
    across = side + 18 + (side + 18 if checks else 0) + bars
    figure, axes = canvas.page(2 * MARGIN + across, MARGIN + 58 + len(rows) * step)
    about = "left by position, middle lost when one position is ablated, right" if checks else "left by position, right"
    _title(axes, f"Attribution to {rows[0].source}", f"orange for it, blue against it; {about} by channel")
    gray = _gray(image)
    for i, row in enumerate(rows):
        y = MARGIN + 78 + i * step
        name = names[i] if i < len(names) else short(row.target)
        score = f"{name}: score {signed(float(row.response[0]))}, attributed {signed(float(row.values.sum()))}"
        canvas.write(axes, MARGIN, y - 8, score, size=12, bold=True, limit=70)
        positions = row.by_position[0].float().cpu().numpy()
        _over(axes, gray, positions, float(np.abs(positions).max()), MARGIN, y, side)
        canvas.note(axes, MARGIN, y + side + 17, "gradient times activation", size=10.5)
        x = MARGIN + side + 18
        if checks:
            drops = checks[i].drops.numpy()
            _over(axes, gray, drops, float(np.abs(drops).max()), x, y, side)
            text = f"ablated: r = {checks[i].correlation:.2f} (chance {checks[i].shuffled:.2f})"
            canvas.note(axes, x, y + side + 17, text, size=10.5, limit=36)
            x += side + 18
        ranked = row.top(top)
        largest = max((abs(v) for _, v in ranked), default=1.0)
        for k, (channel, value) in enumerate(ranked):
            _bar(axes, f"{row.source}:{channel}", value, largest, x, y + 12 + k * (side / top), bars - 36, mono=True)
    return figure


def spatial_figure(result: SpatialAttribution, image: Tensor, at: Sequence[Pair]) -> Figure:
    """For some positions of a later layer: the attribution of their activations to positions of an earlier one.

    Args:
        result: of `circuits.activations.spatial_attribution.spatial_attribution`.
        image: `(C, H, W)` in [0, 1], as the network gets it.
        at: positions of the later layer, `(row, column)`.

    Raises:
        CircuitsError: a position outside of its map.
    """
    side = 190
    figure, axes = canvas.page(max(2 * MARGIN + len(at) * (side + 16), 480), MARGIN + 60 + side + 40)
    _title(axes, f"Spatial attribution of {short(result.target)}", f"contributions of positions of "
           f"{short(result.source)} to the marked position")  # fmt: skip
    gray = _gray(image)
    height, width = result.response.shape
    for i, (y, x) in enumerate(at):
        if not (0 <= y < height and 0 <= x < width):
            raise CircuitsError(f"position {y},{x} is outside the {height}x{width} map of {result.target}")
        left, top = MARGIN + i * (side + 16), MARGIN + 52
        positions = result.positions[y, x].numpy()
        _over(axes, gray, positions, float(np.abs(positions).max()), left, top, side)
        high, wide = side / max(gray.shape[:2]) * gray.shape[0], side / max(gray.shape[:2]) * gray.shape[1]
        axes.add_patch(
            Rectangle((left + x / width * wide, top + y / height * high), wide / width, high / height, fill=False,
                      edgecolor=palette.INK, lw=1.6, zorder=6)
        )  # fmt: skip
        share = float(positions.sum()) / max(float(result.response[y, x]), 1e-30)
        canvas.note(axes, left, top + high + 17, f"{y},{x}: {share:.0%} of {amount(float(result.response[y, x]))}",
                     size=10.5)  # fmt: skip
    return figure


# -- what they share ----------------------------------------------------------------------------------------------


def _title(axes: Axes, title: str, about: str) -> None:
    canvas.heading(axes, title, about, limit=80, room=150)


def _gray(image: Tensor) -> crops.Crop:
    """An image in light gray, to be drawn over."""
    pixels = crops.pixels(image, len(image)).astype(np.float32)[..., :3].mean(axis=2, keepdims=True)
    return np.asarray(np.repeat(70 + pixels * 0.7, 3, axis=2).round().astype(np.uint8))


def _over(
    axes: Axes, gray: crops.Crop, values: NDArray[np.float32], scale: float, x: float, y: float, side: float
) -> None:
    """A signed map over an image within a square of `side`: the color is the sign, how opaque it is the size."""
    high, wide = (side * s / max(gray.shape[:2]) for s in gray.shape[:2])
    canvas.place_image(axes, gray, x, y, wide, high)
    part = np.clip(values / (scale or 1.0), -1, 1)
    clear = np.zeros((*part.shape, 4), np.uint8)
    clear[..., :3] = palette.encode(np.where(part < 0, -1.0, 1.0), 1.0)
    clear[..., 3] = np.rint(np.abs(part) * _OPAQUE * 255).astype(np.uint8)
    canvas.place_image(axes, clear, x, y, wide, high, sharp=True)


def _bar(
    axes: Axes, name: str, value: float, largest: float, x: float, y: float, width: float, *, mono: bool = False
) -> None:
    """A name, and under it a bar from a zero in the middle, with its number."""
    canvas.write(axes, x, y, name, size=10.5, mono=mono, limit=int(width / 6.6))
    canvas.write(axes, x + width, y, signed(value), size=10.5, align="right")
    middle = x + width / 2
    axes.plot([middle, middle], [y + 4, y + 16], color=palette.REST, lw=0.8, zorder=1)
    length = value / (largest or 1.0) * width / 2
    axes.barh(y + 10, length, left=middle, height=8, color=palette.color_of(value), alpha=0.85, zorder=2)


def _plain_names(names: Sequence[str]) -> list[str]:
    """The first of several names of a class."""
    return [name.split(",")[0] for name in names]
