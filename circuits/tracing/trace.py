"""Trace a unit back to the units that excite and inhibit it.

For every node of the circuit its parents are chosen among the units of the layer before: by default those that explain
most of it over all positions, by gradient x (activation - mean), of the cheap ways the one whose parents keep most of a
unit (docs/tracing.md); or by what they contribute where the target is most active, as weight x activation. The sources
that are left out are summed in a `Rest`.
Source: Olah et al., Zoom In, Distill 2020; Voss et al., Visualizing Weights, Distill 2021; Nanda, Attribution Patching,
2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from circuits.attribution.class_scores import class_of
from circuits.attribution.expanded_weights import ExpandedWeights, expanded_weights
from circuits.attribution.first_layer import reads_pixels
from circuits.attribution.latent_split import LatentSplit, split_latents
from circuits.attribution.linear_steps import LinearSteps
from circuits.common.kept_activations import KeptActivations
from circuits.common.provenance import provenance
from circuits.dataset.peak_positions import Peaks, examples, layer_peaks, starts
from circuits.dataset.scan_store import own_card_and_input
from circuits.errors import AddressError, CircuitsError, GraphError
from circuits.network.address import Unit
from circuits.network.hooks import frozen, read
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.responses import respond
from circuits.network.subnetwork import Segment, ablation_drops, channel_pools
from circuits.tracing.ablation.ablation import STORED
from circuits.tracing.baselines import Baseline, Mean, baseline_of
from circuits.tracing.bottlenecks import Path, acting_positions, follow, weighted_edge
from circuits.tracing.circuit import Circuit, Edge, FoldedSum, Node, Rest
from circuits.tracing.rankings.parent_sources import LIMIT, RANKED, By, ParentSources, other_tokens
from circuits.tracing.score import score
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import one_of, whole_number
from zoo.common.results import remember, remembers
from zoo.images.sources import Images, open_images
from zoo.networks.own import command_line
from zoo.progress import Progress

DEFAULT: By = "gradient"


@dataclass
class _Frontier:
    """Units of one layer that are to be explained, with their position on each image."""

    layer: str
    units: list[Unit]
    positions: dict[Unit, list[Pair]] = field(default_factory=dict)


@remembers("model", "images")
@outside_inference_mode
def trace(
    model: Model,
    target: str | Unit,
    *,
    images: Any,
    depth: int | None = None,
    width: int = 6,
    by: By | None = None,
    baseline: str | Baseline | None = None,
    against: Any = None,
    layers: Sequence[str] | None = None,
    through_bottlenecks: bool = False,
    threshold: float = 0.0,
    n_positions: int = 32,
    n_examples: int = 9,
    batch_size: int = 32,
    activations: KeptActivations | None = None,
    progress: Progress = None,
) -> Circuit:
    """The circuit of a unit: the sources that excite and inhibit it, and theirs in turn.

    Args:
        model: the model.
        target: a channel, a neuron `@y,x`, a class score `logits:817`, or a latent of an attached basis.
        images: images in any form that `capture` takes; the target must be active on some of them.
        depth: how many layers to go back (default: through all of `layers`, else 1).
        width: sources of each node, the strongest by size, whether they excite or inhibit.
        by: how the parents of each node are chosen. "gradient" (the default), "integrated", "patching" and "mask" rank
            by the scores of `circuits.rank`, over all positions of at most 200 of the images; the first three take each
            next parent by what it is expected to add to those before it (`gain_order`). An edge's strength is then the
            integrated gradient from the baseline at the positions traced, in sum the whole response. "weights"
            (expanded weight x activation), "attribution" (gradient x activation) and "ablation" (drop of the node's
            pre-activation when the source is set to its mean) look only at the positions traced. Where there are no
            kernels (gates, normalization, upsampling) that of an edge is a single number, the gradient summed over
            positions, as a mean over the images; only "weights" needs them. Sources that are latents, and
            `through_bottlenecks`, are traced by "weights" where nothing is given.
        baseline: what contributions are counted from: "mean", "zero", "resample", or an object of `circuits.baselines`.
            Default zero for "weights" and "attribution", else the mean over the images ranked on and all positions;
            "ablation" takes only the mean.
        against: a counterfactual image for each image, as the baseline.
        layers: source layers to go back through, latest first (default: the model's trunk). `mixed3b~sae` takes the
            latents of an attached basis instead of channels, by all ways but "ablation"; what its reconstruction leaves
            over is `Rest.error`.
        through_bottlenecks: also trace through the units behind the ReLUs between two layers: bottlenecks, depthwise
            convolutions, inner layers of residual blocks. Every step is then linear and `remainder` is zero; each unit
            on the way has `width` parents, and `Rest.folded` is the sum without them. With by="weights".
        threshold: drop sources below this share of a node's strongest, in what they are chosen by
            ("mask": in what they contribute).
        n_positions: images on which the target is strongest, over which contributions are averaged.
        n_examples: strongest positions stored for every node, over all images.
        batch_size: images per forward pass.
        activations: those of these images on disk, which are read instead of computed, and written where they are not.
        progress: True for a bar, or a function of (done, total).

    Returns:
        The circuit, not yet scored; see `circuits.score`.

    Raises:
        AddressError: unknown unit or layer. CircuitsError: nonsense options; the target is active nowhere, or has the
            same response everywhere, so that nothing can be ranked.
        GraphError: a path without kernels (by="weights"), or without a linear form (through_bottlenecks).

    >>> circuit = trace(load("scenes"), "mixed4a:0", images="scenes:50")  # doctest: +SKIP
    """
    unit = model.unit(target)
    if depth is None:
        depth = len(layers) if layers else 1
    for name, count in (("depth", depth), ("width", width), ("n_positions", n_positions)):
        whole_number(name, count)
    chain = _chain(model, unit, depth, layers)
    if by is None:
        by = "weights" if through_bottlenecks or any("~" in name for name in chain[1:]) else DEFAULT
    one_of("by", by, ("weights", "attribution", "ablation", *RANKED))
    stand_in = _baseline(by, baseline, against)
    spaces = _spaces(model, chain, by, through_bottlenecks)
    dataset = open_images(images)
    pools = _pools(model, chain) if by == "ablation" else []
    inner = _bottlenecks(model, unit, chain, by) if through_bottlenecks else []
    ranked = [spaces[name].layer if name in spaces else name for name in chain[1:]] if by in RANKED else []
    peaks = layer_peaks(
        model, dataset, chain, unit, also=[*pools, *inner], keep=ranked if len(dataset) <= LIMIT else [],
        most=STORED, activations=activations, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    strongest = peaks.strongest(unit, limit=n_positions)
    batch = dataset.tensor(model.input, [p.image for p in strongest]).to(model.device)
    to_read = [name for name in peaks.layers if name not in pools and name not in spaces]
    acts = peaks.held([p.image for p in strongest], to_read)
    if acts is None:
        with torch.no_grad():
            acts = read(model, batch, [model.layers[name] for name in to_read])
    splits = {name: split_latents(model.basis(at.layer, str(at.basis)), acts[at.layer]) for name, at in spaces.items()}
    sources = ParentSources(model, dataset, stand_in, by, [p.image for p in strongest], batch_size, peaks)
    positions = [p.position for p in strongest]
    followed: dict[str, Any] = {}
    if through_bottlenecks:
        path = follow(model, unit, chain, batch, positions, sources, width=width, threshold=threshold)
        followed = {"through_bottlenecks": True, "trunk": chain}
        chain = path.layers(model)
    else:
        path = Path({unit: positions})
        frontier = _Frontier(unit.layer, [unit], {unit: positions})
        for source in chain[1:]:
            step = _Step(model, source, frontier, batch, acts, peaks, by, sources, splits.get(source))
            frontier = step.extend(path, width, threshold)
            if not frontier.units:
                break
    if not path.edges:
        hint = other_tokens(model, chain[1])
        raise CircuitsError(f"no unit of {chain[1]} contributes to {unit} where it is most active{hint}")
    nodes = [
        _node(model, u, 0 if u == unit else chain.index(u.space), peaks, at, acts, dataset, n_examples)
        for u, at in path.positions.items()
    ]
    circuit = Circuit(
        target=str(unit),
        model=model.name,
        nodes=tuple(nodes),
        edges=tuple(path.edges),
        rest=tuple(path.rest),
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
            **({} if stand_in is None else {"baseline": stand_in.name}),
            **({"n_ranked": sources.n_ranked} if by in RANKED else {}),
            threshold=threshold,
            **followed,
            **({} if (card := own_card_and_input(model)) is None else {"card": card}),
        ),
    )
    return remember(circuit, scorer=score)


def _chain(model: Model, unit: Unit, depth: int, layers: Sequence[str] | None) -> list[str]:
    if layers is not None:
        chosen = [model.resolve(name) if "~" in name else Unit(model.layer(name).name) for name in layers][:depth]
        if any(at.index is not None for at in chosen):
            raise AddressError("trace goes back through whole layers; name the layer, not one of its units")
        if any(model.layers[at.layer].part is not None for at in chosen):
            raise AddressError("trace goes back through whole layers; name the block, not one of its branches")
        for after, at in pairwise([unit, *chosen] if model.graph is not None else []):  # else a gradient shows it
            if model.layers.position(at.layer) >= model.layers.position(after.layer):
                raise AddressError(
                    f"{at.space} is not before {after.space}: a trace goes back through earlier layers, latest first"
                )
        return [unit.layer, *[at.space for at in chosen]]
    chain = [unit.layer]
    for _ in range(depth):
        earlier = model.before(chain[-1])
        if earlier is None:
            break
        chain.append(earlier)
    if len(chain) == 1 and model.graph is None:
        raise CircuitsError(
            f"{unit}: torch.fx cannot trace this network, so its layers are in no known order; "
            f"name those to go back through: layers=[...] ({command_line('layers', model.name, model=model.name)})"
        )
    if len(chain) == 1:
        raise CircuitsError(reads_pixels(model.name, unit))
    return chain


def _spaces(model: Model, chain: Sequence[str], by: By, through_bottlenecks: bool) -> dict[str, Unit]:
    """The bases among the layers of a chain.

    Raises:
        CircuitsError: latents are sources in a way that is not worked out for them.
    """
    spaces = {name: model.resolve(name) for name in chain[1:] if "~" in name}
    if spaces and (by == "ablation" or through_bottlenecks):
        way = "through_bottlenecks" if through_bottlenecks else "by='ablation', which sets channels to their means"
        raise CircuitsError(f"latents are sources with by='weights', 'gradient' and others, not with {way}")
    return spaces


def _bottlenecks(model: Model, unit: Unit, chain: Sequence[str], by: By) -> list[str]:
    """The layers between those of the chain whose units a trace through bottlenecks may come to.

    Raises:
        CircuitsError: what cannot be traced in this way.
    """
    if by != "weights":
        raise CircuitsError(f"through_bottlenecks takes linear steps, whose contributions are weights: not by={by!r}")
    if unit.basis is not None:
        raise CircuitsError(f"through_bottlenecks takes a channel as its target; {unit.short} is a latent")
    inner: dict[str, None] = {}
    for after, source in zip(chain, chain[1:], strict=False):
        inner |= dict.fromkeys(LinearSteps(model, source).layers(after))
    return [name for name in inner if name not in chain]


def _pools(model: Model, chain: Sequence[str]) -> list[str]:
    """Max pools over the channels that are ablated, on the way from each layer of the chain to the one before it."""
    pools: dict[str, None] = {}
    for source, after in zip(chain[1:], chain, strict=False):
        pools |= dict.fromkeys(channel_pools(model, source, after))
    return [name for name in pools if name not in chain and name not in starts(model, chain)]


def _baseline(by: By, baseline: str | Baseline | None, against: Any) -> Baseline | None:
    """The baseline that was asked for; None for what each of the first three ways does without one."""
    if baseline is None and against is None:
        return Mean() if by in RANKED else None
    chosen = baseline_of(baseline or "mean", against)
    if by == "ablation" and not (isinstance(chosen, Mean) and chosen == Mean()):
        raise CircuitsError(f"by='ablation' sets units to their means; with {chosen.name} values use by='patching'")
    return None if by == "ablation" else chosen


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
        sources: ParentSources,
        split: LatentSplit | None = None,
    ) -> None:
        self.model, self.source, self.frontier, self.by = model, source, frontier, by
        self.sources, self.split = sources, split
        self.layer = source if split is None else model.resolve(source).layer
        self.weights = self._kernels()
        self.start = self.layer if self.weights is None else self.weights.start
        self.batch = batch
        if split is None:
            self.acts, self.source_acts = acts[self.start], acts[source]
        else:
            self.acts = self.source_acts = split.latents
        self.fed, self.layer_acts = acts[self.start], acts[self.layer]
        self.peaks = peaks
        self.gradients: dict[Unit, Tensor] = {}
        self.channel_gradients: dict[Unit, Tensor] = {}

    def _kernels(self) -> ExpandedWeights | None:
        """The kernels; None where the network has none here, and none are needed."""
        try:
            weights = expanded_weights(self.model, source=self.source, target=self.frontier.units)
            if self.split is not None and weights.start != self.layer:
                raise GraphError(f"weights start at {weights.start}, after a pool, but latents are of {self.layer}")
            return weights
        except GraphError as error:
            graph = self.model.graph
            if self.by == "weights":
                raise GraphError(f"{error}; trace with by='attribution', which needs no kernels") from error
            if graph is not None:  # raises without a path; where there is no graph the gradient shows it
                graph.between(self.model.node(self.layer), self.model.node(self.frontier.units[0].layer))
            return None

    def extend(self, path: Path, width: int, threshold: float) -> _Frontier:
        """Add the parents of all units of the frontier to a path; gives the frontier that they are."""
        parents = _Frontier(self.source, [])
        for node in self.frontier.units:
            edges, rest = self.explain(node, width, threshold)
            path.edges += edges
            path.rest.append(rest)
            for edge in edges:
                parent = Unit.parse(edge.source)
                if parent not in parents.positions:
                    parents.units.append(parent)
                    parents.positions[parent] = self.positions_of(node, parent)
                path.positions.setdefault(parent, parents.positions[parent])
        return parents

    def explain(self, node: Unit, width: int, threshold: float) -> tuple[list[Edge], Rest]:
        positions = self.frontier.positions[node]
        segment = Segment(self.model, self.start, node, pre=True)
        with torch.no_grad():
            acts, context = self.fed, segment.context(self.batch)
            response = segment.respond(acts, context)[:, 0]
        pre = torch.stack([response[i, y, x] for i, (y, x) in enumerate(positions)])
        if self.weights is None or self.by == "attribution":
            self.gradients[node] = self._gradient(segment, positions, acts, context)
        folded: FoldedSum | None = None
        if self.by in RANKED:
            contributions, below, nothing = self.sources.contributions(
                node, self.source, self.batch, positions, self.layer_acts
            )
            bias = float(nothing.mean())
            if self.weights is not None:
                folded = self._as_linear(segment, node, positions, float(pre.mean()))
        else:
            base = self.sources.values(node, self.source, self.start, acts)
            own = self._of_units(base)
            contributions, below = self._contributions(segment, node, positions, self.acts, context, pre, own)
            bias = self._bias(segment, node, positions, acts, own) if self.by == "weights" else 0.0
        error = None
        if self.split is not None and self.by in RANKED:
            contributions, error = contributions[:, :-1], float(contributions[:, -1].mean())
        elif self.split is not None:
            error, still = self._left_over(node, positions, base)
            bias += still
        strength = contributions.mean(dim=0)
        total = float(strength.sum()) + (error or 0.0)
        if self.by in RANKED:
            chosen, size = self.sources.chosen(node, self.source, width, len(strength))
        else:
            size = strength.abs()
            chosen = size.argsort(descending=True, stable=True)[:width].tolist()
        sizes = strength.abs() if self.by == "mask" else size  # a mask's numbers have no scale
        floor = threshold * max((float(sizes[c]) for c in chosen), default=0.0)
        chosen = [c for c in chosen if strength[c] != 0 and float(sizes[c]) >= floor]
        low = below.mean(dim=0)[: len(strength)] / strength > 0.5
        edges = [replace(self._edge(node, c, float(strength[c])), low=bool(low[c])) for c in chosen]
        listed = sum(e.strength for e in edges) + (error or 0.0)
        mean = float(pre.mean())
        count = contributions.shape[1] - len(edges)
        rest = Rest(str(node), count, total - listed, total, bias, mean - total - bias, mean, folded, error)
        return edges, rest

    def _contributions(
        self,
        segment: Segment,
        node: Unit,
        positions: list[Pair],
        acts: Tensor,
        context: Any,
        pre: Tensor,
        base: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Contribution of each source to the node on each image, `(N, S)`, counted from `base` (None for zero).

        And the part of it from positions where the source is below the baseline.
        """
        moved = acts if base is None else acts - base
        below = moved.clamp(max=0)
        if self.by == "weights":
            return self._products(node, positions, moved), self._products(node, positions, below)
        if self.by == "attribution":
            gradient = self.gradients[node]
            return (gradient * moved).sum(dim=(2, 3)), (gradient * below).sum(dim=(2, 3))
        means = self.peaks.means(self.start)
        pools = channel_pools(self.model, self.start, self.frontier.layer)
        pooled = {name: (self.peaks.means(name)[at], at) for name, at in pools.items()}
        drops = ablation_drops(segment, acts, context, positions, pre, means, pooled)
        return drops, torch.zeros_like(drops)

    def _of_units(self, base: Tensor | None) -> Tensor | None:
        """The part of a baseline that is of channels or latents, without that of the error."""
        return base if base is None or self.split is None else base[:, : self.acts.shape[1]]

    def _products(self, node: Unit, positions: list[Pair], acts: Tensor) -> Tensor:
        """Expanded weights times activations at the positions of a node, `(N, S)`."""
        assert self.weights is not None
        patches = self.weights.patches(acts, positions)
        kernels = self.weights.kernels[self.frontier.units.index(node)]
        return torch.einsum("nsij,sij->ns", patches, kernels.to(patches))

    def _gradient(self, segment: Segment, positions: list[Pair], acts: Tensor, context: Any) -> Tensor:
        """Gradient `(N, S, h, w)` of the node at its position on each image."""
        with frozen(self.model.module), torch.enable_grad():
            leaf = acts.detach().requires_grad_(True)
            out = segment.respond(leaf, context)[:, 0]
            total = torch.stack([out[i, y, x] for i, (y, x) in enumerate(positions)]).sum()
            gradient = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if gradient is None:
            raise GraphError(f"no path leads from {self.start} to {self.frontier.layer}")
        if self.split is None:
            return gradient
        self.channel_gradients[segment.units[0]] = gradient
        return torch.einsum("nchw,mc->nmhw", gradient, self.split.write)

    def _left_over(self, node: Unit, positions: list[Pair], base: Tensor | None) -> tuple[float, float]:
        """What the error of the dictionary contributes to a node; and what its offset does, and the error's baseline.

        As of channels, what the baseline gives is not told from the nonlinear part where there are no weights.
        """
        split = self.split
        assert split is not None
        offset = split.offset[:, None, None].expand_as(split.error)
        moved = split.error
        if base is not None:
            moved = split.error - base[:, self.acts.shape[1] :]
            offset = offset if self.by == "attribution" else offset + base[:, self.acts.shape[1] :]
        if self.by == "attribution":
            gradient = self.channel_gradients[node]
            error, still = ((gradient * part).sum(dim=(1, 2, 3)) for part in (moved, offset))
        else:
            weights = expanded_weights(self.model, source=self.layer, target=node)
            kernels = weights.kernels[0].to(offset)
            error, still = (
                torch.einsum("nsij,sij->n", weights.patches(part, positions), kernels) for part in (moved, offset)
            )
        return float(error.mean()), float(still.mean())

    def _bias(self, segment: Segment, node: Unit, positions: list[Pair], acts: Tensor, base: Tensor | None) -> float:
        """What the node has without the contributions: of the biases, and of the baseline where there is one."""
        bias = segment.bias((acts.shape[2], acts.shape[3]))
        value = 0.0 if bias is None else float(torch.stack([bias[0, y, x] for y, x in positions]).mean())
        return value if base is None else value + float(self._products(node, positions, base).sum(dim=1).mean())

    def _as_linear(self, segment: Segment, node: Unit, positions: list[Pair], pre_activation: float) -> FoldedSum:
        """The sum by the kernels, as if ReLUs and maxima in between passed everything: how far they can be trusted."""
        base = self.sources.values(node, self.source, self.start, self.fed)
        own = self._of_units(base)
        moved = self.acts if own is None else self.acts - own
        total = float(self._products(node, positions, moved).sum(dim=1).mean())
        bias = self._bias(segment, node, positions, self.acts, own)
        if self.split is not None:
            error, still = self._left_over(node, positions, base)
            total, bias = total + error, bias + still
        return FoldedSum(total, bias, pre_activation - total - bias)

    def _edge(self, node: Unit, channel: int, strength: float) -> Edge:
        if self.weights is None:
            kernel = self.gradients[node][:, channel].sum(dim=(1, 2)).mean().view(1, 1)
        else:
            kernel = self.weights.kernels[self.frontier.units.index(node), channel]
        basis = None if self.split is None else self.model.resolve(self.source).basis
        parent = Unit(self.layer, channel, self.model.name, basis)
        return weighted_edge(parent, node, strength, kernel, self.weights)

    def positions_of(self, node: Unit, parent: Unit) -> list[Pair]:
        """Where the parent acts on the node on each image: its largest contribution within the kernel."""
        channel = parent.index
        assert channel is not None
        if self.weights is None:
            width = self.acts.shape[3]
            products = (self.gradients[node] * self.acts)[:, channel].abs().flatten(1)
            return [(i // width, i % width) for i in products.argmax(dim=1).tolist()]
        own = self.acts if self.start == self.layer else self.source_acts
        row, positions = self.frontier.units.index(node), self.frontier.positions[node]
        return acting_positions(self.weights, row, channel, self.acts, own, positions)


def _node(
    model: Model,
    unit: Unit,
    depth: int,
    peaks: Peaks,
    positions: list[Pair],
    acts: dict[str, Tensor],
    dataset: Images,
    n_examples: int,
) -> Node:
    response = respond(model, unit, acts[unit.layer]).detach()
    values = [float(response[i, y, x]) for i, (y, x) in enumerate(positions)]
    assert unit.index is not None
    top = [(p.value, p.image, p.position) for p in peaks.strongest(unit, limit=n_examples, active_only=False)]
    return Node(
        unit=str(unit),
        layer=unit.layer if depth == 0 else unit.space,
        index=unit.index,
        role="target" if depth == 0 else "parent",
        depth=depth,
        activation=sum(values) / len(values),
        examples=examples(model, unit, dataset, top),
        label=class_of(model, unit),
    )
