"""Attribution graphs of a prediction: see `graph`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.class_scores import class_index, class_of
from circuits.common.examples import Example
from circuits.common.provenance import provenance
from circuits.dataset.peak_positions import examples as as_examples
from circuits.errors import AddressError, CircuitsError, GraphError, shorten
from circuits.network.address import Unit
from circuits.network.layers.windows import BETWEEN
from circuits.network.model import Model
from circuits.tracing.ablation.sources import ERROR, Channels
from circuits.tracing.graphs.attribution_graph import AttributionGraph, GraphNode, Kind
from circuits.tracing.graphs.blocks import check_apart, graph_source
from circuits.tracing.graphs.flows import INPUT, Cut, Flows, Incoming, check_sums
from circuits.tracing.graphs.influence import graph_scores, influence
from circuits.tracing.rankings.ranking import source_layers
from circuits.tracing.target import PREDICTIONS, Target, TargetLike, target_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.common.results import remembers
from zoo.images.sources import Images, open_images
from zoo.progress import Progress, reporter

DEFAULT_LAYERS = 4
"""Layers of the trunk that are taken where none are named and no dictionary is attached."""
EXAMPLES = 3


@remembers("model", "images")
@outside_inference_mode
def graph(
    model: Model,
    images: Any,
    target: TargetLike,
    *,
    layers: Sequence[str] | str | None = None,
    dictionaries: Sequence[str] | str | None = None,
    width: int = 32,
    keep: float = 0.8,
    positions: bool = False,
    patches: int = 1,
    batch_size: int = 8,
    progress: Progress = None,
) -> AttributionGraph:
    """Why a prediction is what it is: which units give it, and through which others, with the network frozen there.

    The network is held at each image as the affine map that it is there (ReLUs and max pools as they switch, the
    denominators of normalizations, attention patterns). In it the target is exactly a sum of what units of the last
    layer give, each of these a sum of what units of the layer before give, and so on to the image, plus biases. An edge
    holds the paths that pass no other layer of the graph. All is in the units of the target: the value of a node is its
    activation times the target's derivative by it, summed over positions and averaged over images.

    Latents of dictionaries are read by their encoders; what a dictionary does not reconstruct is its error, a node
    without sources. Those of a transcoder are read from the layer that goes into a block and stand in for the block:
    paths to them begin there, as do those through its linear skip. After Ameisen et al., Circuit Tracing (2025), for
    SAEs of layers, too, as in Marks et al., Sparse Feature Circuits (arXiv 2403.19647).

    Args:
        model: the model.
        images: one image, or several of which the graph is the mean, in any form that `capture` takes.
        target: a class by name or `logits:817`; a difference, `logits:817-logits:436` or two classes; a unit, which is
            read where it is largest on each image.
        layers: of the units: layers, or dictionaries as `layer~name`, transcoders as `A..B~name` (default: all
            dictionaries that are attached, else the last four layers of the trunk before the target's).
        dictionaries: names under which SAEs and transcoders are attached, or their addresses, besides `layers`.
        width: at most so many units of a layer, those that give most, are nodes of their own; the others are one.
        keep: of these the fewest that have this share of their influence are left.
        positions: nodes are units at positions.
        patches: the image is so many times so many nodes; no more than it has rows, so that of a sequence `patches` is
            the number of nodes.
        batch_size: images at a time.
        progress: True for a bar, or a function of (done, total).

    Returns:
        The graph, in which the sum of the edges into each node, plus its bias, is the node's value.

    Raises:
        AddressError: an unknown layer, unit or class, or a layer that is not before the target.
        CircuitsError: no target of a unit or a difference, nothing reaches it on these images, or a layer is named
            twice or lies in a block that a transcoder stands in for.
        GraphError: something on the way has no linear form at an image; weights of less than 32 bits.

    >>> graph(load("scenes"), "scenes:1", "car").completeness
    1.0
    """
    number("keep", keep, above=0, most=1)
    whole_number("width", width)
    whole_number("patches", patches, most=max(model.input.hw))
    if torch.finfo(model.dtype).bits < 32:
        kind = str(model.dtype).removeprefix("torch.")
        raise GraphError(f"in {kind} the sums of a graph do not come out: wrap module.float() of {model.name}")
    explained = target_of(model, _named(model, target))
    if not explained.units:
        raise CircuitsError(f"an attribution graph is of a unit, a class or a difference of two, not {explained.name}")
    sources = _sources(model, explained, layers, dictionaries)
    dataset = open_images(images)
    builder = _Builder(model, explained, sources, dataset, batch_size, width, positions, patches)
    with reporter(progress, "node") as report:
        nodes, weights, unexplained = builder.build(report)
    last = len(nodes) - 1
    if not np.abs(weights[last]).sum():
        raise CircuitsError(f"nothing gives {explained.name} anything on {dataset.name}: it is silent there")
    kinds = np.array([node.kind for node in nodes])
    replacement, completeness = graph_scores(weights, last, inputs=kinds == "input", errors=kinds == "error")
    nodes = [replace(n, influence=float(i)) for n, i in zip(nodes, influence(weights, last), strict=True)]
    nodes, weights = pruned(nodes, weights, keep)
    return AttributionGraph(
        target=nodes[-1].unit,
        model=model.name,
        layers=tuple(source.name for source in sources),
        nodes=tuple(nodes),
        weights=weights,
        completeness=completeness,
        replacement=replacement,
        unexplained=unexplained,
        keep=keep,
        n_images=len(dataset),
        provenance=provenance(
            weights=model.digest, weights_source=model.source, images=dataset.name, images_digest=dataset.digest,
            n_images=len(dataset), width=width, positions=positions, patches=patches,
        ),
    )  # fmt: skip


def _named(model: Model, target: TargetLike) -> TargetLike:
    """The target with class names as addresses of their scores.

    Raises:
        CircuitsError: no class, or more than one, has that name.
    """
    names = {name.casefold() for name in model.classes}

    def address(part: Any) -> Any:
        if not isinstance(part, str) or part.isdigit():
            return part
        no_address = ":" not in part and part not in model.layers and part != PREDICTIONS
        named = part.casefold() in names or (names and no_address)
        return f"{model.logits}:{class_index(model, part)}" if named else part

    if isinstance(target, tuple) and len(target) == 2:
        return address(target[0]), address(target[1])
    return address(target)  # type: ignore[no-any-return]


def default_layers(model: Model, layer: str) -> list[str]:
    """The layers of the trunk that are taken where none are named: the last ones before a layer, the last one first."""
    layers, at = list[str](), model.before(layer)
    while at is not None and len(layers) < DEFAULT_LAYERS:
        layers.append(at)
        at = model.before(at)
    return layers


def attached_before(model: Model, layer: str) -> list[str]:
    """The dictionaries attached to a model whose latents write a layer before this one, as `layer~name`."""
    position = model.layers.position
    return [
        f"{space}~{name}"
        for space, name in model.bases
        if position(model.layer(space.rpartition(BETWEEN)[2]).name) < position(layer)
    ]


def _sources(
    model: Model, target: Target, layers: Sequence[str] | str | None, dictionaries: Sequence[str] | str | None
) -> list[Channels]:
    """The units of the layers and dictionaries that are named, or of those taken by default, earliest first.

    Raises:
        AddressError: no dictionary of that name. CircuitsError: two kinds of units of one layer, or inside of a block.
    """
    assert target.layer is not None
    if layers is None and dictionaries is None:
        layers = attached_before(model, target.layer) or default_layers(model, target.layer)
    named = [layers] if isinstance(layers, str) else list(layers or ())
    for name in [dictionaries] if isinstance(dictionaries, str) else dictionaries or ():
        named += [name] if "~" in str(name) else _attached_as(model, name)
    of_name = {name: graph_source(model, name) for name in source_layers(model, target, named, graph_source)}
    check_apart(model, list(of_name.values()))
    return list(of_name.values())


def _attached_as(model: Model, name: str) -> list[str]:
    named = [f"{space}~{basis}" for space, basis in model.bases if basis == name]
    if not named:
        listed = ", ".join(f"{space}~{basis}" for space, basis in model.bases) or "none"
        raise AddressError(f"no dictionary {shorten(name)!r} is attached to {model.name}; attached: {listed}")
    return named


@dataclass
class _LayerNodes:
    """Which units of a layer are nodes of their own: their keys; the others are one node after them, then the error.

    A key is the number of a unit; with positions, times the positions of the map, plus the position.
    """

    source: Channels
    values: Tensor = field(default_factory=lambda: torch.zeros(0))
    chosen: list[int] = field(default_factory=list)
    lookup: Tensor = field(default_factory=lambda: torch.zeros(0))
    first: int = 0
    area: int = 1
    columns: int = 1

    def choose(self, keys: list[int], first: int) -> None:
        """Make these keys the nodes from number `first` on."""
        self.chosen, self.first = keys, first
        self.lookup = torch.full_like(self.values, len(keys), dtype=torch.long)
        self.lookup[keys] = torch.arange(len(keys), device=self.lookup.device)

    @property
    def rest(self) -> int:
        return self.first + len(self.chosen)

    @property
    def error(self) -> int:
        return self.rest + 1


class _Builder:
    def __init__(
        self, model: Model, target: Target, sources: Sequence[Channels], images: Images, batch_size: int, width: int,
        positions: bool, patches: int,
    ) -> None:  # fmt: skip
        self.model, self.target, self.images, self.batch_size = model, target, images, batch_size
        self.width, self.positions = width, positions
        self.grid = min(patches, model.input.hw[0]), min(patches, model.input.hw[1])
        self.layers = {source.name: _LayerNodes(source) for source in sources}
        self._only: tuple[list[int], Flows] | None = None

    def _passes(self) -> Iterator[tuple[list[int], Flows]]:
        """The frozen network on each batch; of a single batch it is kept."""
        if self._only is not None:
            yield self._only
            return
        for indices, batch in self.images.batches(self.model.input, batch_size=self.batch_size):
            sources = [layer.source for layer in self.layers.values()]
            flows = indices, Flows(self.model, self.target, sources, batch.to(self.model.device))
            if len(indices) == len(self.images):
                self._only = flows
            yield flows

    def _keys(self, cut: Cut) -> Tensor:
        return cut.units * cut.area + cut.rows % cut.area if self.positions else cut.units

    def build(self, report: Callable[[int, int], None]) -> tuple[list[GraphNode], NDArray[np.float64], float]:
        """Nodes, edges, and the largest share of a sum that is not explained."""
        unexplained = 0.0
        for _, flows in self._passes():
            slopes, direct, incoming = flows.derivatives()
            unexplained = max(unexplained, check_sums({self.target.name: direct, **incoming}))
            for name, cut in flows.cuts.items():
                layer = self.layers[name]
                if not len(layer.values):
                    layer.area, layer.columns = cut.area, cut.columns
                    layer.values = cut.acts.new_zeros(cut.n_units * (cut.area if self.positions else 1))
                layer.values.index_add_(0, self._keys(cut), slopes[name] * cut.acts)
        first = math.prod(self.grid)
        for layer in self.layers.values():
            order = layer.values.abs().argsort(descending=True, stable=True)[: self.width]
            layer.choose(order[layer.values[order] != 0].tolist(), first)
            first = layer.error + 1
        table = _Table(np.zeros((first + 1, first + 1)), np.zeros(first + 1), np.zeros(first + 1), np.zeros(first + 1))
        examples = self._fill(table, report)
        for column in (table.weights, table.values, table.biases, table.activations):
            column /= len(self.images)
        return self._nodes(table, examples), table.weights, unexplained

    def _fill(self, table: _Table, report: Callable[[int, int], None]) -> dict[int, list[Example]]:
        """Take in what flows into every node on every image; where each gives most."""
        examples: dict[int, list[Example]] = {}
        done, total = 0, len(self.images) * sum(len(layer.chosen) + 1 for layer in self.layers.values())
        for indices, flows in self._passes():
            slopes = flows.derivatives()[0]
            self._add(table, -1, flows, flows.into_target(), float(flows.values.sum()))
            for name, cut in flows.cuts.items():
                layer = self.layers[name]
                node_of, gives = layer.lookup[self._keys(cut)], slopes[name] * cut.acts
                for j in range(len(layer.chosen) + 1):
                    mine, node = node_of == j, layer.first + j
                    table.activations[node] += float(cut.acts[mine].sum())
                    if bool((gives[mine] != 0).any()):
                        flow = flows.into(name, torch.where(mine, slopes[name], 0.0))
                        self._add(table, node, flows, flow, float(gives[mine].double().sum()))
                        if j < len(layer.chosen):
                            own = self._examples(layer, j, cut, torch.where(mine, gives, 0.0), indices)
                            examples.setdefault(node, []).extend(own)
                    done += len(indices)
                    report(done, total)
        return {n: sorted(own, key=lambda e: -abs(e.value))[:EXAMPLES] for n, own in examples.items()}

    def _add(self, table: _Table, node: int, flows: Flows, flow: Incoming, value: float) -> None:
        table.values[node] += value
        table.biases[node] += flow.bias
        for name, given in flow.given.items():
            layer = self.layers[name]
            pooled = given.new_zeros(len(layer.chosen) + 1, dtype=torch.float64)
            pooled.index_add_(0, layer.lookup[self._keys(flows.cuts[name])], given.double())
            table.weights[node, layer.first : layer.error] += pooled.cpu().numpy()
            table.weights[node, layer.error] += flow.errors[name]
        pixels = flow.image.double().sum(dim=(0, 1))
        for axis, p in enumerate(self.grid):
            bins = torch.arange(pixels.shape[axis], device=pixels.device) * p // pixels.shape[axis]
            shape = (p, *pixels.shape[1:]) if axis == 0 else (pixels.shape[0], p)
            pixels = pixels.new_zeros(shape).index_add_(axis, bins, pixels)
        table.weights[node, : pixels.numel()] += pixels.flatten().cpu().numpy()

    def _examples(self, layer: _LayerNodes, j: int, cut: Cut, gives: Tensor, indices: list[int]) -> list[Example]:
        """The position at which a node gives most, on each image on which it gives anything."""
        unit = self._unit(layer, layer.chosen[j])
        by_position = gives.new_zeros(len(indices) * cut.area).index_add_(0, cut.rows, gives).view(-1, cut.area)
        strongest = by_position.abs().argmax(dim=1).tolist()
        rows = [
            (float(by_position[i, at]), index, divmod(at, cut.columns))
            for i, (index, at) in enumerate(zip(indices, strongest, strict=True))
            if by_position[i, at] != 0
        ]
        return list(as_examples(self.model, unit, self.images, rows))

    def _unit(self, layer: _LayerNodes, key: int) -> Unit:
        index, at = key, None
        if self.positions:
            index, position = divmod(key, layer.area)
            at = divmod(position, layer.columns)
        space, _, basis = layer.source.name.partition("~")
        return Unit(space, index, self.model.name, basis or None, at)

    def _nodes(self, table: _Table, examples: Mapping[int, list[Example]]) -> list[GraphNode]:
        name, (rows, columns) = self.model.name, self.grid
        # of what has no sources, the value is all that flows out
        out = table.weights.sum(axis=0)
        cells = [""] if rows * columns == 1 else [f"@{y},{x}" for y in range(rows) for x in range(columns)]
        nodes = [GraphNode(f"{name}/{INPUT}{cell}", "input", INPUT, float(out[i])) for i, cell in enumerate(cells)]
        for layer in self.layers.values():
            space = layer.source.name
            for j, key in enumerate(layer.chosen):
                i = layer.first + j
                unit = str(self._unit(layer, key))
                nodes.append(table.node(i, unit, "unit", space, examples=tuple(examples.get(i, ()))))
            others = int((layer.values != 0).sum()) - len(layer.chosen)
            nodes.append(table.node(layer.rest, f"{name}/{space}:rest", "rest", space, count=others))
            nodes.append(GraphNode(f"{name}/{space}:{ERROR}", "error", space, float(out[layer.error])))
        classes = [class_of(self.model, unit) for unit in self.target.units]
        label = None if None in classes else " instead of ".join(str(name) for name in classes)
        table.activations[-1] = table.values[-1]
        return [*nodes, table.node(-1, self.target.name, "target", str(self.target.layer), label=label)]


@dataclass
class _Table:
    """Of the nodes of a graph: edges, a row for each node; values, what of them is of biases, and activations."""

    weights: NDArray[np.float64]
    values: NDArray[np.float64]
    biases: NDArray[np.float64]
    activations: NDArray[np.float64]

    def node(self, i: int, unit: str, kind: Kind, layer: str, **options: Any) -> GraphNode:
        value, bias, activation = (float(column[i]) for column in (self.values, self.biases, self.activations))
        return GraphNode(unit, kind, layer, value, bias, activation, **options)


def pruned(
    nodes: Sequence[GraphNode], weights: NDArray[np.float64], keep: float
) -> tuple[list[GraphNode], NDArray[np.float64]]:
    """The graph with the fewest units that have a share of the influence of all units; the others join the rest.

    The rest of a layer is one node whose edges are the sums of theirs, so that every sum stays whole. What is empty
    after that is left out.
    """
    units = sorted((i for i, n in enumerate(nodes) if n.kind == "unit"), key=lambda i: -nodes[i].influence)
    total = np.cumsum([nodes[i].influence for i in units])
    chosen = set(units[: 1 + int(np.searchsorted(total, keep * total[-1] * (1 - 1e-12)))]) if len(units) else set()
    merged, weights = list(nodes), weights.copy()
    rests = {n.layer: i for i, n in enumerate(nodes) if n.kind == "rest"}
    for i in (i for i in units if i not in chosen):
        r = rests[nodes[i].layer]
        for matrix in (weights, weights.T):
            matrix[r] += matrix[i]
            matrix[i] = 0.0
        joined = {k: getattr(merged[r], k) + getattr(nodes[i], k) for k in ("value", "bias", "activation", "influence")}
        merged[r] = replace(merged[r], count=merged[r].count + 1, **joined)
    linked = np.abs(weights).sum(axis=0) + np.abs(weights).sum(axis=1)
    left = [
        i
        for i, n in enumerate(merged)
        if i in chosen or n.kind in ("target", "input") or (n.kind != "unit" and linked[i])
    ]
    return [merged[i] for i in left], weights[np.ix_(left, left)]
