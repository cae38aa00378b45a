"""Trace through bottlenecks: every step of the path is linear, so that its contributions are the whole response.

From a trunk layer to the one before, a trace by weights passes the ReLUs in between as if they were not there. Where
these change most of the response (in GoogLeNet those of the 3x3 branch), its contributions say little. Here
the units behind these ReLUs are nodes of the circuit themselves: the target is traced to units of its bottleneck, and
those to the layer before. See `circuits.attribution.linear_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, fx

from circuits.attribution.expanded_weights import ExpandedWeights, expanded_weights
from circuits.attribution.linear_steps import LinearStep, LinearSteps
from circuits.errors import GraphError
from circuits.network.address import Unit
from circuits.network.hooks import check_images, graph_edits
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.subnetwork import Segment
from circuits.tracing.circuit import Edge, FoldedSum, Rest


class BaselineValues(Protocol):
    """What stands in for the units of a layer; None for zero."""

    def values(self, node: Unit, source: str, start: str, acts: Tensor) -> Tensor | None:
        """For the activations `acts` `(N, S, h, w)` of `start`, which holds the units of `source`, before `node`."""


@dataclass
class Path:
    """What a trace through bottlenecks collects.

    Attributes:
        positions: unit -> where it acts on each image, the target first.
        edges, rest: as in a `Circuit`.
    """

    positions: dict[Unit, list[Pair]]
    edges: list[Edge] = field(default_factory=list)
    rest: list[Rest] = field(default_factory=list)

    def layers(self, model: Model) -> list[str]:
        """Layers of the units, the target's first, then going back."""
        assert model.graph is not None
        order = model.graph.order
        names = dict.fromkeys(unit.layer for unit in self.positions)
        return sorted(names, key=lambda name: -order[model.node(name)])


def follow(
    model: Model,
    unit: Unit,
    chain: Sequence[str],
    images: Tensor,
    positions: list[Pair],
    baseline: BaselineValues,
    *,
    width: int,
    threshold: float,
) -> Path:
    """Trace a channel back along a chain of layers, through all units that the path crosses.

    Args:
        model: one with a graph.
        unit: the target, a channel of the first layer of the chain.
        chain: layers, the latest first.
        images: `(N, channels, H, W)`, on which contributions are averaged.
        positions: of the target on each image.
        baseline: what contributions are counted from.
        width, threshold: as for `trace`, for each unit.

    Raises:
        GraphError: a step has no linear form, or reads what has no name.
    """
    assert model.graph is not None
    order = model.graph.order
    path = Path({unit: positions})
    waiting: dict[str, list[Unit]] = {unit.layer: [unit]}
    for after, source in zip(chain, chain[1:], strict=False):
        steps = _Steps(model, source, images, baseline, width, threshold)
        # all that read a layer come after it, so that its units are known when its turn comes
        while inner := [name for name in waiting if name != source]:
            at = max(inner, key=lambda name: order[model.node(name)])
            for node in waiting.pop(at):
                edges, rest = steps.explain(node, path.positions[node], folded=at == after)
                path.edges += edges
                path.rest.append(rest)
                for edge in edges:
                    parent = Unit.parse(edge.source)
                    if parent not in path.positions:
                        path.positions[parent] = steps.positions_of(node, parent, path.positions[node])
                        waiting.setdefault(parent.layer, []).append(parent)
        if not waiting:
            break
    return path


@dataclass(frozen=True)
class _Input:
    """One of the nodes that a step reads: its units, its weights, activations, and the baseline of these.

    Attributes:
        contributions: of each unit, a mean over the images `(C,)` float64; standing: what the baseline contributes.
    """

    layer: str
    weights: ExpandedWeights
    acts: Tensor
    contributions: Tensor
    standing: float


