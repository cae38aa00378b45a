"""What all figures share: a page measured in pixels, text that is never mark-up, and saving."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy.typing import NDArray

from circuits.errors import CircuitsError, shorten
from circuits.plot.drawing import crops, palette
from circuits.plot.drawing.html_page import tag
from zoo.common.files import write_atomically

DPI = 100  # figures are laid out in pixels of this size; `save_figure` writes them at twice that
FONT = "DejaVu Sans"  # ships with matplotlib: the same figure everywhere
MONO = "DejaVu Sans Mono"


class NotebookFigure(Figure):
    """A figure that a notebook shows where a cell ends with it; matplotlib's own waits for `%matplotlib inline`."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = (round(DPI * inches) for inches in self.get_size_inches())
        return _bytes(self, "png", metadata={"Software": None}), {"width": width, "height": height}


def figure_of_size(width: float, height: float) -> Figure:
    """An empty figure on white, `width` by `height` inches of `DPI` pixels."""
    return NotebookFigure(figsize=(width, height), dpi=DPI, facecolor=palette.PAPER)


def page(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure of `width` by `height` pixels and one axes over all of it, in pixels from the top left."""
    figure = figure_of_size(width / DPI, height / DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


@dataclass(frozen=True)
class Box:
    """A rectangle: its top left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Height of its middle."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """Its right side."""
        return self.x + self.width


def fitted(box: Box, shape: tuple[int, ...]) -> Box:
    """The largest rectangle of the proportions `(..., height, width)` in the middle of a box."""
    high, wide = shape[-2:]
    times = min(box.width / wide, box.height / high)
    width, height = max(4.0, wide * times), max(4.0, high * times)
    return Box(box.x + (box.width - width) / 2, box.y + (box.height - height) / 2, width, height)


@lru_cache(maxsize=2)
def _glyphs(family: str) -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=family))).get_charmap())


def printable(text: str, limit: int = 200, family: str = FONT) -> str:
    """Text fit for a figure: one line, at most `limit` characters, what the font cannot draw as "?"."""
    line = " ".join(text.split())
    if len(line) > limit:
        line = line[: max(1, limit - 1)].rstrip() + "…"
    glyphs = _glyphs(family)
    return "".join(c if ord(c) in glyphs else "?" for c in line)


def write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = 11,
    color: str = palette.INK,
    bold: bool = False,
    mono: bool = False,
    limit: int = 200,
    align: str = "left",
    middle: bool = False,
    **options: Any,
) -> None:
    """One line of text at `(x, y)` (its baseline, or its middle), `size` in pixels; `$` and `\\` are themselves."""
    family = MONO if mono else FONT
    axes.text(
        x,
        y,
        printable(text, limit, family),
        fontsize=size * 72 / DPI,
        color=color,
        fontfamily=family,
        fontweight="bold" if bold else "normal",
        horizontalalignment=align,
        verticalalignment="center_baseline" if middle else "baseline",
        parse_math=False,
        **options,
    )


def note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A line of muted text; see `write`."""
    write(axes, x, y, text, color=palette.MUTED, **options)


def place_image(
    axes: Axes, pixels: NDArray[np.uint8], x: float, y: float, width: float, height: float, *, sharp: bool = False
) -> None:
    """Pixels `(H, W, 3 or 4)` over a rectangle of the page; `sharp` keeps whole pixels, as kernels need."""
    axes.imshow(
        pixels,
        extent=(x, x + width, y + height, y),
        interpolation="nearest" if sharp else "antialiased",
        aspect="auto",
        zorder=3,
    )


def place_whole(
    axes: Axes,
    pixels: NDArray[np.uint8],
    x: float,
    y: float,
    width: float,
    height: float | None = None,
    *,
    sharp: bool = False,
    edge: str | None = None,
    lw: float = 1.0,
) -> None:
    """Pixels in the middle of a rectangle (a square without `height`), as large as they fit undistorted.

    Args:
        axes: of `page`.
        pixels: `(H, W, 3 or 4)`.
        x, y: top left corner of the rectangle; width, height: its size.
        sharp: keeps whole pixels, as kernels need.
        edge: color of a frame around them, `lw` points wide.
    """
    box = fitted(Box(x, y, width, width if height is None else height), pixels.shape[:2])
    place_image(axes, pixels, box.x, box.y, box.width, box.height, sharp=sharp)
    if edge is not None:
        frame = Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=edge, lw=lw, zorder=4)
        axes.add_patch(frame)


