"""Units of a graph are silenced, or scaled, in the network itself, and its target is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.attribute import pick
from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.hooks import read
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.responses import peaks
from circuits.tracing.ablation.sources import Channels, Edits, Latents, composed
from circuits.tracing.graphs.attribution_graph import AttributionGraph
from circuits.tracing.graphs.blocks import Block, graph_source
from circuits.tracing.graphs.flows import Flows
from circuits.tracing.target import Target, target_of
from zoo.images.sources import Images, open_images

NEAREST = 4
"""Units of the nearest activity among which one is sampled."""
Numbers = NDArray[np.float64]
_RUNS = 64
"""Images times silenced sets of units in one run."""


@dataclass(frozen=True)
class Opened:
    """A graph with what it is of: its target, the units of its layers, and its images.

    A key names a unit of a layer: its number; in a graph of positions, times the positions of the map, plus its own.

    Attributes:
        columns, areas: of a graph of positions: columns and positions of the map of each layer; else empty.
    """

    target: Target
    sources: dict[str, Channels]
    images: Images
    columns: Mapping[str, int]
    areas: Mapping[str, int]

    def key(self, layer: str, address: str) -> int:
        """The key of a node."""
        unit, _, at = address.rpartition(":")[2].partition("@")
        if layer not in self.areas:
            return int(unit)
        y, _, x = at.partition(",")
        return int(unit) * self.areas[layer] + int(y) * self.columns[layer] + int(x)

    def located(self, layer: str, key: int) -> tuple[int, tuple[int, int] | None]:
        """The number of a unit, and its position, where the graph is of positions."""
        if layer not in self.areas:
            return key, None
        unit, position = divmod(key, self.areas[layer])
        return unit, divmod(position, self.columns[layer])

    def address(self, layer: str, key: int) -> str:
        """The address of a key."""
        unit, at = self.located(layer, key)
        return self.sources[layer].address(unit) + ("" if at is None else "@{},{}".format(*at))


def opened(model: Model, graph: AttributionGraph, images: Any) -> Opened:
    """What a graph is of, where model and images are its own.

    Raises:
        CircuitsError: the graph is of another model, other weights or images.
    """
    if graph.model != model.name:
        raise CircuitsError(f"the graph is of {graph.model}, the model is {model.name}")
    dataset = open_images(images)
    made_of = graph.provenance
    if made_of.get("weights", model.digest) != model.digest:
        raise CircuitsError(f"the graph is of other weights of {model.name}: make it again")
    if made_of.get("images_digest", dataset.digest) != dataset.digest:
        raise CircuitsError(f"the graph is of {made_of.get('images')}, not of {dataset.name}: give its own images")
    sources = {name: graph_source(model, name) for name in graph.layers}
    sizes = {}
    if any("@" in node.unit for node in graph.nodes if node.kind == "unit"):
        sizes = {name: model.layers[source.layer].size or (1, 1) for name, source in sources.items()}
    return Opened(
        target_of(model, graph.target), sources, dataset, {name: w for name, (_, w) in sizes.items()},
        {name: h * w for name, (h, w) in sizes.items()},
    )  # fmt: skip


def values(model: Model, of: Opened, batch_size: int) -> tuple[dict[str, Numbers], dict[str, Numbers]]:
    """What each unit gives the target, and how active it is, `(keys,)` of each layer, means over images."""
    values = {name: np.zeros(0) for name in of.sources}
    activity = dict(values)
    for _, batch in of.images.batches(model.input, batch_size=batch_size):
        flows = Flows(model, of.target, list(of.sources.values()), batch.to(model.device))
        slopes = flows.derivatives()[0]
        for name, cut in flows.cuts.items():
            for table, entries in ((values, slopes[name] * cut.acts), (activity, cut.acts.abs())):
                area = of.areas.get(name, 0)
                keys = cut.units * area + cut.rows % area if area else cut.units
                zero = entries.new_zeros(cut.n_units * max(1, area), dtype=torch.float64)
                pooled = (zero.index_add_(0, keys, entries.double()) / len(of.images)).cpu().numpy()
                table[name] = table[name] + pooled if len(table[name]) else pooled
    return values, activity


def as_active(activity: Numbers, units: Sequence[int], rng: np.random.Generator) -> list[int]:
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
def changes(
    model: Model,
    of: Opened,
    layer: str,
    sets: Sequence[Sequence[int]],
    batch_size: int,
    factor: float = 0.0,
    spliced: bool = False,
) -> list[float]:
    """Change of the target, mean over images, when each of some sets of units of a layer alone is scaled.

    Args:
        model: the model; of: the graph; layer: of the graph.
        sets: keys of units, which are scaled together.
        factor: of their activations, 0 to silence them; of a latent, of what it writes.
        spliced: transcoders after the layer, with their errors held, stand in for their blocks.
    """
    source = of.sources[layer]
    segment = of.target.segment(model, source.layer)
    total = np.zeros(len(sets))
    for _, batch in of.images.batches(model.input, batch_size=batch_size):
        acts, context = segment.begin(batch)
        response = of.target.values(segment.respond(acts, context))
        positions, n = peaks(response, Unit("target", 0)), len(acts)
        before = pick(response, positions)
        parts = source.parts_on(batch, acts)
        for first in range(0, len(sets), max(1, _RUNS // n)):
            some = sets[first : first + max(1, _RUNS // n)]
            moved = torch.cat([scaled(of, layer, acts, parts, keys, factor) for keys in some])
            edits = _splices(model, of, source, batch, moved) if spliced else None
            out = segment.respond(moved, segment.picked(context, list(range(n)) * len(some), n), edits)
            after = pick(of.target.values(out), positions * len(some))
            gained = (after.view(len(some), n) - before).double().sum(dim=1)
            total[first : first + len(some)] += gained.cpu().numpy()
    return [float(change) for change in total / len(of.images)]


def _splices(model: Model, of: Opened, start: Channels, batch: Tensor, moved: Tensor) -> Edits:
    """Edits by which transcoders after a layer stand in for their blocks, with the errors that they have on images."""
    position, edits, read_now = model.layers.position, list[Edits](), {start.layer: as_maps(moved)}

    def keep(name: str) -> Callable[[Tensor], Tensor]:
        def function(acts: Tensor) -> Tensor:
            read_now[name] = as_maps(acts)
            return acts

        return function

    def splice(block: Block, error: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda acts: block.again(read_now[block.reads], error).reshape(acts.shape)

    later = [s for s in of.sources.values() if isinstance(s, Block) and position(s.layer) > position(start.layer)]
    for block in later:
        names = [model.layers[block.reads], model.layers[block.layer]]
        source, acts = read(model, batch.to(model.device), names).values()
        error = block.parts_from(source, acts)[:, block.latents :].repeat(len(moved) // len(batch), 1, 1, 1)
        edits += [{} if block.reads == start.layer else {block.reads: keep(block.reads)}]
        edits += [{block.layer: splice(block, error)}]
    return composed(edits)


def scaled(of: Opened, layer: str, acts: Tensor, parts: Tensor, keys: Sequence[int], factor: float) -> Tensor:
    """Activations `(N, C, h, w)` with some units times a factor; `parts` are theirs."""
    source, moved = of.sources[layer], parts.clone()
    units = [of.located(layer, key) for key in keys]
    for unit, at in units:
        moved[(slice(None), unit, *(at or ()))] *= factor
    if not isinstance(source, Latents):
        return moved
    for change in source.without_each(list(dict(units)), torch.zeros_like(acts), parts, moved):
        acts = acts + change
    return acts