class _Steps:
    """Steps back to one layer of the chain."""

    def __init__(
        self, model: Model, source: str, images: Tensor, baseline: BaselineValues, width: int, threshold: float
    ) -> None:
        self.model, self.source, self.baseline = model, source, baseline
        self.width, self.threshold = width, threshold
        self.steps = LinearSteps(model, source)
        self.images = images
        self._values: dict[fx.Node, Tensor] = {}
        self._inputs: dict[Unit, list[_Input]] = {}

    def explain(self, node: Unit, positions: list[Pair], *, folded: bool) -> tuple[list[Edge], Rest]:
        """Edges into a unit from what it is a linear function of, and the rest of their sum."""
        step = self.steps.of(node)
        values = self._read([step.end, *step.reads])
        inputs = self._inputs[node] = [self._input(node, step, at, positions) for at in step.reads]
        mean = _mean_at(as_maps(values[step.end])[:, step.channel], positions)
        bias = _mean_at(self.steps.bias(step, values).expand(len(positions), -1, -1), positions)
        bias += sum(i.standing for i in inputs)
        strengths = {
            layer: torch.stack([i.contributions for i in inputs if i.layer == layer]).sum(dim=0)
            for layer in dict.fromkeys(i.layer for i in inputs)
        }
        strength = torch.cat(list(strengths.values()))
        parents = [Unit(layer, c, self.model.name) for layer, each in strengths.items() for c in range(len(each))]
        chosen = strength.abs().argsort(descending=True, stable=True)[: self.width].tolist()
        floor = self.threshold * max((abs(float(strength[k])) for k in chosen), default=0.0)
        chosen = [k for k in chosen if strength[k] != 0 and abs(float(strength[k])) >= floor]
        edges = [self._edge(node, parents[k], float(strength[k])) for k in chosen]
        total, listed = float(strength.sum()), sum(e.strength for e in edges)
        whole = self._folded(node, step, positions, mean) if folded else None
        count = len(strength) - len(edges)
        return edges, Rest(str(node), count, total - listed, total, bias, mean - total - bias, mean, whole)

    def positions_of(self, node: Unit, parent: Unit, positions: list[Pair]) -> list[Pair]:
        """Where a parent acts on a node on each image, on the parent's own grid."""
        source = self._strongest_input(node, parent)
        own = self._read([self.model.node(parent.layer)])[self.model.node(parent.layer)]
        return acting_positions(source.weights, 0, parent.index or 0, source.acts, as_maps(own), positions)

    def _read(self, nodes: Sequence[fx.Node]) -> dict[fx.Node, Tensor]:
        graph = self.model.graph
        assert graph is not None
        missing = [n for n in nodes if n not in self._values]
        if missing:
            feeds = {graph.input: self.model.input.normalize(check_images(self.model, self.images)), **self._values}
            edits = {n: f for n, f in graph_edits(self.model).items() if n not in self._values}
            with self.model.lock, torch.no_grad():  # from the source on, once its activations are there
                self._values |= graph.run(feeds, [self.model.node(self.source), *missing], edits=edits)
        return {n: self._values[n] for n in nodes}

    def _input(self, node: Unit, step: LinearStep, at: fx.Node, positions: list[Pair]) -> _Input:
        layer, acts = step.reads[at], as_maps(self._values[at])
        weights = self.steps.kernels(step, at, node)
        base = self.baseline.values(node, layer, self.model.name_of(at), acts)
        moved = acts if base is None else acts - base
        contributions = _products(weights, positions, moved).double().mean(dim=0)
        standing = 0.0 if base is None else float(_products(weights, positions, base).double().sum(dim=1).mean())
        return _Input(layer, weights, acts, contributions, standing)

    def _strongest_input(self, node: Unit, parent: Unit) -> _Input:
        """The input by which a parent contributes most: nearly always the only one that holds it."""
        inputs = [i for i in self._inputs[node] if i.layer == parent.layer]
        return max(inputs, key=lambda i: abs(float(i.contributions[parent.index or 0])))

    def _edge(self, node: Unit, parent: Unit, strength: float) -> Edge:
        weights = self._strongest_input(node, parent).weights
        return weighted_edge(parent, node, strength, weights.kernels[0, parent.index or 0], weights)

    def _folded(self, node: Unit, step: LinearStep, positions: list[Pair], pre_activation: float) -> FoldedSum | None:
        """The sum with all between the two layers of the chain taken as linear; None where that is the step itself.

        Also where it has no form.
        """
        if list(step.reads) == [self.model.node(self.model.start(self.source, node.layer))]:
            return None
        try:
            weights = expanded_weights(self.model, source=self.source, target=node)
        except GraphError:
            return None
        at = self.model.node(weights.start)
        acts = as_maps(self._read([at])[at])
        total = float(_products(weights, positions, acts).double().sum(dim=1).mean())
        bias = Segment(self.model, weights.start, node, pre=True).bias((acts.shape[2], acts.shape[3]))
        standing = 0.0 if bias is None else _mean_at(bias.expand(len(positions), -1, -1), positions)
        base = self.baseline.values(node, self.source, weights.start, acts)
        if base is not None:
            held = float(_products(weights, positions, base).double().sum(dim=1).mean())
            total, standing = total - held, standing + held
        return FoldedSum(total, standing, pre_activation - total - standing)


