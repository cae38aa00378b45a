"""A target's response when some units of some layers are kept and all others take the values of a baseline.

Only the part of the network from the earliest of these layers to the target runs. What scores, rankings and size curves
ask of a network is asked here, so that all of them mean the same by "ablated".

A mean is held at the layer itself and, after every max pool over its channels, at the mean of the pooled map (see
`baselines`). Local response normalization on the way to such a pool scales a channel by its neighbors: a kept channel
is then normalized among neighbors of which the ablated ones are at their means, as in the network that is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from circuits.errors import CircuitsError, ConstantError
from circuits.network.address import Unit
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.responses import ActivationMeans
from circuits.network.subnetwork import Segment, channel_pools
from circuits.tracing.ablation.measured import Batch, Measure
from circuits.tracing.ablation.part_way import PartWay, SharedRuns
from circuits.tracing.ablation.sources import (
    Channels,
    Latents,
    composed,
    hold,
    pooled,
    source_of,
    with_channels,
)
from circuits.tracing.baselines import Baseline, Counterfactual, Mean, check_pairs
from circuits.tracing.target import Target
from zoo.common.checks import one_of
from zoo.images.sources import Images, open_images

UnitsByLayer = Mapping[str, set[int]]
_Values = dict[fx.Node, Tensor]

ROUNDING = 1e-6
"""Changes of a response below this share of its largest value are none."""
STORED = 1 << 30
"""Bytes of activations that are held between runs; with more, they are computed again for each."""


class Ablation(PartWay):
    """A target's response under ablation of chosen units in some source layers.

    Attributes:
        layers: the source layers, or dictionaries attached to such, earliest first; sources: their units.
        pools: source layer -> max pools over its channels on the way to the target, where the baseline holds means, and
            which channels of the pool these are.
        clean: the target's response with nothing ablated, `(N, h, w)`.
        nothing: the same with every unit of the layers ablated.
        measure: what is measured of a response.
        spread: squared deviations of `clean` from its mean, summed.
        means: source layer -> mean activation of each unit `(C,)`, of the images as they are.

    Raises:
        CircuitsError: the target responds the same to all images; a layer is a branch, not on the way to the target, or
            the pool of another; counterfactuals that do not fit; means of latents before a max pool.
    """

    def __init__(
        self,
        model: Model,
        target: Target,
        layers: Sequence[str],
        images: Images,
        baseline: Baseline,
        *,
        measure: Measure | None = None,
        batch_size: int = 32,
        acts: Sequence[Tensor] | None = None,
    ) -> None:
        self.model, self.target, self.images, self.baseline = model, target, images, baseline
        # with mean ablation the mean of a response hardly moves; between images and counterfactuals it is what changes
        of_means = isinstance(baseline, Counterfactual) or target.of_predictions
        self.measure: Measure = measure or ("mean" if of_means else "explained variance")
        if target.of_predictions and self.measure != "mean":
            raise CircuitsError("a divergence of predictions is 0 where nothing is ablated: its measure is 'mean'")
        one_of("measure", self.measure, ("explained variance", "mean"))
        named = sorted((source_of(model, name) for name in layers), key=lambda s: model.layers.position(s.layer))
        self.sources = {source.name: source for source in named}
        self.layers = list(self.sources)
        self.segment = target.segment(model, self._first.layer)
        self.pools = self._pools()
        self._check_layers()
        self._batch_size = batch_size
        self._paired = baseline.paired(images)
        # what a pass over the images gave at the first layer, batch by batch, where there was one
        self._known = None if self.segment.bypassed or self._paired is not None else acts
        self._stored: list[Batch] | None = None
        self._one_of_many = False
        self._held: dict[str, Tensor] = {}
        self._pool_maps: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}  # the activations are held: ids are unique
        self.shared = SharedRuns()
        self.clean, self.means = self._measure()
        self._finish()

    def with_target(self, target: Target, *, constant: bool = False) -> Ablation:
        """The same images and layers with another target; their activations are not computed again.

        Args:
            target: the other target.
            constant: whether it may have the same response to all images; only responses are then asked of it.
        """
        other = copy.copy(self)
        other.target = target
        other.segment = target.segment(self.model, self._first.layer)
        if self.segment.bypassed or other.segment.bypassed:  # the context is another one
            return Ablation(
                self.model, target, self.layers, self.images, self.baseline,
                measure=self.measure, batch_size=self._batch_size,
            )  # fmt: skip
        other.pools = other._pools()
        other._check_layers()
        other._one_of_many = other._keeps_held()
        if not other._one_of_many:
            other._held = {}
            other.clean, other.means = other._measure()
        other._finish(constant)
        return other

    def _keeps_held(self) -> bool:
        """Take over what another target with these layers and images held; whether that is all that this one needs.

        A trace asks for many targets, so that each is to cost little: with all ablated, one image is run.
        """
        crosses = self.segment.crosses
        if self.model.graph is None or not all(crosses(source.layer) for source in self.sources.values()):
            return False
        ran = {
            layer: {p: at for p, at in pools.items() if self.segment.crosses(p)} for layer, pools in self.pools.items()
        }
        if any(name not in self._held for layer in self.layers for name in (layer, *ran[layer])):
            return False
        self.pools, clean = ran, []
        with torch.no_grad():
            for batch in self._stored if self._stored is not None else self._begin(self.images, self._paired):
                if (natural := self.natural_run(batch, self.segment)) is not None:
                    clean.append(self.target.values(self.segment.collect(natural[0])))
                    continue
                pools = {n: self._natural_pool(batch, n) for n in ran[self.layers[0]]}
                fed = {self.model.node(n): maps for n, maps in pools.items() if maps is not None}
                clean.append(self.target.values(self.segment.respond(batch.acts, {**batch.context, **fed})))
        self.clean = torch.cat(clean)
        return True

    def _finish(self, constant: bool = False) -> None:
        self._cut: Tensor | None = None
        deviations = self.clean - self.clean.mean()
        self.spread = float(deviations.pow(2).sum())
        if constant:
            return
        if not bool(self.clean.isfinite().all()):
            raise CircuitsError(f"{self.target.name} is not a finite number on some of these images")
        # a sum of probabilities, say, is the same but for its last digits
        constant = float(deviations.abs().max()) <= ROUNDING * float(self.clean.abs().max())
        if constant and not self.target.of_predictions:
            raise ConstantError(
                f"{self.target.name} has the same response to all of these images; give images on which it varies"
            )
        self.nothing = self.respond({})
        if not bool(self.nothing.isfinite().all()):
            raise CircuitsError(
                f"{self.target.name} is not a finite number with all units of {', '.join(self.layers)} at baseline "
                f"{self.baseline.name}: take another baseline"
            )
        self._ends = self.value(self.nothing), self.value(self.clean)

    def _pools(self) -> dict[str, dict[str, slice]]:
        if not isinstance(self.baseline, Mean):
            return {name: {} for name in self.layers}
        pools = {}
        for name, source in self.sources.items():
            pools[name] = channel_pools(self.model, source.layer, self.target.layer)
            if isinstance(source, Latents):
                met = [pool for pool in pools[name] if self.segment.crosses(pool)]
                if met:
                    raise CircuitsError(
                        f"the max pool {met[0]} reads {source.layer}, and the pool of the mean of latents is not the "
                        "mean of their pool: take baseline='resample' or 'zero', counterfactuals, or channels"
                    )
                pools[name] = {}
        return pools

    def _check_layers(self) -> None:
        held = [source.layer for source in self.sources.values()]
        for name, source in self.sources.items():
            if held.count(source.layer) > 1:
                raise CircuitsError(f"{name} and another source are of one layer, {source.layer}: name one of the two")
            twice = [pool for pool in self.pools[name] if pool in held]
            if twice:
                raise CircuitsError(f"{twice[0]} holds the channels of {name}, pooled: name one of the two layers")

    @property
    def _first(self) -> Channels:
        return next(iter(self.sources.values()))

    @property
    def _last(self) -> Channels:
        return self.sources[self.layers[-1]]

    @property
    def widths(self) -> dict[str, int]:
        """Source layer -> number of its units."""
        return {name: source.width for name, source in self.sources.items()}

    @property
    def _per_position(self) -> bool:
        return isinstance(self.baseline, Mean) and self.baseline.per_position

    # -- what is held ---------------------------------------------------------------------------------

    @torch.no_grad()
    def _measure(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The clean response and the means of all layers; on the way, batches and baselines are stored."""
        means, activity = ActivationMeans(per_position=self._per_position), ActivationMeans()
        reference = getattr(self.baseline, "images", None) if isinstance(self.baseline, Mean) else None
        held = [name for layer in self.layers for name in (layer, *self.pools[layer])]
        clean, size = [], 0
        stored: list[Batch] | None = []
        for batch, response in self._run(held if reference is None else self.layers, means, activity):
            clean.append(self.target.values(response))
            tensors = {id(t): t for t in (batch.acts, batch.parts, *batch.baselines.values())}
            size += sum(t.element_size() * t.nelement() for t in tensors.values())
            if stored is not None and size <= STORED:
                stored.append(batch)
            else:
                stored = None
        self._stored = stored
        own = {
            name: (activity if name in activity.layers else means).of(name).to(self.model.device)
            for name in self.layers
        }
        if isinstance(self.baseline, Mean):
            if reference is not None:
                means = ActivationMeans(per_position=self._per_position)
                for _ in self._run(held, means, None, open_images(reference)):
                    pass
            # a target in one branch of a block does not run the pools of the others
            self.pools = {
                layer: {pool: at for pool, at in pools.items() if pool in means.layers}
                for layer, pools in self.pools.items()
            }
            for name in means.layers:
                values = means.maps(name) if self._per_position else means.of(name)[None, :, None, None]
                self._held[name] = values.to(self.model.device, self.model.dtype)
        elif self._paired is None:
            self._held = {name: means.of(name).to(own[name]).view(1, -1, 1, 1) * 0 for name in own}
        return torch.cat(clean), own

    def _run(
        self,
        taps: Sequence[str],
        means: ActivationMeans,
        activity: ActivationMeans | None,
        images: Images | None = None,
    ) -> Iterator[tuple[Batch, Any]]:
        """Run images as they are, with their pairs; gives responses, and takes in the means of the layers `taps`.

        Args:
            taps: source layers and pools.
            means: of parts; activity: of units whose parts are others.
            images: instead of those that are analyzed, without pairs.
        """
        first, later = self.layers[0], {}
        for name in taps:
            if name != first:
                source = self.sources.get(name)
                later[name if source is None else source.layer] = self._tap(name, means, activity)
        begun: Iterator[Batch] = self._begin(self.images, self._paired) if images is None else self._begin(images, None)
        if images is None and self._stored is not None:
            begun = iter(self._stored)
        for batch in begun:
            self._take(first, batch.parts, means, activity)
            yield batch, self.segment.respond(batch.acts, batch.context, later)

    def _tap(self, name: str, means: ActivationMeans, activity: ActivationMeans | None) -> Callable[[Tensor], Tensor]:
        """A function of a layer's activations that takes in their means and returns them as they are."""
        source = self.sources.get(name)
        if not isinstance(source, Latents):
            return means.tap(name)

        def take(acts: Tensor) -> Tensor:
            self._take(name, source.parts(as_maps(acts)), means, activity)
            return acts

        return take

    def _take(self, name: str, parts: Tensor, means: ActivationMeans, activity: ActivationMeans | None) -> None:
        means.tap(name)(parts)
        if activity is not None and isinstance(self.sources[name], Latents):
            activity.tap(name)(self.sources[name].activity(parts))

    def _begin(self, images: Images, paired: Images | None) -> Iterator[Batch]:
        """Images in batches, with what the pairs put in each layer as their only baselines."""
        if images is self.images and self._known is not None:
            yield from (Batch(acts, self._first.parts(acts), {}, {}) for acts in self._known)
            return
        pairs = None if paired is None else paired.batches(self.model.input, batch_size=self._batch_size)
        for indices, batch in images.batches(self.model.input, batch_size=self._batch_size):
            baselines: dict[str, Tensor] = {}
            if pairs is not None:
                other = next(pairs)[1]
                if isinstance(self.baseline, Counterfactual):
                    check_pairs(batch, other, [images.ids[i] for i in indices])
                baselines = self._activations(other)
            acts, context = self.segment.begin(batch)
            yield Batch(acts, self._first.parts(acts), context, baselines)

    def _activations(self, images: Tensor) -> dict[str, Tensor]:
        """The parts `(N, K, h, w)` of all source layers on images."""
        acts, context = self.segment.begin(images)
        parts = {self.layers[0]: self._first.parts(acts)}

        def store(source: Channels) -> Callable[[Tensor], Tensor]:
            def keep(values: Tensor) -> Tensor:
                parts[source.name] = source.parts(as_maps(values))
                return values

            return keep

        if len(self.layers) > 1:
            later = list(self.sources.values())[1:]
            self.segment.respond(acts, context, {source.layer: store(source) for source in later})
        return parts

    @torch.no_grad()
    def batches(self) -> Iterator[Batch]:
        """The images in batches, with the baselines of each layer and pool."""
        if self._stored is not None:
            stored: Iterator[Batch] = iter(self._stored)
        else:
            stored = self._begin(self.images, self._paired)
        for batch in stored:
            yield self._with_held(batch)

    def _with_held(self, batch: Batch) -> Batch:
        return replace(batch, baselines={**self._held, **batch.baselines})

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-len(self.images) // self._batch_size)

    def batch(self, number: int) -> tuple[Batch, slice]:
        """One of the batches, and which images it holds."""
        part = slice(number * self._batch_size, min((number + 1) * self._batch_size, len(self.images)))
        if self._stored is not None:
            return self._with_held(self._stored[number]), part
        indices = range(part.start, part.stop)
        paired = None if self._paired is None else self._paired.subset(indices)
        with torch.no_grad():
            return self._with_held(next(self._begin(self.images.subset(indices), paired))), part

    # -- responses ------------------------------------------------------------------------------------

    @torch.no_grad()
    def respond(self, varying: UnitsByLayer) -> Tensor:
        """Response `(N, h, w)` when all units of the layers but `varying` are at the baseline."""
        if not varying.get(self.layers[-1]):
            # nothing of the others comes past a layer that is at the baseline as a whole
            if self._cut is None and not self.target.segment(self.model, self._last.layer).bypassed:
                self._cut = self._respond({})
            if self._cut is not None:
                return self._cut
        return self._respond(varying)

    def _respond(self, varying: UnitsByLayer) -> Tensor:
        masks = {name: self._mask(name, varying.get(name, set())) for name in self.layers}
        if not any(varying.values()) and self._paired is None and not self.segment.bypassed:
            return self._response_to_baseline(masks)
        narrow = self._narrow(varying)
        rows = []
        for batch in self.batches():
            rows.append(self.ablated(batch, masks) if narrow is None else self._ablated_narrow(batch, masks, narrow))
        return torch.cat(rows)

    def _response_to_baseline(self, masks: Mapping[str, Tensor]) -> Tensor:
        """The response with every unit ablated, where no image has a baseline of its own: all respond as one does."""
        if self._one_of_many:
            batch = next(self.batches())
            first = replace(batch, acts=batch.acts[:1], parts=batch.parts[:1])
            return self.ablated(first, masks).repeat(len(self.images), 1, 1)
        by_size: dict[int, Tensor] = {}  # a batch of another size is rounded otherwise
        rows = []
        for batch in self.batches():
            if len(batch.acts) not in by_size:
                by_size[len(batch.acts)] = self.ablated(batch, masks)
            rows.append(by_size[len(batch.acts)])
        return torch.cat(rows)

    @torch.no_grad()
    def respond_without(self, ablated: UnitsByLayer) -> Tensor:
        """Response `(N, h, w)` when only the units `ablated` are at the baseline."""
        masks = {name: ~self._mask(name, ablated.get(name, set())) for name in self.layers}
        return torch.cat([self.ablated(batch, masks) for batch in self.batches()])

    def keep(self, units: UnitsByLayer) -> float:
        """Explained variance of the target when all units of the layers but `units` are at the baseline."""
        return self.explained(self.respond(units))

    def drop(self, ablated: UnitsByLayer) -> float:
        """Explained variance of the target when only the units `ablated` are at the baseline."""
        return self.explained(self.respond_without(ablated))

    def _mask(self, layer: str, units: set[int]) -> Tensor:
        mask = torch.zeros(self.sources[layer].width, dtype=torch.bool, device=self.model.device)
        mask[sorted(units)] = True
        return mask

    def ablated(self, batch: Batch, masks: Mapping[str, Tensor]) -> Tensor:
        """Response `(n, h, w)` on a batch; masks: layer -> which units stay, `(C,)`, or for each image `(n, C)`."""
        edits = composed([self.holds(batch, layer, masks[layer]) for layer in self.layers])
        acts = edits.pop(self._first.layer)(batch.acts)
        return self.target.values(self.segment.respond(acts, batch.context, edits))

    def holds(self, batch: Batch, layer: str, natural: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
        """For a layer and its pools: a function that sets all units but `natural` to the baseline."""
        source = self.sources[layer]
        own = batch.parts if layer == self.layers[0] else None
        pools = {pool: hold(batch.baselines[pool], natural, at) for pool, at in self.pools[layer].items()}
        return {source.layer: source.held(batch.baselines[layer], natural, own), **pools}

    def _narrow(self, varying: UnitsByLayer) -> list[tuple[Segment, list[int]]] | None:
        """Steps from layer to layer that compute only the units `varying` of each.

        None where a step has no unit, or where something bypasses a layer on the way, so that the whole segment runs.
        """
        if (
            len(self.layers) == 1
            or self._paired is not None
            or any(isinstance(s, Latents) for s in self.sources.values())
        ):
            return None
        steps: list[tuple[Segment, list[int]]] = []
        for layer, after in zip(self.layers, self.layers[1:], strict=False):
            units = sorted(varying.get(after, set()))
            if not units:
                return None
            steps.append((Segment(self.model, layer, [Unit(after, u, self.model.name) for u in units]), units))
        steps.append((self.target.segment(self.model, self.layers[-1]), []))
        return None if any(segment.bypassed for segment, _ in steps) else steps

    def _ablated_narrow(
        self, batch: Batch, masks: Mapping[str, Tensor], steps: list[tuple[Segment, list[int]]]
    ) -> Tensor:
        first = self.layers[0]
        x = self.holds(batch, first, masks[first])[first](batch.acts)
        for i, (segment, units) in enumerate(steps):
            layer = self.layers[i]
            pools = {n: f for n, f in self.holds(batch, layer, masks[layer]).items() if n != layer}
            # a pool of the first layer's units is the same in every circuit where it is not at its baseline
            known = {n: self._natural_pool(batch, n) for n in pools} if i == 0 else {}
            fed = {self.model.node(n): pools.pop(n)(maps) for n, maps in known.items() if maps is not None}
            out = segment.respond(x, fed, pools)
            if i + 1 < len(steps):
                base = batch.baselines[self.layers[i + 1]]
                x = base.expand(len(out), -1, *out.shape[2:]).clone()
                x[:, units] = out
        return self.target.values(out)

    def _natural_pool(self, batch: Batch, pool: str) -> Tensor | None:
        """A max pool of the first layer's activations; None where channels are normalized among others before it."""
        graph, first, at = self.model.graph, self._first, self.model.layers[pool]
        if graph is None or self._stored is None or not at.axes.plain:
            return None
        if self.pools[first.name][pool] != slice(0, at.channels):  # other channels are pooled with these
            return None
        if (id(batch.acts), pool) not in self._pool_maps:
            path = graph.between(self.model.node(first.layer), self.model.node(pool))
            if any(graph.ops[n].kind == "lrn" for n in path):
                return None
        return self.pool_of(first.name, pool, batch.acts)

    def pool_of(self, layer: str, pool: str, acts: Tensor) -> Tensor:
        if (id(acts), pool) not in self._pool_maps:
            if not self.stored or len(self._pool_maps) > 2 * self.n_batches:
                return self._pooled(layer, pool, acts)
            self._pool_maps[id(acts), pool] = acts, self._pooled(layer, pool, acts)
        return self._pool_maps[id(acts), pool][1]

    def natural_and_ablated(self, batch: Batch, nodes: Sequence[fx.Node]) -> tuple[_Values, _Values]:
        """Values of nodes on a batch with nothing and with every unit of the one source layer ablated.

        The nodes hold the layer's channels, or depend on nothing else (models with a graph).
        """
        (layer,) = self.layers
        edits = self.holds(batch, layer, self._mask(layer, set()))
        return self.segment.values(batch.acts, nodes), self.segment.values(batch.acts, nodes, edits)

    def held_values(self) -> dict[str, Tensor]:
        """What stands in for all images: layer, or pool -> `(1, K, h or 1, w or 1)`."""
        return dict(self._held)

    @torch.no_grad()
    def held(self, start: str) -> Tensor:
        """What stands in at `start` for the one source layer's channels `(1, C, h, w)`, where no image has its own.

        `start` is the layer, or what a single chain of pools, normalizations and ReLUs makes of it.
        """
        (layer,) = self.layers
        if start in self._held:
            return self._held[start]
        batch, _ = self.batch(0)
        node = self.model.node(start)
        _, ablated = self.natural_and_ablated(batch, [node])
        return self.model.layers[start].axes.maps(ablated[node])[:1]

    @property
    def stored(self) -> bool:
        return self._stored is not None

    def mixed(self, batch: Batch, weights: Mapping[str, Tensor]) -> Tensor:
        """Response `(n, h, w)` on a batch with each unit part of the way from the baseline; carries gradients.

        Args:
            batch: one of `batches`.
            weights: layer -> for each unit `(C,)` 0 for the baseline, 1 for its activation; between two in proportion.
        """
        edits = composed([self._mixes(batch, layer, weights[layer]) for layer in self.layers])
        acts = edits.pop(self._first.layer)(batch.acts)
        return self.target.values(self.segment.respond(acts, batch.context, edits))

    def _mixes(self, batch: Batch, layer: str, weights: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
        """What `_holds` is for weights that are not only 0 and 1.

        A pooled map goes from the pooled baseline to the pool of the layer as it came, not of its mixture.
        """
        came: list[Tensor] = []
        source = self.sources[layer]
        own = batch.parts if layer == self.layers[0] else None

        def mix(acts: Tensor) -> Tensor:
            came[:] = [acts]
            return source.mixed(acts, batch.baselines[layer], weights, own)

        def mix_pool(pool: str, at: slice) -> Callable[[Tensor], Tensor]:
            def mixed(acts: Tensor) -> Tensor:
                values = source.mixed(self._pooled(layer, pool, came[0]), batch.baselines[pool][:, at], weights)
                return with_channels(values, at, acts)

            return mixed

        return {source.layer: mix, **{pool: mix_pool(pool, at) for pool, at in self.pools[layer].items()}}

    def _pooled(self, layer: str, pool: str, acts: Tensor) -> Tensor:
        """What a pool makes of the layer's channels `(n, C, h', w')`, among its others or not."""
        return pooled(self.model, layer, pool, acts)[:, self.pools[layer][pool]]
