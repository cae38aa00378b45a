"""Top activating images, activation histogram, and examples from strong to weak."""

from __future__ import annotations

import math

from markupsafe import Markup

from circuits.dataset.scan_results import UnitScan
from circuits.plot.drawing.html_page import render, tag
from circuits.plot.drawing.svg import spread
from circuits.plot.drawing.wording import number, short
from circuits.plot.units.dossier import FEW, TOP
from circuits.plot.units.section_renderers import Sheet, renderer

_LARGE, _SMALL = 144, 104
_BARS = 84


@renderer("responses")
def _responses(unit: UnitScan, sheet: Sheet) -> Markup:
    kinds = (
        ("random", "Random sample where active", unit.random),
        ("near_zero", "Near zero", unit.near_zero),
        ("most_negative", "Most negative", unit.most_negative),
    )
    classes = list(unit.classes.items())[:8] if max(unit.classes.values(), default=0) > 1 else []
    return render(
        "sections/responses.html",
        unit=unit,
        top=unit.top[:TOP],
        crops=sheet.crops,
        classes=classes,
        most=max((n for _, n in classes), default=0),
        histogram=_histogram(unit),
        bands=list(reversed(list(enumerate(unit.bands)))),
        kinds=[(name, title, examples[:FEW]) for name, title, examples in kinds if examples],
        large=_LARGE,
        small=_SMALL,
    )


def _histogram(unit: UnitScan) -> Markup:
    """Activations along, positions up in a logarithmic scale."""
    counts, low, high = spread(unit.edges, unit.counts, _BARS)
    width, height, left, top = 800.0, 190.0, 64.0, 10.0
    decades = max(1, math.ceil(math.log10(max(float(counts.max()), 10.0))))

    def up(n: float) -> float:
        return top + (1 - math.log10(max(n, 1.0)) / decades) * height

    def along(v: float) -> float:
        return left + (v - low) / (high - low) * width

    right, bottom, step = left + width, top + height, (high - low) / _BARS
    parts = [tag("title", f"Activation histogram of {short(unit.unit)}")]
    for exponent in range(0, decades + 1, 1 if decades < 6 else 2):
        y = up(10.0**exponent)
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=y, y2=y))
        parts.append(tag("text", f"{10**exponent:,}", class_="side", x=left - 7, y=y + 4))
    for i, n in enumerate(counts.tolist()):
        if n < 0.5:
            continue
        kind = "on" if low + (i + 0.5) * step > 0 else "off"
        y, start, end = up(max(n, 1.4)), low + i * step, low + (i + 1) * step
        positions = "1 position" if round(n) == 1 else f"{n:,.0f} positions"
        about = tag("title", f"{number(start)} to {number(end)}: about {positions}")
        box = {"x": along(start) + 0.5, "y": y, "width": width / _BARS - 1, "height": bottom - y}
        parts.append(tag("rect", about, class_=f"bar {kind}", **box))
    parts.append(tag("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
    parts += [tag("text", number(t), class_="tick", x=along(t), y=bottom + 18) for t in _round(low, high)]
    return tag("svg", *parts, class_="spread", role="img", viewBox=f"0 0 {right + 14:.0f} {bottom + 26:.0f}")


def _round(low: float, high: float) -> list[float]:
    """Round values between, five to ten of them."""
    raw = (high - low) / 6
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]
