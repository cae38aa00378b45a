"""Supernodes: nodes of an attribution graph that are active in the same places and have the same edges.

Two nodes of a layer are compared by the correlation of their activations over positions and images, and by the cosine
of their edges in the graph, into them and out of them. The smaller of the two is their similarity; average linkage
joins nodes while it is above a threshold. Each group has two controls: random nodes of the same layer, whose
activations are compared in the same way on images on which no group was chosen; and random units that are about as
active, which are silenced together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.hooks import read
from circuits.network.model import Model
from circuits.tracing.ablation.sources import Channels
from circuits.tracing.graphs.attribution_graph import AttributionGraph, GraphNode
from circuits.tracing.graphs.silencing import as_active, changes, opened, values
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.common.results import Result, remembers
from zoo.images.sources import Images, open_images

SAMPLES = 200
"""Random groups of nodes whose similarity is compared."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class GraphGroup:
    """Nodes of one layer of a graph that do the same thing.

    Attributes:
        units: addresses, the strongest first; layer: theirs.
        activations: mean correlation of their activations over pairs, over positions and images.
        random_activations: 95 % of groups of as many random nodes of the layer have less; NaN where the layer has no
            other nodes.
        edges: mean cosine of their edges over pairs, by which they were chosen.
        value: what they give the target together.
        measured: change of the target in the network when all are silenced; the graph predicts minus their value.
        random: that of as many other units of the layer that are about as active, one for each sample.
    """

    units: tuple[str, ...]
    layer: str
    activations: float
    random_activations: float
    edges: float
    value: float
    measured: float
    random: tuple[float, ...]

    @property
    def similar(self) -> bool:
        """Whether their activations correlate by more than those of 95 % of random groups."""
        return self.activations > self.random_activations

    @property
    def larger(self) -> float:
        """Share of the random changes that are at least as large as the measured one; NaN without any."""
        return float(np.mean(np.abs(self.random) >= abs(self.measured))) if self.random else float("nan")


