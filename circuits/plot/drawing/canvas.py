"""What all figures share: a page measured in pixels, text that is never mark-up, and saving."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from circuits.errors import CircuitsError, shorten
from circuits.plot.drawing import palette
from circuits.plot.drawing.html_page import tag
from zoo.common.files import write_atomically

DPI = 100  # figures are laid out in pixels of this size; `save_figure` writes them at twice that
FONT = "DejaVu Sans"  # ships with matplotlib: the same figure everywhere
MONO = "DejaVu Sans Mono"


def page(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure of `width` by `height` pixels and one axes over all of it, in pixels from the top left."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=palette.PAPER)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


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


def embedded(figure: Figure, text: str) -> Markup:
    """A figure as an HTML image that holds it, at its nominal size; `text` is its description."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.bbox": None}):
        figure.savefig(buffer, format="png", dpi=2 * DPI, metadata={"Software": None}, facecolor=palette.PAPER)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = figure.get_figwidth() * DPI
    return tag("img", class_="figure", style=f"width:{width:.0f}px", alt=text, src=f"data:image/png;base64,{data}")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG (twice the nominal resolution), SVG or PDF, by the suffix of `path`.

    The file appears whole or not at all, and holds no date: the same figure gives the same bytes.

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