def _products(weights: ExpandedWeights, positions: list[Pair], acts: Tensor) -> Tensor:
    """Weights times activations at the positions of a unit, `(N, S)`."""
    return torch.einsum("nsij,sij->ns", weights.patches(acts, positions), weights.kernels[0].to(acts))


def _mean_at(values: Tensor, positions: list[Pair]) -> float:
    return float(torch.stack([values[i, y, x] for i, (y, x) in enumerate(positions)]).double().mean())


def weighted_edge(
    parent: Unit, node: Unit, strength: float, kernel: Tensor, weights: ExpandedWeights | None = None
) -> Edge:
    """The edge of a kernel `(kh, kw)`, which lies as `weights` do."""
    kernel = kernel.detach().cpu().float()
    return Edge(
        source=str(parent),
        target=str(node),
        sign=1 if strength > 0 else -1,
        weight=math.copysign(float(kernel.norm()), float(kernel.sum())),
        strength=strength,
        kernel=kernel.numpy(),
        offset=(0, 0) if weights is None else weights.offset,
        stride=(1, 1) if weights is None else weights.stride,
    )


def acting_positions(
    weights: ExpandedWeights, row: int, channel: int, acts: Tensor, own: Tensor, positions: list[Pair]
) -> list[Pair]:
    """Where a source acts on a unit on each image: its largest contribution within the kernel.

    Args:
        weights: kernels to the unit, its `row`, from the source, their `channel`.
        acts: `(N, S, h, w)` of the layer that the kernels read; own: of the source's own layer, before any pool.
        positions: of the unit.
    """
    kernel = weights.kernels[row, channel].to(acts)
    patches = weights.patches(acts[:, channel : channel + 1], positions)[:, 0]
    flat = (patches * kernel).abs().flatten(1).argmax(dim=1).tolist()
    h, w = acts.shape[2:]
    result = []
    for i, (y, x) in enumerate(positions):
        top = y * weights.stride[0] + weights.offset[0] + flat[i] // kernel.shape[1]
        left = x * weights.stride[1] + weights.offset[1] + flat[i] % kernel.shape[1]
        at = min(max(top, 0), h - 1), min(max(left, 0), w - 1)
        result.append(at if own.shape == acts.shape else _before_pool(own[i, channel], at, (h, w)))
    return result


def _before_pool(own: Tensor, at: Pair, size: Pair) -> Pair:
    """A position of a pooled map on the source's own grid: the peak within what the pool took it from."""
    ry, rx = -(-own.shape[0] // size[0]), -(-own.shape[1] // size[1])
    top, left = min(at[0] * ry, own.shape[0] - 1), min(at[1] * rx, own.shape[1] - 1)
    window = own[top : top + ry + 1, left : left + rx + 1]
    best = int(window.argmax())
    return (top + best // window.shape[1], left + best % window.shape[1])
