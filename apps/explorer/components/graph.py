"""A circuit as a graph: layers as columns, images of units, kernels on edges. Nodes and kernels can be clicked.

The layout is that of the figures (`circuits.plot.circuit.graph_layout`), so nothing moves unless the circuit changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.explorer.components import component
from apps.explorer.components.weights import kernel_uri
from circuits.plot.circuit.graph import rest_text
from circuits.plot.circuit.graph_layout import ARROW, PlacedEdge, curve, layout
from circuits.plot.drawing.canvas import fitted
from circuits.plot.drawing.wording import edge_effect, name_of, number, short
from circuits.tracing.circuit import Circuit

_mount = component("graph")
SEPARATOR = ">"


def graph(
    circuit: Circuit,
    images: Mapping[str, Sequence[str]],
    *,
    key: str,
    selected: Sequence[str] = (),
    pins: Sequence[str] = (),
    edge: str = "",
) -> tuple[str | None, str | None]:
    """Show the graph; what was clicked: a unit, or an edge as `source>target`.

    Args:
        circuit: to draw; images: data URIs of each unit, the most activating first.
        key: of the element; selected, pins: marked units; edge: the marked edge.
    """
    data = graph_data(circuit, images)
    data |= {"selected": list(selected), "pins": list(pins), "edge": edge}
    state = _mount(key=key, data=data, on_node_change=lambda: None, on_edge_change=lambda: None)
    return state.node, state.edge


def graph_data(circuit: Circuit, images: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Data of the element: positions, texts and images of all parts of the graph."""
    placed = layout(circuit)
    nodes = {node.unit: node for node in circuit.nodes}
    height = max((n.box.y + n.box.height + 44 for n in placed.nodes), default=0.0)
    height = max([height, *(r.box.y + r.box.height + 14 for r in placed.rests)])
    return {
        "width": placed.width,
        "height": height,
        "headings": [[x, name] for x, name in placed.headings],
        "lines": [_line(line, nodes, placed.scales) for line in sorted(placed.edges, key=lambda e: abs(e.strength))],
        "nodes": [
            {
                "unit": n.node.unit,
                "address": short(n.node.unit),
                "label": n.node.label or "",
                "title": f"{name_of(n.node)}: mean activation {n.node.activation:.3g}",
                "box": [n.box.x, n.box.y, n.box.width, n.box.height],
                "tile": n.tile,
                "across": n.columns,
                "images": list(images.get(n.node.unit, ()))[: n.rows * n.columns],
            }
            for n in placed.nodes
        ],
        "rests": [
            {
                "box": [r.box.x, r.box.y, r.box.width, r.box.height],
                "text": rest_text(r),
                "number": number(r.rest.strength),
                "title": f"{r.rest.count} units not shown add up to {r.rest.strength:+.4g}",
            }
            for r in placed.rests
        ],
        "about": f"Circuit of {name_of(nodes[circuit.target])}: {len(placed.nodes)} units",
    }


def _line(line: PlacedEdge, nodes: Mapping[str, Any], scales: Mapping[str, float]) -> dict[str, Any]:
    (x0, y0), (xs, ys), (xb, yb), (xt, yt), (x1, y1) = curve(line)
    data: dict[str, Any] = {
        "path": f"M{x0:.1f} {y0:.1f}L{xs:.1f} {ys:.1f}C{xb:.1f} {yb:.1f} {xt:.1f} {yt:.1f} {x1:.1f} {y1:.1f}",
        "width": line.width,
        "kind": "rest"
        if line.edge is None
        else "plus"
        if line.strength > 0
        else "minus"
        if line.strength < 0
        else "rest",
        "end": list(line.end),
        "arrow": ARROW,
        "kernel": None,
    }
    if line.edge is not None and line.kernel is not None:
        edge = line.edge
        kernel = np.atleast_2d(edge.kernel)
        box = fitted(line.kernel, kernel.shape)
        (sx, sy), (kx, ky) = line.source, (line.kernel.x, line.kernel.middle)
        middle = (sx + kx) / 2
        source, target = nodes[edge.source], nodes[edge.target]
        data["kernel"] = {
            "edge": f"{edge.source}{SEPARATOR}{edge.target}",
            "src": kernel_uri(kernel, scales[target.layer]),
            "box": [box.x, box.y, box.width, box.height],
            "stub": f"M{sx:.1f} {sy:.1f}C{middle:.1f} {sy:.1f} {middle:.1f} {ky:.1f} {kx:.1f} {ky:.1f}",
            "number": number(edge.strength),
            "at": [x0 + 5, y0 - line.width / 2 - 4],
            "title": f"{name_of(source)} to {name_of(target)}: {edge_effect(edge)}",
        }
    return data
