"""Trace a unit back to the units that excite and inhibit it.

For every node of the circuit the sources of the layer before are ranked by what they contribute to its
pre-activation at the positions where the target is most active: expanded weight x activation by default, or gradient
x activation, or ablation. The sources that are left out are summed in a `Rest`.
Source: Olah et al., Zoom In, Distill 2020; Voss et al., Visualizing Weights, Distill 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from circuits.attribution.expanded_weights import ExpandedWeights, expanded_weights
from circuits.common.provenance import provenance
from circuits.dataset.peak_positions import Peaks, examples, layer_peaks, starts
from circuits.errors import AddressError, CircuitsError, GraphError
from circuits.network.address import Unit
from circuits.network.hooks import frozen, read
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.responses import respond
from circuits.network.subnetwork import Segment, ablation_drops, channel_pools
from circuits.tracing.circuit import Circuit, Edge, Node, Rest
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import one_of, whole_number
from zoo.images.sources import Images, open_images
from zoo.progress import Progress

By = Literal["weights", "attribution", "ablation"]


@dataclass
class _Frontier:
    """Units of one layer that are to be explained, with their position on each image."""

    layer: str
    units: list[Unit]
    positions: dict[Unit, list[Pair]] = field(default_factory=dict)


@outside_inference_mode
def trace(
    model: Model,
    target: str | Unit,
    *,
    images: Any,
    depth: int = 1,
    width: int = 6,
    by: By = "weights",
    layers: Sequence[str] | None = None,
    threshold: float = 0.0,
    n_positions: int = 32,
    n_examples: int = 9,
    batch_size: int = 32,
    progress: Progress = None,
) -> Circuit:
    """The circuit of a unit: the sources that excite and inhibit it, and theirs in turn.

    Args:
        model: the model.
        target: a channel, a neuron `@y,x`, a class score `logits:817`, or a latent of an attached basis.
        images: images in any form that `capture` takes; the target must be active on some of them.
        depth: how many layers to go back.
        width: sources of each node, the strongest by size, whether they excite or inhibit.
        by: "weights" (expanded weight x activation), "attribution" (gradient x activation) or "ablation"
            (drop of the node's pre-activation when the source is set to its mean). The latter two also go through
            gates, normalization and upsampling, which have no kernel: there an edge's kernel is a single number, the
            gradient summed over positions, as a mean over the images.
        layers: source layers to go back through, latest first (default: the model's trunk).
        threshold: drop sources below this share of a node's strongest.
        n_positions: images on which the target is strongest, over which contributions are averaged.
        n_examples: strongest positions stored for every node, over all images.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Returns:
        The circuit, not yet scored; see `circuits.score`.

    Raises:
        AddressError: unknown unit or layer. CircuitsError: nonsense options, or the target is active nowhere.

    >>> circuit = trace(load("scenes"), "mixed4a:0", images="scenes:50")  # doctest: +SKIP
    """
    unit = model.unit(target)
    for name, count in (("depth", depth), ("width", width), ("n_positions", n_positions)):
        whole_number(name, count)
    one_of("by", by, ("weights", "attribution", "ablation"))
    chain = _chain(model, unit, depth, layers)
    dataset = open_images(images)
    also = _pools(model, chain) if by == "ablation" else []
    peaks = layer_peaks(model, dataset, chain, unit, also=also, batch_size=batch_size, progress=progress)
    strongest = peaks.strongest(unit, limit=n_positions)
    batch = dataset.tensor(model.input, [p.image for p in strongest]).to(model.device)
    with torch.no_grad():
        acts = read(model, batch, [model.layers[name] for name in peaks.layers if name not in also])
    frontier = _Frontier(unit.layer, [unit], {unit: [p.position for p in strongest]})
    depths, edges, rest = {unit: 0}, [], []
    levels = [frontier]
    for level, source in enumerate(chain[1:], start=1):
        step = _Step(model, source, frontier, batch, acts, peaks, by)
        frontier = _Frontier(source, [])
        for node in step.frontier.units:
            node_edges, node_rest = step.explain(node, width, threshold)
            edges += node_edges
            rest.append(node_rest)
            for edge in node_edges:
                parent = Unit.parse(edge.source)
                if parent not in frontier.positions:
                    frontier.units.append(parent)
                    frontier.positions[parent] = step.positions_of(node, parent)
                depths.setdefault(parent, level)
        if not frontier.units:
            break
        levels.append(frontier)
    nodes = [_node(model, u, depths[u], peaks, levels, acts, dataset, n_examples) for u in depths]
    return Circuit(
        target=str(unit),
        model=model.name,
        nodes=tuple(nodes),
        edges=tuple(edges),
        rest=tuple(rest),
        layers=tuple(chain),
        by=by,
        provenance=provenance(
            weights=model.digest,
            weights_source=model.source,
            images=dataset.name,
            images_digest=dataset.digest,
            n_images=len(dataset),
            n_places=len(strongest),
            depth=depth,
            width=width,
            threshold=threshold,
        ),
    )


def _chain(model: Model, unit: Unit, depth: int, layers: Sequence[str] | None) -> list[str]:
    if layers is not None:
        chosen = [model.layer(name) for name in layers][:depth]
        if any(layer.part is not None for layer in chosen):
            raise AddressError("trace goes back through whole layers; name the block, not one of its branches")
        return [unit.layer, *[layer.name for layer in chosen]]
    chain = [unit.layer]
    for _ in range(depth):
        earlier = model.before(chain[-1])
        if earlier is None:
            break
        chain.append(earlier)
    if len(chain) == 1 and model.graph is None:
        raise CircuitsError(
            f"{unit}: torch.fx cannot trace this network, so its layers are in no known order; "
            f"name those to go back through: layers=[...] (circuits layers {model.name})"
        )
    if len(chain) == 1:
        raise CircuitsError(f"{unit} is in the first layer: its weights read the image itself (circuits weights)")
    return chain


def _pools(model: Model, chain: Sequence[str]) -> list[str]:
    """Max pools over the channels that are ablated, on the way from each layer of the chain to the one before it."""
    pools: dict[str, None] = {}
    for source, after in zip(chain[1:], chain, strict=False):
        pools |= dict.fromkeys(channel_pools(model, source, after))
    return [name for name in pools if name not in chain and name not in starts(model, chain)]


class _Step:
    """One layer back: contributions of every source to every node of the frontier."""

    def __init__(
        self,
        model: Model,
        source: str,
        frontier: _Frontier,
        batch: Tensor,
        acts: dict[str, Tensor],
        peaks: Peaks,
        by: By,
    ) -> None:
        self.model, self.source, self.frontier, self.by = model, source, frontier, by
        self.weights = self._kernels()
        self.start = source if self.weights is None else self.weights.start
        self.batch = batch
        self.acts, self.source_acts = acts[self.start], acts[source]
        self.peaks = peaks
        self.gradients: dict[Unit, Tensor] = {}

    def _kernels(self) -> ExpandedWeights | None:
        """The kernels; None where the network has none here, and none are needed."""
        try:
            return expanded_weights(self.model, source=self.source, target=self.frontier.units)
        except GraphError:
            graph = self.model.graph
            if self.by == "weights" or graph is None:
                raise
            graph.between(self.model.node(self.source), self.model.node(self.frontier.layer))  # raises without a path
            return None

    def explain(self, node: Unit, width: int, threshold: float) -> tuple[list[Edge], Rest]:
        positions = self.frontier.positions[node]
        segment = Segment(self.model, self.start, node, pre=True)
        with torch.no_grad():
            acts, context = self.acts, segment.context(self.batch)
            response = segment.respond(acts, context)[:, 0]
        pre = torch.stack([response[i, y, x] for i, (y, x) in enumerate(positions)])
        if self.weights is None or self.by == "attribution":
            self.gradients[node] = self._gradient(segment, positions, acts, context)
        contributions = self._contributions(segment, node, positions, acts, context, pre)
        strength = contributions.mean(dim=0)
        total = float(strength.sum())
        bias = self._bias(segment, positions, acts)
        chosen = strength.abs().argsort(descending=True, stable=True)[:width].tolist()
        floor = threshold * abs(float(strength[chosen[0]])) if chosen else 0.0
        chosen = [c for c in chosen if strength[c] != 0 and abs(float(strength[c])) >= floor]
        edges = [self._edge(node, c, float(strength[c])) for c in chosen]
        listed = sum(e.strength for e in edges)
        mean = float(pre.mean())
        count = contributions.shape[1] - len(edges)
        rest = Rest(str(node), count, total - listed, total, bias, mean - total - bias, mean)
        return edges, rest

    def _contributions(
        self, segment: Segment, node: Unit, positions: list[Pair], acts: Tensor, context: Any, pre: Tensor
    ) -> Tensor:
        """Contribution of each source to the node on each image, `(N, S)`."""
        if self.by == "weights":
            assert self.weights is not None
            patches = self.weights.patches(acts, positions)
            kernels = self.weights.kernels[self.frontier.units.index(node)]
            return torch.einsum("nsij,sij->ns", patches, kernels.to(patches))
        if self.by == "attribution":
            return (self.gradients[node] * acts).sum(dim=(2, 3))
        means = self.peaks.means(self.start)
        pooled = {name: self.peaks.means(name) for name in channel_pools(self.model, self.start, self.frontier.layer)}
        return ablation_drops(segment, acts, context, positions, pre, means, pooled)

    def _gradient(self, segment: Segment, positions: list[Pair], acts: Tensor, context: Any) -> Tensor:
        """Gradient `(N, S, h, w)` of the node at its position on each image."""
        with frozen(self.model.module), torch.enable_grad():
            leaf = acts.detach().requires_grad_(True)
            out = segment.respond(leaf, context)[:, 0]
            total = torch.stack([out[i, y, x] for i, (y, x) in enumerate(positions)]).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
        return gradient

    def _bias(self, segment: Segment, positions: list[Pair], acts: Tensor) -> float:
        if self.by != "weights":
            return 0.0
        bias = segment.bias((acts.shape[2], acts.shape[3]))
        return 0.0 if bias is None else float(torch.stack([bias[0, y, x] for y, x in positions]).mean())

    def _edge(self, node: Unit, channel: int, strength: float) -> Edge:
        if self.weights is None:
            kernel = self.gradients[node][:, channel].sum(dim=(1, 2)).mean().view(1, 1)
        else:
            kernel = self.weights.kernels[self.frontier.units.index(node), channel]
        kernel = kernel.detach().cpu().float()
        total = float(kernel.sum())
        return Edge(
            source=str(Unit(self.source, channel, self.model.name)),
            target=str(node),
            sign=1 if strength > 0 else -1,
            weight=math.copysign(float(kernel.norm()), total),
            strength=strength,
            kernel=kernel.numpy(),
            offset=(0, 0) if self.weights is None else self.weights.offset,
            stride=(1, 1) if self.weights is None else self.weights.stride,
        )

    def positions_of(self, node: Unit, parent: Unit) -> list[Pair]:
        """Where the parent acts on the node on each image: its largest contribution within the kernel."""
        channel = parent.index
        assert channel is not None
        if self.weights is None:
            width = self.acts.shape[3]
            products = (self.gradients[node] * self.acts)[:, channel].abs().flatten(1)
            return [(i // width, i % width) for i in products.argmax(dim=1).tolist()]
        row = self.frontier.units.index(node)
        kernel = self.weights.kernels[row, channel].to(self.acts)
        positions = self.frontier.positions[node]
        patches = self.weights.patches(self.acts[:, channel : channel + 1], positions)[:, 0]
        flat = (patches * kernel).abs().flatten(1).argmax(dim=1).tolist()
        h, w = self.acts.shape[2:]
        result = []
        for i, (y, x) in enumerate(positions):
            top = y * self.weights.stride[0] + self.weights.offset[0] + flat[i] // kernel.shape[1]
            left = x * self.weights.stride[1] + self.weights.offset[1] + flat[i] % kernel.shape[1]
            result.append(self._on_source(i, channel, min(max(top, 0), h - 1), min(max(left, 0), w - 1)))
        return result

    def _on_source(self, i: int, channel: int, y: int, x: int) -> Pair:
        """A position of the start layer on the source's own grid: the peak within what a pool took it from."""
        if self.start == self.source or self.source_acts.shape == self.acts.shape:
            return (y, x)
        maps = self.source_acts[i, channel]
        ry, rx = -(-maps.shape[0] // self.acts.shape[2]), -(-maps.shape[1] // self.acts.shape[3])
        top, left = min(y * ry, maps.shape[0] - 1), min(x * rx, maps.shape[1] - 1)
        window = maps[top : top + ry + 1, left : left + rx + 1]
        best = int(window.argmax())
        return (top + best // window.shape[1], left + best % window.shape[1])


def _node(
    model: Model,
    unit: Unit,
    depth: int,
    peaks: Peaks,
    levels: list[_Frontier],
    acts: dict[str, Tensor],
    dataset: Images,
    n_examples: int,
) -> Node:
    positions = levels[depth].positions[unit]
    response = respond(model, unit, acts[unit.layer])
    values = [float(response[i, y, x]) for i, (y, x) in enumerate(positions)]
    assert unit.index is not None
    top = [(p.value, p.image, p.position) for p in peaks.strongest(unit, limit=n_examples, active_only=False)]
    return Node(
        unit=str(unit),
        layer=unit.layer,
        index=unit.index,
        role="target" if depth == 0 else "parent",
        depth=depth,
        activation=sum(values) / len(values),
        examples=examples(model, unit, dataset, top),
    )


__all__ = ["GraphError", "ablation_drops", "trace"]
