"""A circuit as a graph that can be zoomed: layers as bands, images of units, kernels; beside it, what is selected.

The element lays the graph out for the area that is visible; what it is given is what the graph shows. Its files (SVG,
PNG, JSON) are made of what is on the screen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.explorer.components import component
from apps.explorer.components.weights import kernel_uri
from apps.explorer.session import links
from apps.explorer.session.circuit_views import View
from circuits.plot.circuit.graph_layout import scales
from circuits.plot.drawing.wording import edge_effect, minus, name_of, number, short
from circuits.tracing.circuit import Circuit, Edge, Node, Rest

_mount = component("graph")
SEPARATOR = ">"
EVENTS = ("select", "edge", "open", "trace", "pin", "group", "ungroup", "prune", "factor")
"""What a click returns: units, an edge, or a change of the view."""


def graph(
    circuit: Circuit,
    view: View,
    images: Mapping[str, Sequence[str]],
    *,
    key: str,
    selected: Sequence[str] = (),
    edge: str = "",
    saved: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    factors: Mapping[str, str] | None = None,
    factor: str = "",
    outcome: str = "",
) -> dict[str, Any]:
    """Show the graph; what was clicked, by name of `EVENTS`.

    Args:
        circuit: to draw; view: of it; images: data URIs of each unit, the most activating first.
        key: of the element; selected: marked units; edge: the marked edge, as `source>target`.
        saved: links to saved circuits, by name.
        notes: a line about each unit, instead of its mean activation; a node without one is no unit, and opens nothing.
        factors: what selected units can be set to, value -> text; factor: the chosen value; outcome: what it does.
    """
    data = graph_data(circuit, view, images, notes)
    links_to = [{"name": name, "href": href} for name, href in (saved or {}).items()]
    data |= {"selected": list(selected), "edge": edge, "saved": links_to}
    choices = [{"value": value, "text": text} for value, text in (factors or {}).items()]
    data |= {"factors": choices, "factor": factor, "outcome": outcome}
    state = _mount(key=key, data=data, **{f"on_{event}_change": lambda: None for event in EVENTS})
    return {event: value for event in EVENTS if (value := getattr(state, event, None)) is not None}


def graph_data(
    circuit: Circuit, view: View, images: Mapping[str, Sequence[str]], notes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Data of the element: texts, images and numbers of all parts of the graph."""
    depths = sorted({_depth(circuit, node) for node in circuit.nodes}, reverse=True)
    layer_of = {_depth(circuit, node): node.layer for node in circuit.nodes}
    nodes = {node.unit: node for node in circuit.nodes}
    given = notes is not None
    kind = "Attribution graph" if given else "Circuit"
    if notes is None:
        notes = {node.unit: f"mean activation {node.activation:.3g}" for node in circuit.nodes}
    bars = scales(circuit)
    most: dict[str, float] = {}
    for edge in circuit.edges:
        most[edge.target] = max(most.get(edge.target, 0.0), abs(edge.strength))
    members = {u: g.units for g in view.groups for u in g.units if u in nodes and u != circuit.target}
    return {
        "key": hashlib.sha256(repr(([*nodes], [(e.source, e.target) for e in circuit.edges])).encode()).hexdigest()[
            :16
        ],
        "file": "circuit-" + "".join(c if c.isalnum() else "-" for c in circuit.target),
        "about": f"{kind} of {name_of(nodes[circuit.target])}: {len(nodes)} units, {len(circuit.edges)} edges",
        "target": circuit.target,
        "columns": [layer_of[depth] for depth in depths],
        "nodes": [
            {
                "unit": node.unit,
                "address": short(node.unit),
                "label": node.label or "",
                "title": ": ".join(part for part in (name_of(node), notes.get(node.unit)) if part),
                "about": notes.get(node.unit, ""),
                "activation": node.activation,
                "column": depths.index(_depth(circuit, node)),
                "images": list(images.get(node.unit, ())),
                "members": [short(unit) for unit in members.get(node.unit, ())],
                "href": links.unit_path(node.unit) if node.unit in notes else "",
                **_rest([rest for rest in circuit.rest if rest.target == node.unit]),
            }
            for node in circuit.nodes
        ],
        "edges": [
            _edge(edge, nodes, bars, most[edge.target], given)
            for edge in circuit.edges
            if edge.source in nodes and edge.target in nodes
        ],
        "prune": round(100 * view.prune),
        "pins": list(view.pins),
        "groups": [{"name": g.name, "units": [short(unit) for unit in g.units]} for g in view.groups],
    }


def _depth(circuit: Circuit, node: Node) -> int:
    """Steps back from the target's layer."""
    return circuit.layers.index(node.layer) if node.layer in circuit.layers else node.depth


def _rest(rests: Sequence[Rest]) -> dict[str, str]:
    """What a unit receives from units that are not in the graph, in words and as a number."""
    texts = [f"{number(r.strength)} from {r.count} others" for r in rests if r.count or r.strength]
    texts += [f"{number(r.error)} left over by the latents" for r in rests if r.error is not None]
    total = sum(r.strength + (r.error or 0.0) for r in rests)
    return {"rest": ", ".join(texts), "number": number(total) if texts else ""}


def _edge(edge: Edge, nodes: Mapping[str, Node], bars: Mapping[str, float], most: float, given: bool) -> dict[str, Any]:
    kernel = np.atleast_2d(edge.kernel)
    source, target = nodes[edge.source], nodes[edge.target]
    effect = edge_effect(edge)
    low, high, total = (minus(f"{value:+.3g}") for value in (kernel.min(), kernel.max(), kernel.sum()))
    strength = minus(f"{edge.strength:+.3g}")
    return {
        "edge": f"{edge.source}{SEPARATOR}{edge.target}",
        "source": edge.source,
        "target": edge.target,
        "kind": "plus" if edge.strength > 0 else "minus" if edge.strength < 0 else "rest",
        "strength": edge.strength,
        "weight": edge.weight,
        "share": abs(edge.strength) / most if most > 0 else 0.0,
        "number": number(edge.strength),
        "kernel": kernel_uri(kernel, bars[target.layer]),
        "shape": list(kernel.shape),
        "values": [[float(f"{value:.6g}") for value in row] for row in kernel],
        "effect": effect,
        "title": f"{name_of(source)} to {name_of(target)}: {effect}",
        "about": f"gives the target of the graph {strength} through it"
        if given
        else f"contributes {strength} on average; weights from {low} to {high}, sum {total}",
    }
