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
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, fx

from circuits.errors import CircuitsError, ConstantError
from circuits.network.address import Unit
from circuits.network.hooks import frozen, graph_edits, read
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.responses import ActivationMeans
from circuits.network.subnetwork import Segment, channel_pools
from circuits.tracing.baselines import Baseline, Counterfactual, Mean
from circuits.tracing.target import Target
from zoo.common.checks import one_of
from zoo.images.sources import Images, open_images

UnitsByLayer = Mapping[str, set[int]]
_Values = dict[fx.Node, Tensor]

Measure = Literal["explained variance", "mean"]
"""What of a response map is measured: how much of its variance over positions and images is there, or its mean."""

STORED = 1 << 30
"""Bytes of activations that are held between runs; with more, they are computed again for each."""


@dataclass(frozen=True)
class Batch:
    """Some images: activations of the first layer, the segment's context, and the baseline of each layer and pool."""

    acts: Tensor
    context: Any
    baselines: Mapping[str, Tensor]


class Ablation:
    """A target's response under ablation of chosen units in some source layers.

    Attributes:
        layers: the source layers, earliest first.
        pools: source layer -> max pools over its channels on the way to the target, where the baseline holds means.
        clean: the target's response with nothing ablated, `(N, h, w)`.
        nothing: the same with every unit of the layers ablated.
        measure: what is measured of a response.
        spread: squared deviations of `clean` from its mean, summed.
        means: source layer -> mean activation of each unit `(C,)`, of the images as they are.

    Raises:
        CircuitsError: the target responds the same to all images; a layer is a branch, not on the way to the target, or
            the pool of another; counterfactuals that do not fit.
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
    ) -> None:
        self.model, self.target, self.images, self.baseline = model, target, images, baseline
        # with mean ablation the mean of a response hardly moves; between images and counterfactuals it is what changes
        of_means = isinstance(baseline, Counterfactual) or target.of_predictions
        self.measure: Measure = measure or ("mean" if of_means else "explained variance")
        if target.of_predictions and self.measure != "mean":
            raise CircuitsError("a divergence of predictions is 0 where nothing is ablated: its measure is 'mean'")
        one_of("measure", self.measure, ("explained variance", "mean"))
        order = list(model.layers)
        self.layers = sorted(dict.fromkeys(layers), key=order.index)
        self.pools = self._pools()
        self._check_layers()
        self.segment = target.segment(model, self.layers[0])
        self._batch_size = batch_size
        self._paired = baseline.paired(images)
        self._stored: list[Batch] | None = None
        self._held: dict[str, Tensor] = {}
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
        other.segment = target.segment(self.model, self.layers[0])
        if self.segment.bypassed or other.segment.bypassed:  # the context is another one
            return Ablation(
                self.model, target, self.layers, self.images, self.baseline,
                measure=self.measure, batch_size=self._batch_size,
            )  # fmt: skip
        other.pools = other._pools()
        other._held = {}
        other._check_layers()
        other.clean, other.means = other._measure()
        other._finish(constant)
        return other

    def _finish(self, constant: bool = False) -> None:
        deviations = self.clean - self.clean.mean()
        self.spread = float(deviations.pow(2).sum())
        if constant:
            return
        if not bool(self.clean.isfinite().all()):
            raise CircuitsError(f"{self.target.name} is not a finite number on some of these images")
        if self.spread == 0 and not self.target.of_predictions:
            raise ConstantError(
                f"{self.target.name} has the same response to all of these images; give images on which it varies"
            )
        self.nothing = self.respond({})
        self._ends = self.value(self.nothing), self.value(self.clean)

    def _pools(self) -> dict[str, list[str]]:
        holds_mean = isinstance(self.baseline, Mean)
        return {n: channel_pools(self.model, n, self.target.layer) if holds_mean else [] for n in self.layers}

    def _check_layers(self) -> None:
        for name in self.layers:
            of = self.model.layers[name].part
            if of is not None:
                raise CircuitsError(f"name the whole layer {of[0]}; {name} is channels of it")
            twice = [pool for pool in self.pools[name] if pool in self.layers]
            if twice:
                raise CircuitsError(f"{twice[0]} holds the channels of {name}, pooled: name one of the two layers")

    @property
    def _per_position(self) -> bool:
        return isinstance(self.baseline, Mean) and self.baseline.per_position

    # -- what is held ---------------------------------------------------------------------------------

    @torch.no_grad()
    def _measure(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The clean response and the means of all layers; on the way, batches and baselines are stored."""
        means = ActivationMeans(per_position=self._per_position)
        reference = getattr(self.baseline, "images", None) if isinstance(self.baseline, Mean) else None
        held = [name for layer in self.layers for name in (layer, *self.pools[layer])]
        clean, size = [], 0
        stored: list[Batch] | None = []
        for batch in self._run(held if reference is None else self.layers, means):
            clean.append(self.target.values(batch.response))
            size += sum(t.element_size() * t.nelement() for t in (batch.acts, *batch.baselines.values()))
            if stored is not None and size <= STORED:
                stored.append(Batch(batch.acts, batch.context, batch.baselines))
            else:
                stored = None
        self._stored = stored
        own = {name: means.of(name).to(self.model.device) for name in self.layers}
        if isinstance(self.baseline, Mean):
            if reference is not None:
                means = ActivationMeans(per_position=self._per_position)
                for _ in self._run(held, means, open_images(reference)):
                    pass
            # a target in one branch of a block does not run the pools of the others
            self.pools = {
                layer: [pool for pool in pools if pool in means.layers] for layer, pools in self.pools.items()
            }
            for name in means.layers:
                values = means.maps(name) if self._per_position else means.of(name)[None, :, None, None]
                self._held[name] = values.to(self.model.device, self.model.dtype)
        elif self._paired is None:
            self._held = {name: mean.view(1, -1, 1, 1) * 0 for name, mean in own.items()}
        return torch.cat(clean), own

    def _run(self, taps: Sequence[str], means: ActivationMeans, images: Images | None = None) -> Iterator[_Run]:
        """Run images as they are, with their pairs, and take in the means of the layers `taps`."""
        source, paired = (self.images, self._paired) if images is None else (images, None)
        first, later = self.layers[0], {name: means.tap(name) for name in taps if name != self.layers[0]}
        begun = self._begin(source, paired)
        if images is None and self._stored is not None:
            begun = ((batch.acts, batch.context, dict(batch.baselines)) for batch in self._stored)
        for acts, context, baselines in begun:
            yield _Run(acts, context, baselines, self.segment.respond(means.tap(first)(acts), context, later))

    def _begin(self, images: Images, paired: Images | None) -> Iterator[tuple[Tensor, Any, dict[str, Tensor]]]:
        """Activations of the first layer, the segment's context, and what the pairs put in each layer."""
        pairs = None if paired is None else paired.batches(self.model.input, batch_size=self._batch_size)
        for indices, batch in images.batches(self.model.input, batch_size=self._batch_size):
            baselines: dict[str, Tensor] = {}
            if pairs is not None:
                other = next(pairs)[1]
                _check_pairs(batch, other, indices)
                baselines = self._activations(other)
            yield *self.segment.begin(batch), baselines

    def _activations(self, images: Tensor) -> dict[str, Tensor]:
        """Activations `(N, C, h, w)` of all source layers on images."""
        acts, context = self.segment.begin(images)
        maps = {self.layers[0]: acts}

        def store(name: str) -> Callable[[Tensor], Tensor]:
            def keep(values: Tensor) -> Tensor:
                maps[name] = values if values.ndim == 4 else values[:, :, None, None]
                return values

            return keep

        if len(self.layers) > 1:
            self.segment.respond(acts, context, {name: store(name) for name in self.layers[1:]})
        return maps

    @torch.no_grad()
    def batches(self) -> Iterator[Batch]:
        """The images in batches, with the baselines of each layer and pool."""
        if self._stored is not None:
            stored: Iterator[Batch] = iter(self._stored)
        else:
            stored = (Batch(*parts) for parts in self._begin(self.images, self._paired))
        for batch in stored:
            yield Batch(batch.acts, batch.context, {**self._held, **batch.baselines})

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-len(self.images) // self._batch_size)

    def batch(self, number: int) -> tuple[Batch, slice]:
        """One of the batches, and which images it holds."""
        part = slice(number * self._batch_size, min((number + 1) * self._batch_size, len(self.images)))
        if self._stored is not None:
            stored = self._stored[number]
            return Batch(stored.acts, stored.context, {**self._held, **stored.baselines}), part
        indices = range(part.start, part.stop)
        paired = None if self._paired is None else self._paired.subset(indices)
        with torch.no_grad():
            acts, context, baselines = next(self._begin(self.images.subset(indices), paired))
        return Batch(acts, context, {**self._held, **baselines}), part

    # -- what is measured -----------------------------------------------------------------------------

    def value(self, response: Tensor) -> float:
        """The measure of a response `(N, h, w)`."""
        return float(response.mean()) if self.measure == "mean" else self.explained(response)

    def share(self, response: Tensor) -> float:
        """How much of the measure a response keeps: 0 with everything ablated, 1 with nothing.

        Raises:
            CircuitsError: ablating everything does not change the measure.
        """
        self.check_reached()
        nothing, clean = self._ends
        return (self.value(response) - nothing) / (clean - nothing)

    def check_reached(self) -> None:
        """Raises CircuitsError where ablating all units of the layers does not change the measure."""
        nothing, clean = self._ends
        if not abs(clean - nothing) > 1e-6 * max(abs(clean), abs(nothing)):
            raise CircuitsError(
                f"the {self.measure} of {self.target.name} is {clean:.4g} with and without all units of "
                f"{', '.join(self.layers)}: it does not depend on them on these images"
            )

    def weights(self, part: slice = slice(None)) -> Tensor:
        """What a change of the response counts at each position; `sum weights * (clean - nothing)` is the whole.

        For the explained variance that is the covariance of a change with what full ablation takes away: a unit's share
        to first order, and exactly where responses are linear.
        """
        clean = self.clean[part]
        if self.measure == "mean":
            return torch.full_like(clean, 1 / self.clean.numel())
        return (clean - self.nothing[part]) / self.spread

    def slope(self, response: Tensor, part: slice) -> Tensor:
        """Derivative of the measure by the response on some of the images."""
        return self.weights(part) if self.measure == "mean" else 2 * (self.clean[part] - response) / self.spread

    def loss(self, response: Tensor, part: slice) -> Tensor:
        """Squared error of a response on some of the images, in units of full ablation; carries gradients.

        Of whole maps for the explained variance, of each image's mean for the mean: a circuit is to hit it, not to
        exceed it.
        """
        clean, nothing = self.clean, self.nothing
        error = self.clean[part] - response
        if self.measure == "mean":
            clean, nothing, error = (t.mean(dim=(1, 2)) for t in (clean, nothing, error))
        scale = (clean - nothing).pow(2).sum() * (len(error) / len(clean))
        return error.pow(2).sum() / scale.clamp_min(1e-20)

    # -- responses ------------------------------------------------------------------------------------

    @torch.no_grad()
    def respond(self, varying: UnitsByLayer) -> Tensor:
        """Response `(N, h, w)` when all units of the layers but `varying` are at the baseline."""
        masks = {name: self._mask(name, varying.get(name, set())) for name in self.layers}
        narrow = self._narrow(varying)
        rows = []
        for batch in self.batches():
            rows.append(self.ablated(batch, masks) if narrow is None else self._ablated_narrow(batch, masks, narrow))
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

    def explained(self, response: Tensor) -> float:
        """Explained variance of the clean response by another, over positions and images; below 0 without bound."""
        return 1 - float((self.clean - response).pow(2).sum()) / self.spread

    def _mask(self, layer: str, units: set[int]) -> Tensor:
        mask = torch.zeros(self.model.layers[layer].channels, dtype=torch.bool, device=self.model.device)
        mask[sorted(units)] = True
        return mask

    def ablated(self, batch: Batch, masks: Mapping[str, Tensor]) -> Tensor:
        """Response `(n, h, w)` on a batch; masks: layer -> which units stay, `(C,)`, or for each image `(n, C)`."""
        first = self.layers[0]
        edits = {name: hold for layer in self.layers for name, hold in self.holds(batch, layer, masks[layer]).items()}
        acts = edits.pop(first)(batch.acts)
        return self.target.values(self.segment.respond(acts, batch.context, edits))

    def holds(self, batch: Batch, layer: str, natural: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
        """For a layer and its pools: a function that sets all channels but `natural` to the baseline."""
        return {name: _hold(batch.baselines[name], natural) for name in (layer, *self.pools[layer])}

    def _narrow(self, varying: UnitsByLayer) -> list[tuple[Segment, list[int]]] | None:
        """Steps from layer to layer that compute only the units `varying` of each.

        None where a step has no unit, or where something bypasses a layer on the way, so that the whole segment runs.
        """
        if len(self.layers) == 1 or self._paired is not None:
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
            out = segment.respond(x, {}, pools)
            if i + 1 < len(steps):
                base = batch.baselines[self.layers[i + 1]]
                x = base.expand(len(out), -1, *out.shape[2:]).clone()
                x[:, units] = out
        return self.target.values(out)

    def natural_and_ablated(self, batch: Batch, nodes: Sequence[fx.Node]) -> tuple[_Values, _Values]:
        """Values of nodes on a batch with nothing and with every unit of the one source layer ablated.

        The nodes hold the layer's channels, or depend on nothing else (models with a graph).
        """
        (layer,) = self.layers
        edits = self.holds(batch, layer, self._mask(layer, set()))
        return self.segment.values(batch.acts, nodes), self.segment.values(batch.acts, nodes, edits)

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
        """Whether the activations of all images are held."""
        return self._stored is not None

    def part_way(self, batch: Batch, amount: float) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Response on a batch with all units of the one layer part of the way from the baseline, to be differentiated.

        Args:
            batch: one of `batches`.
            amount: 0 for the baseline, 1 for the activations.

        Returns:
            The response `(n, h, w)`; and for the layer, and each of its pools, a leaf that holds its values
            `(n, C, h', w')`, and activations minus baseline there.
        """
        out, ways = self.along(batch, amount, self.segment)
        return self.target.values(out), ways

    def along(self, batch: Batch, amount: float, segment: Segment) -> tuple[Any, dict[str, tuple[Tensor, Tensor]]]:
        """What another segment from the layer gives, and leaves as in `part_way`."""
        (layer,) = self.layers
        ways: dict[str, tuple[Tensor, Tensor]] = {}
        natural = {layer: batch.acts, **{pool: self._pooled(layer, pool, batch.acts) for pool in self.pools[layer]}}
        for name, acts in natural.items():
            moved = acts - batch.baselines[name]
            ways[name] = ((batch.baselines[name] + amount * moved).detach().requires_grad_(True), moved)
        edits = {pool: partial(_instead, ways[pool][0]) for pool in self.pools[layer]}
        return segment.respond(ways[layer][0], batch.context, edits), ways

    def contributions(
        self, segment: Segment, images: Tensor, others: Tensor | None, positions: Sequence[Pair], steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Integrated gradients of a segment's first target at a position of each image, from the baseline.

        Args:
            segment: from the one source layer to the target, which need not be this one's.
            images: `(N, channels, H, W)`; others: the images that stand in for them, where the baseline has such.
            positions: `(y, x)` on each image; steps: midpoints between baseline and activations.

        Returns:
            Contribution of each unit `(N, C)`; the part of it from positions where the unit is below the baseline; and
            the target with all of them at the baseline `(N,)`: with the contributions in sum the target as it is, up to
            the number of steps.
        """
        (layer,) = self.layers
        with torch.no_grad():
            own = {} if others is None else read(self.model, others, [self.model.layers[layer]])
            acts, context = segment.begin(images)
        with frozen(self.model.module), torch.enable_grad():
            batch = Batch(acts, context, {**self._held, **own})
            total = torch.zeros(acts.shape[:2], device=acts.device, dtype=acts.dtype)
            below = torch.zeros_like(total)
            for k in range(steps):
                out, ways = self.along(batch, (k + 0.5) / steps, segment)
                value = _picked(out, positions).sum()
                gradients = torch.autograd.grad(value, [leaf for leaf, _ in ways.values()], allow_unused=True)
                for gradient, (_, moved) in zip(gradients, ways.values(), strict=True):
                    if gradient is not None:
                        total += (gradient * moved).flatten(2).sum(dim=2) / steps
                        below += (gradient * moved.clamp(max=0)).flatten(2).sum(dim=2) / steps
            nothing, _ = self.along(batch, 0.0, segment)
        return total, below, _picked(nothing, positions).detach()

    def mixed(self, batch: Batch, weights: Mapping[str, Tensor]) -> Tensor:
        """Response `(n, h, w)` on a batch with each unit part of the way from the baseline; carries gradients.

        Args:
            batch: one of `batches`.
            weights: layer -> for each unit `(C,)` 0 for the baseline, 1 for its activation; between two in proportion.
        """
        first = self.layers[0]
        edits: dict[str, Callable[[Tensor], Tensor]] = {}
        for layer in self.layers:
            edits |= self._mixes(batch, layer, weights[layer])
        acts = edits.pop(first)(batch.acts)
        return self.target.values(self.segment.respond(acts, batch.context, edits))

    def strengths(self) -> dict[str, Tensor]:
        """Layer -> for each unit `(C,)` |gradient x activation|, summed over positions and images.

        The gradient is that of the target's response, summed over its positions: where the network is linear in
        between, these are |expanded weight x activation|. Of predictions, whose divergence has no gradient where
        nothing is ablated, it is that of the log probability of the likeliest class.
        """
        totals = {name: torch.zeros(self.model.layers[name].channels) for name in self.layers}
        with frozen(self.model.module), torch.enable_grad():
            for batch in self.batches():
                passed = {self.layers[0]: batch.acts.detach().requires_grad_(True)}

                taps = {name: partial(passed.setdefault, name) for name in self.layers[1:]}
                out = self.target.sensitive(self.segment.respond(passed[self.layers[0]], batch.context, taps))
                gradients = torch.autograd.grad(out.sum(), list(passed.values()), allow_unused=True)
                for (name, acts), gradient in zip(passed.items(), gradients, strict=True):
                    if gradient is not None:
                        totals[name] += (gradient * acts).detach().abs().flatten(2).sum(dim=(0, 2)).cpu().float()
        return totals

    def _mixes(self, batch: Batch, layer: str, weights: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
        """What `_holds` is for weights that are not only 0 and 1.

        A pooled map goes from the pooled baseline to the pool of the layer as it came, not of its mixture.
        """
        came: list[Tensor] = []

        def mix(acts: Tensor) -> Tensor:
            came[:] = [acts]
            return _between(batch.baselines[layer], acts, weights)

        def mix_pool(pool: str) -> Callable[[Tensor], Tensor]:
            return lambda _: _between(batch.baselines[pool], self._pooled(layer, pool, came[0]), weights)

        return {layer: mix, **{pool: mix_pool(pool) for pool in self.pools[layer]}}

    def _pooled(self, layer: str, pool: str, acts: Tensor) -> Tensor:
        graph = self.model.graph
        if graph is None:
            raise CircuitsError(
                f"torch.fx cannot trace this network, so no gradient is taken through {pool}: rank by 'patching', or "
                f"from {pool} instead of {layer}"
            )
        begin, end = self.model.node(layer), self.model.node(pool)
        edits = {node: f for node, f in graph_edits(self.model).items() if node is not begin}
        return graph.run({begin: acts}, [end], edits=edits)[end]


def _picked(out: Tensor, positions: Sequence[Pair]) -> Tensor:
    return torch.stack([out[i, 0, y, x] for i, (y, x) in enumerate(positions)])


def _instead(values: Tensor, _acts: Tensor) -> Tensor:
    return values


def _between(base: Tensor, acts: Tensor, weights: Tensor) -> Tensor:
    base, shape = (base, (1, -1, 1, 1)) if acts.ndim == 4 else (base.flatten(1), (1, -1))
    return base + weights.view(shape) * (acts - base)


@dataclass(frozen=True)
class _Run:
    acts: Tensor
    context: Any
    baselines: Mapping[str, Tensor]
    response: Any


def _hold(base: Tensor, natural: Tensor) -> Callable[[Tensor], Tensor]:
    def hold(acts: Tensor) -> Tensor:
        values = base if acts.ndim == 4 else base.flatten(1)
        return torch.where(natural.view(-1, acts.shape[1], *[1] * (acts.ndim - 2)), acts, values)

    return hold


def _check_pairs(images: Tensor, others: Tensor, indices: Sequence[int]) -> None:
    same = (images == others).flatten(1).all(dim=1).nonzero().flatten().tolist()
    if same:
        raise CircuitsError(
            f"image {indices[same[0]]} and its counterfactual are the same image: nothing is ablated there"
        )