def place_crop(axes: Axes, crop: crops.Crop, x: float, y: float, side: float) -> None:
    """A crop in a square, at twice the resolution of the page where it has that."""
    place_image(axes, crops.resized(crop, crops.embedded(crop, round(2 * side))), x, y, side, side)


def mark(axes: Axes, x: float, y: float, side: float, text: str) -> None:
    """A hatched tile with a word, which cannot be mistaken for an image."""
    axes.add_patch(
        Rectangle((x, y), side, side, facecolor=palette.TILE, edgecolor=palette.PAPER, hatch="///", lw=0, zorder=2)
    )
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=palette.REST, lw=0.8, ls="--", zorder=3))
    style: dict[str, Any] = {"bold": True, "align": "center", "middle": True, "limit": 12, "zorder": 4}
    write(axes, x + side / 2, y + side / 2, text, size=11 if side >= 80 else 8, **style)


def rounded(axes: Axes, x: float, y: float, width: float, height: float, radius: int = 5) -> None:
    """A gray tile with round corners."""
    style = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=palette.TILE, lw=0, zorder=2))


def heading(axes: Axes, title: str, about: str = "", *, limit: int = 90, room: int = 120, y: float = 36) -> None:
    """A figure's title with its baseline at `y`, and a line on what is drawn; `limit`, `room`: letters of each."""
    write(axes, 24, y, title, size=15, bold=True, limit=limit)
    write(axes, 24, y + 20, about, size=11, color=palette.MUTED, limit=room)


def strip_spines(axes: Axes, color: str = palette.REST, size: float = 9) -> None:
    """Axes of a chart without a frame: the left and the bottom line stay, and `size` points for the numbers."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(color)
    axes.tick_params(labelsize=size, colors=palette.MUTED)


def name_axes(axes: Axes, across: str, up: str) -> None:
    """The names of a chart's two axes."""
    axes.set_xlabel(across, fontsize=9.5)
    axes.set_ylabel(up, fontsize=9.5)


def embedded(figure: Figure, text: str, *, most: int | None = None) -> Markup:
    """A figure as an HTML image that holds it, at its nominal size; `text` is its description.

    With `most`, a PNG of more bytes becomes a smaller JPEG: figures with many photographs are a fifth as large or less.
    """
    kind, data = "png", _bytes(figure, "png", metadata={"Software": None})
    if most is not None and len(data) > most:
        kind, data = "jpeg", _bytes(figure, "jpeg", scale=1.5, pil_kwargs={"quality": 80})
    width = figure.get_figwidth() * DPI
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return tag("img", class_="figure", style=f"width:{width:.0f}px", alt=text, src=source)


def _bytes(figure: Figure, kind: str, *, scale: float = 2, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.bbox": None}):
        figure.savefig(buffer, format=kind, dpi=scale * DPI, facecolor=palette.PAPER, **options)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG (twice the nominal resolution), SVG or PDF, by the suffix of `path`.

    The file appears whole or not at all, over one of that name, and holds no date: the same figure gives the same
    bytes.

    Raises:
        CircuitsError: another suffix.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    # what makes each format carry no date
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    }
    if kind not in metadata:
        raise CircuitsError(f"cannot write a figure as {shorten(path.name)!r}: use .png, .svg or .pdf")

    def draw(temporary: Path) -> None:
        with matplotlib.rc_context({"svg.hashsalt": "circuits", "svg.fonttype": "path", "savefig.bbox": None}):
            figure.savefig(temporary, format=kind, dpi=2 * DPI, metadata=metadata[kind], facecolor=palette.PAPER)

    write_atomically(path, draw)


def color_bar(axes: Axes, x: float, y: float, scale: float, text: str) -> None:
    """The signed scale, 60 by 10 pixels, with its ends' numbers and a word on what it is for."""
    ramp = palette.encode([[i / 30 * scale for i in range(-30, 31)]], scale)
    write(axes, x, y + 5, f"\N{MINUS SIGN}{scale:.2g}", size=10, color=palette.INHIBITS, middle=True)
    x += 8 + 6.3 * len(f"-{scale:.2g}")
    place_image(axes, ramp, x, y, 60, 10)
    axes.add_patch(Rectangle((x, y), 60, 10, fill=False, edgecolor=palette.LINE, lw=0.6, zorder=4))
    write(axes, x + 66, y + 5, f"+{scale:.2g}", size=10, color=palette.EXCITES, middle=True)
    write(axes, x + 78 + 6.3 * len(f"+{scale:.2g}"), y + 5, text, size=10, color=palette.MUTED, middle=True, limit=30)