@dataclass(frozen=True)
class GraphGroups(Result):
    """The groups of nodes of an attribution graph, the one that gives most first.

    Attributes:
        target: of the graph; groups: of its nodes; nodes: number of nodes that were compared.
        threshold: similarity from which nodes were joined.
        held_out: whether the correlations of groups are of images on which they were not chosen.
        n_images: of the graph; n_compared: on which activations were compared.
    """

    target: str
    groups: tuple[GraphGroup, ...]
    nodes: int
    threshold: float
    held_out: bool
    n_images: int
    n_compared: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each group."""
        return [
            {"units": ", ".join(g.units), "activations": g.activations, "random activations": g.random_activations,
             "edges": g.edges, "value": g.value, "measured": g.measured,
             "random": float(np.median(g.random)) if g.random else float("nan")}
            for g in self.groups
        ]  # fmt: skip


@remembers("model", "images")
@outside_inference_mode
def graph_groups(
    model: Model,
    graph: AttributionGraph,
    *,
    images: Any,
    compare: Any = None,
    threshold: float = 0.5,
    random: int = 10,
    seed: int = 0,
    batch_size: int = 8,
) -> GraphGroups:
    """Propose groups of nodes of an attribution graph that do the same thing, each with its controls.

    Args:
        model: the model; graph: of it.
        images: those of the graph.
        compare: images on which activations are compared (default: those of the graph). Groups are chosen on every
            second one and their correlations are of the others; of a single image, both are of it.
        threshold: nodes are joined while the smaller of the correlation of activations and the cosine of edges is above
            it, on average over pairs.
        random: samples of other units, as active, that are silenced together.
        seed: of random nodes and units.
        batch_size: images at a time.

    Raises:
        CircuitsError: the graph is of another model, other weights or images, or of positions.

    >>> graph_groups(load("scenes"), graph, images="scenes:1", compare="scenes:24").groups[0].units  # doctest: +SKIP
    ('scenes/mixed3b:39', 'scenes/mixed3b:6')
    """
    number("threshold", threshold, above=0, most=1)
    whole_number("random", random, least=0)
    whole_number("seed", seed, least=0)
    of = opened(model, graph, images)
    if of.areas:
        raise CircuitsError("the units of a graph of positions are not grouped: make it without positions=True")
    others = of.images if compare is None else open_images(compare)
    halves = [list(range(i, len(others), 2)) for i in (0, 1)] if len(others) > 1 else [[0], [0]]
    activity = values(model, of, batch_size)[1]
    rng = np.random.default_rng(seed)
    groups, compared = [], 0
    for layer, source in of.sources.items():
        nodes = [node for node in graph.strongest() if node.layer == layer]
        if len(nodes) < 2:
            continue
        compared += len(nodes)
        units = [of.key(layer, node.unit) for node in nodes]
        chosen, measured = (_correlations(model, source, units, others.subset(half), batch_size) for half in halves)
        edges = _edges(graph, nodes)
        members = _joined(np.minimum(chosen, edges), threshold)
        for some in members:
            own = [units[i] for i in some]
            sets = [own, *(as_active(activity[layer], own, rng) for _ in range(random))]
            lost, *controls = changes(model, of, layer, [s for s in sets if len(s) == len(own)], batch_size)
            groups.append(
                GraphGroup(
                    tuple(nodes[i].unit for i in some), layer, _within(measured, some),
                    _random_within(measured, some, rng), _within(edges, some), sum(nodes[i].value for i in some), lost,
                    tuple(controls),
                )
            )  # fmt: skip
    groups.sort(key=lambda g: -abs(g.value))
    return GraphGroups(
        graph.target, tuple(groups), compared, threshold, len(others) > 1, len(of.images), len(others), seed,
        provenance=provenance(
            weights=model.digest, images=of.images.name, images_digest=of.images.digest, compared=others.name,
            compared_digest=others.digest, seed=seed,
        ),
    )  # fmt: skip


@torch.no_grad()
def _correlations(model: Model, source: Channels, units: Sequence[int], images: Images, batch_size: int) -> Numbers:
    """Correlations `(units, units)` of activations over positions and images; 0 where one does not vary."""
    rows = []
    for _, batch in images.batches(model.input, batch_size=batch_size):
        maps = read(model, batch.to(model.device), [model.layers[source.layer]])[source.layer]
        rows.append(source.parts_on(batch, maps)[:, units].movedim(1, -1).flatten(0, -2).double().cpu())
    acts = torch.cat(rows)
    acts -= acts.mean(dim=0)
    return _cosines(acts.T.numpy())


def _edges(graph: AttributionGraph, nodes: Sequence[GraphNode]) -> Numbers:
    """Cosines `(nodes, nodes)` of the edges of nodes: what they take from each other node, and give through it."""
    number_of = {node.unit: i for i, node in enumerate(graph.nodes)}
    own = [number_of[node.unit] for node in nodes]
    return _cosines(np.concatenate([graph.weights[own], graph.weights[:, own].T], axis=1))


def _cosines(rows: Numbers) -> Numbers:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    cosines: Numbers = directions @ directions.T
    return cosines


def _joined(similarity: Numbers, threshold: float) -> list[list[int]]:
    """Groups of two or more, by average linkage, each in ascending order."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = np.clip(1 - similarity, 0, 2)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    labels = fcluster(tree, 1 - threshold, "distance")
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return [group for group in groups if len(group) > 1]


def _within(similarity: Numbers, some: Sequence[int]) -> float:
    """Mean over pairs."""
    n = len(some)
    return float((similarity[np.ix_(some, some)].sum() - similarity[some, some].sum()) / (n * (n - 1)))


def _random_within(similarity: Numbers, some: Sequence[int], rng: np.random.Generator) -> float:
    if len(similarity) <= len(some):
        return float("nan")
    samples = [_within(similarity, rng.permutation(len(similarity))[: len(some)].tolist()) for _ in range(SAMPLES)]
    return float(np.quantile(samples, 0.95))
