"""Which layer gives the class scores, of those that the output of a network is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from circuits.network.graph import Graph
from circuits.network.layer import Layer
from circuits.network.layers.crossing import NONLINEAR
from zoo.networks.trial import Output

_WEIGHTS = ("conv", "linear", "conv2d")


def behind_output_of_graph(graph: Graph, output: Output) -> tuple[list[str], list[tuple[str, Any]]]:
    """Layers that the output is made from alone, the nearest to it first; and the nodes put out."""
    outputs = graph.given(output)
    names: list[str] = []
    at = [outputs[0][1]] if len(outputs) == 1 else []
    while len(at) == 1:
        names += [n for n, node in graph.outputs.items() if node is at[0]]
        at = [] if graph.ops[at[0]].weighted else list(graph.ops[at[0]].inputs)
    return names, outputs


def layer_of_scores(layers: dict[str, Layer], names: Sequence[str], classes: int) -> str | None:
    """The layer of class scores, before any softmax and before class maps are enlarged; None where there is none.

    Args:
        layers: of the network, in the order in which they run.
        names: of those that the output is made from alone, the nearest to it first.
        classes: channels of the output.
    """
    names = [n for n in names if n in layers and layers[n].channels == classes]
    vectors = (n for n, v in reversed(layers.items()) if v.size in (None, (1, 1)) and v.kind != "softmax")
    last = next(vectors, None)
    if last in names or not names:
        return last if names else None
    for name in names:
        if layers[name].kind in _WEIGHTS:
            return name
        if layers[name].kind in NONLINEAR:  # what it cuts off is no score; a module that holds it has the same output
            return next(n for n in names if layers[n].trunk or n == name)
    return names[-1]
