"""Whether an attribution graph is right: units are silenced in the network itself, and the target is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from circuits.common.provenance import provenance
from circuits.common.statistics import percentile_interval, rank_correlation
from circuits.errors import CircuitsError
from circuits.network.model import Model
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.tracing.graphs.silencing import as_active, changes, opened, values
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.common.results import Result, remembers

DRAWS = 1000


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
    model: Model,
    graph: AttributionGraph,
    *,
    images: Any,
    n: int = 16,
    seed: int = 0,
    batch_size: int = 8,
    spliced: bool = False,
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
        spliced: measure in the network in which the graph's transcoders stand in for their blocks, their errors held,
            instead of in the network itself.

    Raises:
        CircuitsError: the graph is of another model, other weights or images, or has fewer than three units.
    """
    whole_number("n", n)
    whole_number("seed", seed, least=0)
    of = opened(model, graph, images)
    strong = {
        name: [of.key(name, unit.unit) for unit in graph.strongest() if unit.layer == name][:n] for name in of.sources
    }
    given, activity = values(model, of, batch_size)
    rng = np.random.default_rng(seed)
    rows = []
    for name in of.sources:
        own = strong[name]
        units = own + as_active(activity[name], own, rng)
        for i, (unit, change) in enumerate(
            zip(units, changes(model, of, name, [[u] for u in units], batch_size, spliced=spliced), strict=True)
        ):
            predicted, active = -float(given[name][unit]), float(activity[name][unit])
            rows.append((name, of.address(name, unit), i < len(own), predicted, change, active))
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
        len(of.images), seed,
        provenance=provenance(weights=model.digest, images=of.images.name, images_digest=of.images.digest, seed=seed,
            **({"spliced": True} if spliced else {}),
        ),
    )  # fmt: skip


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
