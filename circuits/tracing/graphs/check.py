"""Whether an attribution graph is right: units are silenced in the network itself, and the target is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.attribution.attribute import pick
from circuits.common.provenance import provenance
from circuits.common.statistics import percentile_interval, rank_correlation
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.network.responses import peaks
from circuits.tracing.ablation.sources import Channels, Latents, source_of
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.tracing.graphs.flows import Flows
from circuits.tracing.target import Target, target_of
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.common.results import Result, remembers
from zoo.images.sources import Images, open_images

DRAWS = 1000
NEAREST = 4
"""Units of the nearest activity among which one is sampled."""
_RUNS = 64
"""Images times silenced units in one run."""


@dataclass(frozen=True)
class GraphCheck(Result):
    """What silencing a unit does to the target, beside what the graph predicts.

    Attributes:
        target: of the graph.
        units: addresses: the strongest of the graph, then as many others of the same layers that are about as active.
        strong: which are of the graph.
        predicted: change of the target when the unit is 0, by the frozen network: minus its value.
        measured: the change in the network itself, mean over the images.
        activations: sums over positions, mean over the images.
        correlation: Spearman's, of the two; `low`, `high`: 95 % of its bootstrap over units.
        shuffled: 95 % of the sizes of the correlations when predictions are shuffled among units of a layer are below.
        by_activity: the size of Spearman's correlation of activations with measured sizes: what is had without a graph.
        strong_size, random_size: median sizes of the measured changes.
    """

    target: str
    units: tuple[str, ...]
    strong: tuple[bool, ...]
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    activations: tuple[float, ...]
    correlation: float
    low: float
    high: float
    shuffled: float
    by_activity: float
    strong_size: float
    random_size: float
    n_images: int
    seed: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    tabled = {"unit": "units", "strong": "strong", "predicted": "predicted", "measured": "measured"}


@remembers("model", "images")
@outside_inference_mode
def check_graph(
    model: Model, graph: AttributionGraph, *, images: Any, n: int = 16, seed: int = 0, batch_size: int = 8
) -> GraphCheck:
    """Silence the strongest units of an attribution graph one by one, and as many random ones that are as active.

    A channel is set to 0, of a latent what it writes is taken away; then the network itself runs on, everything behind
    the unit moving as it will. The graph predicts minus the unit's value.

    Args:
        model: the model; graph: of it.
        images: those of the graph.
        n: how many units of each layer, and as many random ones.
        seed: of the random units, of the bootstrap and of the shuffles.
        batch_size: images at a time.

    Raises:
        CircuitsError: the graph is of another model, other weights or images, of positions, or has fewer than three
            units.
    """
    whole_number("n", n)
    whole_number("seed", seed, least=0)
    if graph.model != model.name:
        raise CircuitsError(f"the graph is of {graph.model}, the model is {model.name}")
    dataset = open_images(images)
    made_of = graph.provenance
    if made_of.get("weights", model.digest) != model.digest:
        raise CircuitsError(f"the graph is of other weights of {model.name}: make it again")
    if made_of.get("images_digest", dataset.digest) != dataset.digest:
        raise CircuitsError(f"the graph is of {made_of.get('images')}, not of {dataset.name}: give its own images")
    if any("@" in node.unit for node in graph.nodes if node.kind == "unit"):
        raise CircuitsError("a graph of positions is not checked: make it without positions=True")
    target = target_of(model, graph.target)
    sources = [source_of(model, name) for name in graph.layers]
    strong = {
        name: [_index(node.unit) for node in graph.strongest() if node.layer == name][:n] for name in graph.layers
    }
    values, activity = _values(model, target, sources, dataset, batch_size)
    rng = np.random.default_rng(seed)
    rows = []
    for source in sources:
        own = strong[source.name]
        units = own + _as_active(activity[source.name], own, rng)
        changes = _measured(model, target, source, units, dataset, batch_size)
        for i, (unit, change) in enumerate(zip(units, changes, strict=True)):
            predicted, active = -float(values[source.name][unit]), float(activity[source.name][unit])
            rows.append((source.name, source.address(unit), i < len(own), predicted, change, active))
    if len(rows) < 3:
        raise CircuitsError("the graph has fewer than three units: nothing can be compared")
    layer, addresses, is_strong, predictions, measured, activations = (np.array(c) for c in zip(*rows, strict=True))
    low, high = _interval(predictions, measured, rng)
    sizes = np.abs(measured)
    return GraphCheck(
        graph.target, tuple(addresses.tolist()), tuple(is_strong.tolist()), tuple(predictions.tolist()),
        tuple(measured.tolist()), tuple(activations.tolist()), rank_correlation(predictions, measured), low, high,
        _shuffled(predictions, measured, layer, rng), rank_correlation(activations, sizes),
        float(np.median(sizes[is_strong])), float(np.median(sizes[~is_strong])) if (~is_strong).any() else float("nan"),
        len(dataset), seed,
        provenance=provenance(weights=model.digest, images=dataset.name, images_digest=dataset.digest, seed=seed),
    )  # fmt: skip


def _index(address: str) -> int:
    return int(address.rpartition(":")[2])


def _values(
    model: Model, target: Target, sources: Sequence[Channels], images: Images, batch_size: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """What each unit gives the target, and how active it is, `(units,)` of each layer, means over images."""
    values = {source.name: np.zeros(0) for source in sources}
    activity = dict(values)
    for _, batch in images.batches(model.input, batch_size=batch_size):
        flows = Flows(model, target, sources, batch.to(model.device))
        slopes = flows.derivatives()[0]
        for name, cut in flows.cuts.items():
            for table, entries in ((values, slopes[name] * cut.acts), (activity, cut.acts.abs())):
                zero = entries.new_zeros(cut.n_units, dtype=torch.float64)
                pooled = (zero.index_add_(0, cut.units, entries.double()) / len(images)).cpu().numpy()
                table[name] = table[name] + pooled if len(table[name]) else pooled
    return values, activity


def _as_active(activity: NDArray[np.float64], units: Sequence[int], rng: np.random.Generator) -> list[int]:
    """For each unit another one, sampled at random among the `NEAREST` whose activity is nearest; none twice."""
    left = [u for u in np.flatnonzero(activity > 0).tolist() if u not in set(units)]
    chosen: list[int] = []
    for unit in units:
        near = sorted(left, key=lambda u: abs(float(activity[u] - activity[unit])))[:NEAREST]
        if near:
            chosen.append(int(rng.choice(near)))
            left.remove(chosen[-1])
    return chosen


@torch.no_grad()
def _measured(
    model: Model, target: Target, source: Channels, units: Sequence[int], images: Images, batch_size: int
) -> list[float]:
    """Change of the target, mean over images, when each of some units of a layer is silenced alone."""
    segment = target.segment(model, source.layer)
    changes = np.zeros(len(units))
    for _, batch in images.batches(model.input, batch_size=batch_size):
        acts, context = segment.begin(batch)
        response = target.values(segment.respond(acts, context))
        positions, n = peaks(response, Unit("target", 0)), len(acts)
        before = pick(response, positions)
        parts = source.parts(acts)
        for first in range(0, len(units), max(1, _RUNS // n)):
            some = units[first : first + max(1, _RUNS // n)]
            if isinstance(source, Latents):
                silenced = source.without_each(some, acts, parts, torch.zeros_like(parts)).flatten(0, 1)
            else:
                silenced = acts.repeat(len(some), 1, 1, 1)
                for k, unit in enumerate(some):
                    silenced[k * n : (k + 1) * n, unit] = 0.0
            out = segment.respond(silenced, segment.picked(context, list(range(n)) * len(some), n))
            after = pick(target.values(out), positions * len(some))
            lost = (after.view(len(some), n) - before).double().sum(dim=1)
            changes[first : first + len(some)] += lost.cpu().numpy()
    return [float(change) for change in changes / len(images)]


def _interval(x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> tuple[float, float]:
    draws = [rng.integers(0, len(x), len(x)) for _ in range(DRAWS)]
    resampled = torch.tensor([rank_correlation(x[i], y[i]) for i in draws], dtype=torch.float64)
    low, high = percentile_interval(resampled[~resampled.isnan()])
    return float(low), float(high)


def _shuffled(x: NDArray[Any], y: NDArray[Any], layer: NDArray[Any], rng: np.random.Generator) -> float:
    """The size that 95 % of the correlations with shuffled predictions stay below."""
    sizes = []
    for _ in range(DRAWS):
        other = x.copy()
        for name in np.unique(layer):
            other[layer == name] = rng.permutation(x[layer == name])
        sizes.append(abs(rank_correlation(other, y)))
    return float(np.quantile(sizes, 0.95))
