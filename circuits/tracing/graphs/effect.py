"""What a prediction does when nodes of its graph are set to zero, or twice as active: see `node_effect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from circuits.attribution.class_scores import ClassScores
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.tracing.graphs.silencing import Opened, as_active, changes, opened, scaled, values
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import number, whole_number
from zoo.common.results import Result, remembers

CLASSES = 5
"""Classes of the largest probability, before and after."""


@dataclass(frozen=True)
class ClassChange:
    """The probability of a class by softmax, mean over images: of the network as it is, and with the units scaled."""

    index: int
    name: str
    before: float
    after: float


@dataclass(frozen=True)
class NodeEffect(Result):
    """What the target does when units of one layer of its graph are scaled, beside what the graph predicts.

    Attributes:
        target: of the graph; before: its value, mean over the images.
        units: addresses, scaled together; factor: of their activations.
        predicted: change of the target by the graph, `(factor - 1)` times what the units give it.
        measured: the change in the network itself, in which everything behind the units moves as it will.
        random: measured changes for as many other units of the layer that are about as active, one for each sample.
        classes: the classes with the largest probability, before or after; empty for a network without class scores.
    """

    target: str
    units: tuple[str, ...]
    factor: float
    before: float
    predicted: float
    measured: float
    random: tuple[float, ...]
    classes: tuple[ClassChange, ...]
    n_images: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def larger(self) -> float:
        """Share of the random changes that are at least as large; NaN without any."""
        return float(np.mean(np.abs(self.random) >= abs(self.measured))) if self.random else float("nan")


@remembers("model", "images")
@outside_inference_mode
def node_effect(
    model: Model,
    graph: AttributionGraph,
    units: str | Sequence[str],
    *,
    images: Any,
    factor: float = 0.0,
    random: int = 10,
    seed: int = 0,
    batch_size: int = 8,
) -> NodeEffect:
    """Set units of an attribution graph to zero, or to twice their activation, and measure the prediction.

    Args:
        model: the model; graph: of it.
        units: addresses of units of one layer of the graph, which are scaled together: a node, or a group of nodes.
        images: those of the graph.
        factor: of the activations: 0 silences, 2 doubles. Of a latent, what it writes is scaled.
        random: so many times as many other units that are as active are scaled, for comparison.
        seed: of these units.
        batch_size: images at a time.

    Raises:
        CircuitsError: no such units in the graph, units of several layers, or a graph of another model or other images.

    >>> node_effect(load("scenes"), graph, "mixed4b:53", images="scenes:1").measured  # doctest: +SKIP
    -2.9
    """
    number("factor", factor)
    whole_number("random", random, least=0)
    whole_number("seed", seed, least=0)
    of = opened(model, graph, images)
    nodes = [graph.node(unit) for unit in dict.fromkeys([units] if isinstance(units, str) else units)]
    others = [node.unit for node in nodes if node.kind != "unit"]
    layers = list(dict.fromkeys(node.layer for node in nodes))
    if others or len(layers) != 1:
        reason = f"{others[0]} is none" if others else f"these are of {', '.join(layers) or 'none'}"
        raise CircuitsError(f"units of one layer of the graph are scaled together; {reason}")
    layer, own = layers[0], [of.key(layers[0], node.unit) for node in nodes]
    active = values(model, of, batch_size)[1][layer]
    rng = np.random.default_rng(seed)
    sets = [own, *(as_active(active, own, rng) for _ in range(random))]
    sets = [some for some in sets if len(some) == len(own)]
    measured, *controls = changes(model, of, layer, sets, batch_size, factor)
    return NodeEffect(
        graph.target, tuple(of.address(layer, u) for u in own), float(factor), graph.nodes[-1].value,
        (factor - 1) * sum(node.value for node in nodes), measured, tuple(controls),
        _classes(model, of, layer, own, factor, batch_size), len(of.images), seed,
        provenance=provenance(weights=model.digest, images=of.images.name, images_digest=of.images.digest, seed=seed),
    )  # fmt: skip


@torch.no_grad()
def _classes(
    model: Model, of: Opened, layer: str, units: list[int], factor: float, batch_size: int
) -> tuple[ClassChange, ...]:
    """The most probable classes of the network as it is, and with the units scaled, and those of the target."""
    if model.class_scores is None:
        return ()
    source = of.sources[layer]
    scores = ClassScores(model, source.layer)
    means = torch.zeros(2, model.layers[model.class_scores].channels, dtype=torch.float64)
    for _, batch in of.images.batches(model.input, batch_size=batch_size):
        acts, context = scores.begin(batch)
        moved = scaled(of, layer, acts, source.parts_on(batch, acts), units, factor)
        for i, layer_acts in enumerate((acts, moved)):
            means[i] += scores.scores(layer_acts, context).double().softmax(dim=1).sum(dim=0).cpu() / len(of.images)
    chosen = [u.index for u in of.target.units if u.layer == model.class_scores and u.index is not None]
    for row in means:
        chosen += [int(i) for i in row.argsort(descending=True, stable=True)[:CLASSES]]
    names = model.classes
    rows = [ClassChange(i, names[i] if i < len(names) else str(i), float(means[0, i]), float(means[1, i]))
            for i in dict.fromkeys(chosen)]  # fmt: skip
    return tuple(sorted(rows, key=lambda c: -max(c.before, c.after))[: CLASSES + 1])
