"""The graph of a circuit as inline SVG: it follows the page's colors, and its units are links."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from circuits.plot.circuit.graph import rest_text
from circuits.plot.circuit.graph_layout import ARROW, TILE_GAP, PlacedEdge, PlacedNode, PlacedRest, curve, layout
from circuits.plot.drawing import crops, palette
from circuits.plot.drawing.canvas import Box, fitted
from circuits.plot.drawing.html_page import cropped, join, tag
from circuits.plot.drawing.svg import anchor, numbers, sign_class
from circuits.plot.drawing.wording import counted, edge_effect, name_of, number, short
from circuits.tracing.circuit import Circuit


def graph_svg(
    circuit: Circuit, images: crops.Crops, visualizations: Mapping[str, crops.Crop | None] | None = None
) -> Markup:
    """The circuit graph of `circuits.plot.circuit_graph`, every unit a link to its card.

    Args:
        circuit: the circuit.
        images: unit address -> crops.
        visualizations: each takes the first tile of its unit, and a frame.
    """
    placed = layout(circuit)
    nodes = {n.unit: n for n in circuit.nodes}
    parts = [tag("text", cropped(name, 28), class_="layer", x=x, y=34) for x, name in placed.headings]
    parts += [_line(line) for line in sorted(placed.edges, key=lambda line: abs(line.strength))]
    for line in placed.edges:
        if line.edge is not None and line.kernel is not None:
            edge = line.edge
            source, target = nodes[edge.source], nodes[edge.target]
            effect = f"{name_of(source)} to {name_of(target)}: {edge_effect(edge)}"
            parts.append(_kernel(line, placed.scales[target.layer], effect))
    parts += [_node(node, images, (visualizations or {}).get(node.node.unit)) for node in placed.nodes]
    parts += [_rest(rest) for rest in placed.rests]
    # the report has its own legend
    height = max((n.box.y + n.box.height + 44 for n in placed.nodes), default=0.0)
    height = max([height, *(r.box.y + r.box.height + 14 for r in placed.rests)])
    return tag(
        "svg",
        *parts,
        class_="graph",
        role="group",
        aria_label=f"Graph of the circuit of {name_of(nodes[circuit.target])}: {len(placed.nodes)} units",
        style=f"--natural:{placed.width:.0f}px",
        viewBox=f"0 0 {placed.width:.0f} {height:.0f}",
    )


def _rectangle(box: Box) -> dict[str, float]:
    return {"x": box.x, "y": box.y, "width": box.width, "height": box.height}


def _line(line: PlacedEdge) -> Markup:
    kind = sign_class(line.strength) if line.edge is not None else "rest"
    (x0, y0), (xs, ys), (xb, yb), (xt, yt), (x1, y1) = curve(line)
    path = f"M{x0:.1f} {y0:.1f}L{xs:.1f} {ys:.1f}C{xb:.1f} {yb:.1f} {xt:.1f} {yt:.1f} {x1:.1f} {y1:.1f}"
    parts = [tag("path", class_=f"line {kind}", d=path, stroke_width=line.width)]
    if line.kernel is not None:
        (sx, sy), (kx, ky) = line.source, (line.kernel.x, line.kernel.middle)
        mid = (sx + kx) / 2
        stub = f"M{sx:.1f} {sy:.1f}C{mid:.1f} {sy:.1f} {mid:.1f} {ky:.1f} {kx:.1f} {ky:.1f}"
        parts.append(tag("path", class_=f"line {kind}", d=stub, stroke_width=min(line.width, 3)))
        at = {"x": x0 + 5, "y": y0 - line.width / 2 - 4}
        parts.append(tag("text", number(line.strength), class_=f"number {kind}", **at))
    (x, y), wide = line.end, max(5.0, line.width * 0.9 + 2)
    if line.strength >= 0:
        back = f"{x - ARROW - 1:.1f}"
        head = f"M{x:.1f} {y:.1f}L{back} {y - wide:.1f}L{back} {y + wide:.1f}Z"
        parts.append(tag("path", class_=f"head {kind}", d=head))
    else:
        parts.append(tag("rect", class_=f"head {kind}", x=x - ARROW, y=y - wide, width=3.5, height=2 * wide))
    return join(parts)


def _kernel(line: PlacedEdge, scale: float, effect: str) -> Markup:
    assert line.edge is not None and line.kernel is not None
    kernel = np.atleast_2d(line.edge.kernel)
    box = _rectangle(fitted(line.kernel, kernel.shape))
    uri = crops.data_uri(palette.encode(kernel, scale))
    return tag(
        "a",
        tag("title", f"{effect}. Strength {line.strength:+.3g}. Weights: {numbers(kernel)}"),
        tag("image", class_="sharp", preserveAspectRatio="none", href=uri, **box),
        tag("rect", class_=f"frame {sign_class(line.strength)}", **box),
        href=anchor(line.edge.target),
    )


def _node(placed: PlacedNode, images: crops.Crops, visualization: crops.Crop | None) -> Markup:
    node, box = placed.node, placed.box
    tiles = crops.of(images, node.unit)
    tiles = tiles if visualization is None else [visualization, *tiles]
    room = max(12, int(box.width / 6.8))
    address = cropped(short(node.unit), room)
    parts = [tag("title", f"{name_of(node)}: mean activation {node.activation:.3g}")]
    if tiles:
        side = crops.embedded(tiles[0], round(placed.tile * 2))
        gap = max(1, round(side * TILE_GAP / placed.tile))
        uri = crops.data_uri(crops.montage(tiles, placed.rows, placed.columns, side, gap))
        parts.append(tag("image", preserveAspectRatio="none", href=uri, **_rectangle(box)))
        if visualization is not None:
            corner = {"x": box.x, "y": box.y, "width": placed.tile, "height": placed.tile}
            parts.append(tag("rect", class_="visualization", **corner))
    else:
        parts.append(tag("rect", class_="tile", rx=5, **_rectangle(box)))
        middle = {"x": box.x + box.width / 2, "y": box.middle + 4}
        parts.append(tag("text", address, class_="address centered", **middle))
    y = box.y + box.height + 16
    if node.label:
        parts.append(tag("text", cropped(node.label, room), class_="label", x=box.x, y=y))
        y += 16
    if tiles:
        parts.append(tag("text", address, class_="address", x=box.x, y=y))
    return tag("a", *parts, href=anchor(node.unit))


def _rest(placed: PlacedRest) -> Markup:
    box, rest = placed.box, placed.rest
    y = box.middle + 4
    about = f"{counted(rest.count, 'unit')} not shown, with a sum of {rest.strength:+.4g}"
    if rest.count == 0 and rest.error is not None:
        about = f"what the latents do not reconstruct contributes {rest.strength:+.4g}"
    return tag(
        "a",
        tag("title", about),
        tag("rect", class_="tile", rx=6, **_rectangle(box)),
        tag("text", rest_text(placed), class_="others", x=box.x + 10, y=y),
        tag("text", number(rest.strength), class_="others sum", x=box.right - 10, y=y),
        href=anchor(rest.target),
    )
