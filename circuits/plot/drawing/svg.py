"""Drawings of the report as inline SVG: they follow the page's colors, and their units are links."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from circuits.plot.circuit.graph import fitted, rest_text
from circuits.plot.circuit.graph_layout import ARROW, TILE_GAP, PlacedEdge, PlacedNode, PlacedRest, curve, layout
from circuits.plot.drawing import crops as pictures
from circuits.plot.drawing import palette
from circuits.plot.drawing.wording import kernel_effect, minus, name_of, number, short
from circuits.tracing.circuit import Circuit

CELLS = 81  # kernels up to this many weights are drawn cell by cell, each with its number


def escape(text: object) -> str:
    """Text for HTML, in content or in a quoted attribute: what a page may not hold is left out."""
    kept = "".join(c for c in str(text) if c in "\n\t" or c.isprintable())
    return html.escape(kept.encode("utf-8", "replace").decode("utf-8"), quote=True)


def anchor(unit: str) -> str:
    """The fragment link to a unit's card."""
    return "#" + quote(short(unit), safe=":@,~.-_")


def cropped(text: str, limit: int) -> str:
    """At most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def sign_class(value: float) -> str:
    """CSS class of a sign."""
    return "plus" if value > 0 else "minus" if value < 0 else "zero"


def kernel_svg(kernel: NDArray[np.float32], scale: float, side: float, text: str) -> str:
    """A kernel as cells with tooltips that give their weights; a large one as a picture with its extremes.

    Args:
        kernel: `(kh, kw)`.
        scale: the weight that is fully colored.
        side: pixels of its longer side.
        text: what it is, for those who do not see it.
    """
    values = np.atleast_2d(kernel)
    high, wide = values.shape
    cell = side / max(high, wide)
    width, height = wide * cell, high * cell
    about = escape(f"{text}: {numbers(values)}")
    head = f'<svg class="kernel" role="img" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {wide} {high}">'
    if values.size > CELLS:
        uri = pictures.data_uri(palette.encode(values, scale))
        return f'{head}<title>{about}</title><image class="sharp" width="{wide}" height="{high}" href="{uri}"/></svg>'
    rgb = palette.encode(values, scale)
    cells = "".join(
        f'<rect x="{x}" y="{y}" width="1.02" height="1.02" fill="#{r:02x}{g:02x}{b:02x}">'
        f"<title>row {y + 1}, column {x + 1}: {values[y, x]:+.4g}</title></rect>"
        for y in range(high)
        for x in range(wide)
        for r, g, b in [rgb[y, x]]
    )
    return f"{head}<desc>{about}</desc>{cells}</svg>"


def numbers(values: NDArray[np.float32]) -> str:
    """A kernel in figures: all of its weights, or what it spans."""
    if values.size <= CELLS:
        return "; ".join(" ".join(f"{v:+.3g}" for v in row) for row in values)
    high, wide = values.shape
    return f"{high} by {wide} weights from {values.min():+.3g} to {values.max():+.3g}, sum {values.sum():+.3g}"


def graph_svg(
    circuit: Circuit, found: pictures.Pictures, made: Mapping[str, pictures.Crop | None] | None = None
) -> str:
    """The circuit graph of `circuits.plot.circuit_graph`, every unit a link to its card.

    `made` holds visualizations: each takes the first tile of its unit, and a frame.
    """
    placed = layout(circuit)
    nodes = {n.unit: n for n in circuit.nodes}
    lines = sorted(placed.edges, key=lambda line: abs(line.strength))
    heads = [(x, escape(cropped(name, 28))) for x, name in placed.headings]
    parts = [f'<text class="layer" x="{x:.1f}" y="34">{name}</text>' for x, name in heads]
    parts += [_line(line) for line in lines]
    for line in placed.edges:
        if line.edge is not None and line.kernel is not None:
            edge = line.edge
            source, target = nodes[edge.source], nodes[edge.target]
            what = f"{name_of(source)} to {name_of(target)}: {kernel_effect(edge.kernel, edge.sign)}"
            parts.append(_kernel(line, placed.scales[target.layer], what))
    parts += [_node(node, found, (made or {}).get(node.node.unit)) for node in placed.nodes]
    parts += [_rest(rest) for rest in placed.rests]
    # the report has its own legend
    height = max((n.box.y + n.box.height + 44 for n in placed.nodes), default=0.0)
    height = max([height, *(r.box.y + r.box.height + 14 for r in placed.rests)])
    about = escape(f"Graph of the circuit of {name_of(nodes[circuit.target])}: {len(placed.nodes)} units")
    style = f"--natural:{placed.width:.0f}px"
    return (
        f'<svg class="graph" role="group" aria-label="{about}" style="{style}" '
        f'viewBox="0 0 {placed.width:.0f} {height:.0f}">{"".join(parts)}</svg>'
    )


def _line(line: PlacedEdge) -> str:
    kind = sign_class(line.strength) if line.edge is not None else "rest"
    (x0, y0), (xs, ys), (xb, yb), (xt, yt), (x1, y1) = curve(line)
    path = f"M{x0:.1f} {y0:.1f}L{xs:.1f} {ys:.1f}C{xb:.1f} {yb:.1f} {xt:.1f} {yt:.1f} {x1:.1f} {y1:.1f}"
    out = [f'<path class="line {kind}" d="{path}" stroke-width="{line.width:.2f}"/>']
    if line.kernel is not None:
        (sx, sy), (kx, ky) = line.source, (line.kernel.x, line.kernel.middle)
        mid = (sx + kx) / 2
        stub = f"M{sx:.1f} {sy:.1f}C{mid:.1f} {sy:.1f} {mid:.1f} {ky:.1f} {kx:.1f} {ky:.1f}"
        out.append(f'<path class="line {kind}" d="{stub}" stroke-width="{min(line.width, 3):.2f}"/>')
        at = y0 - line.width / 2 - 4
        out.append(f'<text class="number {kind}" x="{x0 + 5:.1f}" y="{at:.1f}">{number(line.strength)}</text>')
    (x, y), wide = line.end, max(5.0, line.width * 0.9 + 2)
    if line.strength >= 0:
        back = f"{x - ARROW - 1:.1f}"
        out.append(f'<path class="head {kind}" d="M{x:.1f} {y:.1f}L{back} {y - wide:.1f}L{back} {y + wide:.1f}Z"/>')
    else:
        bar = f'x="{x - ARROW:.1f}" y="{y - wide:.1f}" width="3.5" height="{2 * wide:.1f}"'
        out.append(f'<rect class="head {kind}" {bar}/>')
    return "".join(out)


def _kernel(line: PlacedEdge, scale: float, what: str) -> str:
    assert line.edge is not None and line.kernel is not None
    kernel = np.atleast_2d(line.edge.kernel)
    box = fitted(line.kernel, kernel.shape)
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    uri = pictures.data_uri(palette.encode(kernel, scale))
    tip = escape(f"{what}. Strength {line.strength:+.3g}. Weights: {numbers(kernel)}")
    return (
        f'<a href="{escape(anchor(line.edge.target))}"><title>{tip}</title>'
        f'<image class="sharp" {place} preserveAspectRatio="none" href="{uri}"/>'
        f'<rect class="frame {sign_class(line.strength)}" {place}/></a>'
    )


def _node(placed: PlacedNode, found: pictures.Pictures, made: pictures.Crop | None) -> str:
    node, box = placed.node, placed.box
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    crops = pictures.of(found, node.unit)
    crops = crops if made is None else [made, *crops]
    room = max(12, int(box.width / 6.8))
    tip = f"{escape(name_of(node))}: mean response {node.activation:.3g}"
    address = escape(cropped(short(node.unit), room))
    out = [f'<a href="{escape(anchor(node.unit))}"><title>{tip}</title>']
    if crops:
        side = pictures.embedded(crops[0], round(placed.tile * 2))
        gap = max(1, round(side * TILE_GAP / placed.tile))
        sheet = pictures.montage(crops, placed.rows, placed.columns, side, gap)
        out.append(f'<image {place} preserveAspectRatio="none" href="{pictures.data_uri(sheet)}"/>')
        if made is not None:
            at = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{placed.tile:.1f}" height="{placed.tile:.1f}"'
            out.append(f'<rect class="made" {at}/>')
    else:
        middle = f'x="{box.x + box.width / 2:.1f}" y="{box.middle + 4:.1f}"'
        out.append(f'<rect class="tile" rx="5" {place}/>')
        out.append(f'<text class="address centerd" {middle}>{address}</text>')
    y = box.y + box.height + 16
    if node.label:
        out.append(f'<text class="label" x="{box.x:.1f}" y="{y:.1f}">{escape(cropped(node.label, room))}</text>')
        y += 16
    if crops:
        out.append(f'<text class="address" x="{box.x:.1f}" y="{y:.1f}">{address}</text>')
    return "".join(out) + "</a>"


def _rest(placed: PlacedRest) -> str:
    box, rest = placed.box, placed.rest
    y = box.middle + 4
    tip = f"{rest.count} units not shown add up to {rest.strength:+.4g}"
    return (
        f'<a href="{escape(anchor(rest.target))}"><title>{tip}</title>'
        f'<rect class="tile" rx="6" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"/>'
        f'<text class="others" x="{box.x + 10:.1f}" y="{y:.1f}">{rest_text(placed)}</text>'
        f'<text class="others sum" x="{box.right - 10:.1f}" y="{y:.1f}">{number(rest.strength)}</text></a>'
    )


def bins(random: Sequence[float], value: float, count: int = 24) -> tuple[NDArray[np.int64], float, float]:
    """Counts of `random` in `count` bins, and the range, which holds `value`, 0 and 1 where they are near."""
    low = min([0.0, value, *random])
    high = max([1.0, value, *random])
    # a few wild circuits must not squeeze the rest into one bar
    low = max(low, -1.0)
    counts, _ = np.histogram(np.clip(np.asarray(random, dtype=np.float64), low, high), bins=count, range=(low, high))
    return counts.astype(np.int64), low, high


def histogram_svg(random: Sequence[float], value: float, text: str) -> str:
    """The values of random circuits in gray, the circuit's own as a line."""
    counts, low, high = bins(random, value)
    width, height, top = 420.0, 120.0, 26.0
    step, most = width / len(counts), max(1, int(counts.max(initial=0)))

    def across(v: float) -> float:
        return (min(max(v, low), high) - low) / (high - low) * width

    bars = "".join(
        f'<rect class="bar" x="{i * step + 0.5:.1f}" y="{top + (1 - n / most) * (height - top):.1f}" '
        f'width="{step - 1:.1f}" height="{n / most * (height - top):.1f}"><title>{n} random circuits</title></rect>'
        for i, n in enumerate(counts.tolist())
        if n
    )
    ticks = "".join(
        f'<text class="tick" x="{across(t):.1f}" y="{height + 16:.0f}">{t:g}</text>'
        for t in (-1.0, -0.5, 0.0, 0.5, 1.0)
        if low <= t <= high
    )
    x = across(value)
    side = "end" if x > width - 125 else "start"
    own = "this circuit " + minus(f"{value:.2f}")
    offset = -6 if side == "end" else 6
    return (
        f'<svg class="histogram" role="img" viewBox="-14 0 {width + 28:.0f} {height + 22:.0f}">'
        f"<title>{escape(text)}</title>{bars}"
        f'<line class="axis" x1="0" x2="{width}" y1="{height}" y2="{height}"/>{ticks}'
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{height}"/>'
        f'<text class="own" text-anchor="{side}" x="{x + offset:.1f}" y="16">{own}</text></svg>'
    )
