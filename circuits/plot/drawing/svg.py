"""Drawings of pages as inline SVG, which follow the page's colors: kernels, histograms, diverging bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from circuits.plot.drawing import palette
from circuits.plot.drawing.crops import data_uri
from circuits.plot.drawing.html_page import join, tag
from circuits.plot.drawing.wording import counted, minus, short

CELLS = 81  # kernels up to this many weights are drawn cell by cell, each with its number


def anchor(unit: str) -> str:
    """The fragment link to a unit's card."""
    return "#" + quote(short(unit), safe=":@,~.-_")


def sign_class(value: float) -> str:
    """CSS class of a sign."""
    return "plus" if value > 0 else "minus" if value < 0 else "zero"


def kernel_svg(kernel: NDArray[np.float32], scale: float, side: float, text: str) -> Markup:
    """A kernel as cells with tooltips that give their weights; a large one as an image with its extremes.

    Args:
        kernel: `(kh, kw)`.
        scale: the weight that is fully colored.
        side: pixels of its longer side.
        text: its description.
    """
    values = np.atleast_2d(kernel)
    high, wide = values.shape
    cell = side / max(high, wide)
    about, rgb = f"{text}: {numbers(values)}", palette.encode(values, scale)
    if values.size > CELLS:
        inner = tag("title", about) + tag("image", class_="sharp", width=wide, height=high, href=data_uri(rgb))
    else:
        inner = tag("desc", about) + join(
            [
                tag(
                    "rect",
                    tag("title", f"row {y + 1}, column {x + 1}: {values[y, x]:+.4g}"),
                    x=x,
                    y=y,
                    width=1.02,
                    height=1.02,
                    fill="#" + rgb[y, x].tobytes().hex(),
                )
                for y in range(high)
                for x in range(wide)
            ]
        )
    box = {"width": round(wide * cell), "height": round(high * cell), "viewBox": f"0 0 {wide} {high}"}
    return tag("svg", inner, class_="kernel", role="img", **box)


def numbers(values: NDArray[np.float32]) -> str:
    """A kernel in figures: all of its weights, or what it spans."""
    if values.size <= CELLS:
        return "; ".join(" ".join(f"{v:+.3g}" for v in row) for row in values)
    high, wide = values.shape
    return f"{high} by {wide} weights from {values.min():+.3g} to {values.max():+.3g}, sum {values.sum():+.3g}"


def diverging_bar(start: float, end: float, zero: float, color: str) -> Markup:
    """A bar from `start` to `end`, and a line at `zero`, in percent of the cell of a table; `color` is a CSS class."""
    left, right = sorted((start, end))
    line = tag("line", x1=zero, x2=zero, y1=-7, y2=21)
    bar = tag("rect", class_=color, x=left, y=2, width=max(right - left, 0.4), height=10)
    return tag("svg", line, bar, viewBox="0 0 100 14", preserveAspectRatio="none", aria_hidden="true")


def bins(random: Sequence[float], value: float, count: int = 24) -> tuple[NDArray[np.int64], float, float]:
    """Counts of `random` in `count` bins, and the range, which holds `value`, 0 and 1 where they are near."""
    low = min([0.0, value, *random])
    high = max([1.0, value, *random])
    # a few wild circuits must not squeeze the rest into one bar
    low = max(low, -1.0)
    counts, _ = np.histogram(np.clip(np.asarray(random, dtype=np.float64), low, high), bins=count, range=(low, high))
    return counts.astype(np.int64), low, high


def spread(edges: NDArray[np.float64], counts: NDArray[Any], bars: int) -> tuple[NDArray[np.float64], float, float]:
    """Counts in `bars` equal bins, from bins of any width: what each covers is spread evenly over it.

    Returns:
        Counts `(bars,)`, and the range.
    """
    used = np.flatnonzero(counts)
    low, high = float(edges[used[0]]), float(edges[used[-1] + 1])
    ends = np.linspace(low, high, bars + 1)
    cumulated = np.interp(ends, edges, np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)]))
    return np.diff(cumulated), low, high


def histogram_svg(random: Sequence[float], value: float, text: str) -> Markup:
    """The values of random circuits in gray, the circuit's own as a line."""
    counts, low, high = bins(random, value)
    width, height, top = 420.0, 120.0, 26.0
    step, most = width / len(counts), max(1, int(counts.max(initial=0)))

    def across(v: float) -> float:
        return (min(max(v, low), high) - low) / (high - low) * width

    parts = [tag("title", text)]
    for i, n in enumerate(counts.tolist()):
        if n:
            tall = n / most * (height - top)
            box = {"x": i * step + 0.5, "y": height - tall, "width": step - 1, "height": tall}
            beyond = minus(f" at {low:g} or below") if i == 0 and min(random) < low else ""
            about = tag("title", counted(n, "random circuit") + beyond)
            parts.append(tag("rect", about, class_="bar", **box))
    parts.append(tag("line", class_="axis", x1=0, x2=width, y1=height, y2=height))
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        if low <= tick <= high:
            parts.append(tag("text", f"{tick:g}", class_="tick", x=across(tick), y=height + 16))
    x = across(value)
    side, offset = ("end", -6) if x > width - 125 else ("start", 6)
    parts.append(tag("line", class_="mark", x1=x, x2=x, y1=6, y2=height))
    label = "this circuit " + minus(f"{value:.2f}")
    parts.append(tag("text", label, class_="own", text_anchor=side, x=x + offset, y=16))
    return tag("svg", *parts, class_="histogram", role="img", viewBox=f"-14 0 {width + 28:.0f} {height + 22:.0f}")
