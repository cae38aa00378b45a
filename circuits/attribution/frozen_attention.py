"""Weights across attention with its pattern as it is on an image.

Given the pattern, attention moves values linearly from position to position: what a head writes at one token is the sum
of what its value matrix makes of each other token, times how much that token is attended to (Elhage et al., A
Mathematical Framework for Transformer Circuits, 2021). So a path between linear parts has weights of its own for each
image and each target position, over the whole map of the source. Queries and keys, which make the pattern, have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from circuits.attribution.linearity import LinearPath, first_nonlinear
from circuits.errors import AddressError, GraphError
from circuits.network.address import Unit
from circuits.network.graph import Graph
from circuits.network.hooks import check_images, frozen
from circuits.network.layers.readings import PATTERN
from circuits.network.model import Model
from circuits.network.operations import Pair, shape_of, title
from circuits.network.responses import read_directions
from zoo.images.sources import open_images


def frozen_weights(model: Model, images: Any, source: str, units: Sequence[Unit]) -> Tensor:
    """Kernels `(targets, sources, h, w)` over the whole map of `source`, a mean over images.

    Raises:
        AddressError: no position is named where the target has several, or different ones. GraphError: no graph, no
            attention with a pattern of its own on the way, or something else that has no linear form.
    """
    graph, layer = model.graph, units[0].layer
    if graph is None:
        raise GraphError(f"torch.fx cannot trace {model.name}, so its attention patterns cannot be held")
    begin, end = model.node(source), model.node(layer)
    position = _position(model, units)
    patterns = _patterns(graph, begin, end)
    indices = [unit.index or 0 for unit in units]
    directions = read_directions(model, layer, units[0].basis, indices)
    total: Tensor | None = None
    dataset = open_images(images)
    for _, batch in dataset.batches(model.input, batch_size=1):
        kernels = _on_image(model, graph, batch, (source, layer), patterns, position, indices, directions)
        total = kernels if total is None else total + kernels
    assert total is not None
    return total / len(dataset)


def _position(model: Model, units: Sequence[Unit]) -> Pair:
    positions = {unit.at for unit in units}
    if positions == {None} and model.layers[units[0].layer].size in (None, (1, 1)):
        return (0, 0)
    if len(positions) != 1 or None in positions:
        layer = units[0].layer
        raise AddressError(
            f"with frozen attention each position has weights of its own: name one, {layer}:{units[0].index}@y,x"
        )
    (position,) = positions
    assert position is not None
    return position[0], position[1]


def _patterns(graph: Graph, begin: fx.Node, end: fx.Node) -> list[fx.Node]:
    """The attention patterns that the path between two nodes is multiplied with."""
    path = graph.between(begin, end)[1:]
    pieces = [n for n in path if graph.is_attention(n)]
    if pieces:
        raise GraphError(
            f"{title(pieces[0])} is attention in one piece, whose pattern cannot be held: build the network with an "
            "explicit softmax (timm: `timm.layers.set_fused_attn(False)`; nn.MultiheadAttention has no other form)"
        )
    held = [i for n in path if graph.layouts[n] != PATTERN for i in n.all_input_nodes if graph.layouts[i] == PATTERN]
    if not held:
        raise GraphError(f"no attention lies between {title(begin)} and {title(end)}: leave attention= out")
    return list(dict.fromkeys(held))


def _on_image(
    model: Model, graph: Graph, image: Tensor, layers: tuple[str, str], patterns: list[fx.Node], position: Pair,
    indices: list[int], directions: Tensor | None,
) -> Tensor:  # fmt: skip
    begin, end = (model.node(name) for name in layers)
    first, last = (model.layers[name].axes for name in layers)
    with torch.no_grad():
        x = model.input.normalize(check_images(model, image))
        values = graph.run({graph.input: x}, [begin, *patterns])
    acts = first.maps(values.pop(begin))
    y, x_ = position

    def run(maps: Tensor, nodes: list[fx.Node]) -> dict[fx.Node, Tensor]:
        shape = shape_of(begin)
        assert shape is not None
        fed = first.write(maps, maps.new_zeros((len(maps), *shape[1:])))
        held = {n: v.expand(len(maps), *v.shape[1:]) for n, v in values.items()}
        try:
            return graph.run({begin: fed, **held}, nodes, linear=True)
        except (RuntimeError, TypeError, AttributeError) as error:  # one of the other inputs of a function is missing
            raise GraphError(f"what lies between {layers[0]} and {layers[1]} has no linear form") from error

    def evaluate(maps: Tensor) -> Tensor:
        row = last.maps(run(maps, [end])[end])[:, :, y, x_]
        read = row[:, indices] if directions is None else row @ directions.to(row).T
        return read[:, :, None, None]

    with frozen(model.module), torch.enable_grad():
        leaf = torch.zeros_like(acts).requires_grad_(True)
        out = evaluate(leaf)[0, :, 0, 0]
        rows = [torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)[0] for value in out]
    kernels = torch.cat([torch.zeros_like(acts) if row is None else row for row in rows])

    def culprit(points: Tensor) -> str:
        path = [n for n in graph.between(begin, end)[1:] if shape_of(n) is not None and n not in patterns]
        readable = [n for n in path if not isinstance(graph.layouts[n], str)]
        return repr(first_nonlinear({title(n): v for n, v in run(points, readable).items()}, points) or layers[1])

    LinearPath(acts.expand(2, -1, -1, -1), evaluate, culprit).check(kernels, lambda points, _: points)
    return kernels
