"""What flows from the units of some layers to those of later ones, in the network frozen at its images.

With every nonlinearity held (`frozen_operations`) the network is an affine map, and a target is a sum of what each path
brings. The layers of a graph are cut: each is fed with its own activations, and derivatives end there, so that a
derivative holds the paths that pass no other layer of the graph. Channels of a layer are units as they are. Of a
dictionary, activations = latents x write directions + offset + error: latents are read by their encoder, the error is
given (it has no sources), and the offset counts among the biases. A transcoder stands in for a block: its latents are
read from the layer that goes into the block, its linear skip passes derivatives on to that layer (`blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.attribution.attribute import pick
from circuits.errors import GraphError
from circuits.network.address import Unit
from circuits.network.hooks import editing, frozen, read
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.responses import peaks, respond
from circuits.tracing.ablation.sources import Channels, Latents
from circuits.tracing.graphs.blocks import Block
from circuits.tracing.graphs.frozen_operations import FrozenOperations
from circuits.tracing.target import Target
from zoo.inputs import InputSpec

INPUT = "input"
"""Name of the image among the layers of a graph."""


@dataclass
class Cut:
    """A layer of the graph on a batch of images.

    Attributes:
        source: its units.
        x: activations `(N, C, h, w)`, a function of what earlier layers are fed; of a transcoder those that it reads.
        leaf: the same values as the network has them, which later layers are fed; of a transcoder those that it writes.
        alone: what the biases make of it, `(N, C, h, w)`.
        rows, units, acts: of each activation of a unit at a position: which of the `N h w` positions, which unit, how
            much. Of channels all, in the order of the maps; of latents those that are active.
        error: what a dictionary leaves over, `(N, C, h, w)`; None of channels.
    """

    source: Channels
    x: Tensor
    leaf: Tensor
    rows: Tensor
    units: Tensor
    acts: Tensor
    error: Tensor | None
    alone: Tensor

    @property
    def columns(self) -> int:
        """Columns of the map."""
        return as_maps(self.leaf).shape[3]

    @property
    def area(self) -> int:
        """Positions of the map."""
        return as_maps(self.leaf).shape[2] * self.columns

    @property
    def n_units(self) -> int:
        """Number of units, the error aside."""
        return self.source.latents if isinstance(self.source, Latents) else self.source.width

    def slopes(self, gradient: Tensor) -> Tensor:
        """What a derivative by the activations `(N, C, h, w)` is by each entry."""
        if not isinstance(self.source, Latents):
            return gradient.flatten()
        flat, write = _rows(gradient), self.source.write
        parts = zip(torch.split(self.rows, _ENTRIES), torch.split(self.units, _ENTRIES), strict=True)
        return torch.cat([(flat[rows] * write[units]).sum(1) for rows, units in parts])

    def reads(self, weights: Tensor) -> Tensor:
        """The derivative `(N, C, h, w)`, by `x`, of the entries summed with some weights."""
        if not isinstance(self.source, Latents):
            return weights.view_as(self.x)
        used = weights.nonzero().flatten()
        rows, row_of = torch.unique(self.rows[used], return_inverse=True)
        vectors = self.x.detach()
        if isinstance(self.source, Block):
            vectors = self.source.window.of(vectors)
        flat = _rows(vectors)
        out = torch.zeros_like(flat)
        for first in range(0, len(rows), _POSITIONS):
            mine = (row_of >= first) & (row_of < first + _POSITIONS)
            leaf = flat[rows[first : first + _POSITIONS]].requires_grad_(True)
            with torch.enable_grad():
                latents = self.source.encode(leaf)
                total = (latents[row_of[mine] - first, self.units[used[mine]]] * weights[used[mine]]).sum()
            out[rows[first : first + _POSITIONS]] = torch.autograd.grad(total, leaf)[0]
        n, channels, h, w = vectors.shape
        slope = out.view(n, h, w, channels).permute(0, 3, 1, 2)
        return self.source.onto(self.x.detach(), slope) if isinstance(self.source, Block) else slope

    def left_over(self, gradient: Tensor) -> tuple[float, float]:
        """What the error and the offset of a dictionary give."""
        if self.error is None or not isinstance(self.source, Latents):
            return 0.0, 0.0
        offset = self.source.offset.view(1, -1, 1, 1)
        return float((gradient * self.error).sum()), float((gradient * offset).sum())


_ENTRIES, _POSITIONS = 2**16, 2**13


def _rows(maps: Tensor) -> Tensor:
    """Maps `(N, C, h, w)` as vectors `(N h w, C)`."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def blank_image(spec: InputSpec) -> Tensor:
    """The image `(1, channels, H, W)` that the network is fed as zeros: the one that contributes nothing."""
    black, white = (spec.folded(spec.normalize(torch.full((1, *spec.shape), v))) for v in (0.0, 1.0))
    blank = black / (black - white)
    return blank.flip(1) if spec.order == "BGR" else blank


@dataclass
class Incoming:
    """What flows into a sum of activations.

    Attributes:
        slopes: name of a layer -> derivative by each entry of its cut, along paths that pass no other layer.
        given: name of a layer -> what each entry gives, the slope times its activation.
        errors: name of a layer -> what the error of its dictionary gives.
        image: what each pixel gives, `(N, channels, H, W)`.
        bias: what the biases give, and the offsets of dictionaries.
        unexplained: what the frozen network computes and the paths do not bring; rounding, or something not held.
    """

    slopes: dict[str, Tensor]
    given: dict[str, Tensor]
    errors: dict[str, float]
    image: Tensor
    bias: float
    unexplained: float


class Flows:
    """The frozen network on a batch of images, from the image through the layers of a graph to the target.

    Attributes:
        cuts: name of each layer -> its units and their activations, earliest first.
        values: of the target on each image `(N,)`, where it is largest; positions: where that is.
    """

    def __init__(self, model: Model, target: Target, sources: Sequence[Channels], batch: Tensor) -> None:
        self.model = model
        self.blank = blank_image(model.input).to(batch)
        self.image = batch.detach().clone().requires_grad_(True)
        operations, fed, alone = FrozenOperations(), dict[str, tuple[Tensor, Tensor]](), dict[str, Tensor]()
        assert target.layer is not None
        layer = model.layers[target.layer]

        def feed(name: str) -> Callable[[Tensor], Tensor]:
            def replace(acts: Tensor) -> Tensor:
                leaf = acts.detach().clone().requires_grad_(True)
                fed[name] = acts, leaf
                return leaf.clone()  # a network may write into what it is given

            return replace

        def tap(name: str, taps: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
            def keep(acts: Tensor) -> Tensor:
                taps[name] = as_maps(acts)
                return acts.clone()

            return keep

        def silence(name: str) -> Callable[[Tensor], Tensor]:
            def replace(acts: Tensor) -> Tensor:
                alone[name] = as_maps(acts).clone()
                return torch.zeros_like(acts)

            return replace

        blocks = {s.reads: s for s in sources if isinstance(s, Block)}
        read_by, still = dict[str, Tensor](), dict[str, Tensor]()
        with frozen(model.module), ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            taps = [(layer, tap(layer, read_by)) for layer in blocks]  # before the layer is cut
            stack.enter_context(editing(model, [*taps, *((s.layer, feed(s.name)) for s in sources)]))
            with operations:
                self.acts = read(model, self.image, [layer])[layer.name]
        taps = [(layer, tap(layer, still)) for layer in blocks]
        with torch.no_grad(), editing(model, [*taps, *((s.layer, silence(s.name)) for s in sources)]):
            with operations.replayed():
                self.alone = read(model, self.blank.expand_as(batch).clone(), [layer])[layer.name]
        with torch.enable_grad():
            leaf = self.acts.detach().requires_grad_(True)
            response = target.values(torch.stack([respond(model, unit, leaf) for unit in target.units], dim=1))
            self.positions = peaks(response, Unit("target", 0))
            values = pick(response, self.positions)
            (self.reading,) = torch.autograd.grad(values.sum(), leaf)
        self.values = values.detach()
        fed_as = {s.layer: s.name for s in sources}
        self.cuts: dict[str, Cut] = {}
        for s in sources:
            acts, leaf = fed[s.name]
            if not isinstance(s, Block):
                self.cuts[s.name] = _cut(s, acts, leaf, alone[s.name])
            elif s.reads in fed_as and s.reads != s.layer:  # a layer of the graph, which is fed with its activations
                x = as_maps(fed[fed_as[s.reads]][1])
                self.cuts[s.name] = _cut(s, x, leaf, torch.zeros_like(x))
            else:
                self.cuts[s.name] = _cut(s, read_by[s.reads], leaf, still[s.reads])

    def into_target(self) -> Incoming:
        """What flows into the target, summed over the images."""
        return self._incoming(self.acts, self.alone, self.reading, float(self.values.sum()))

    def into(self, name: str, weights: Tensor) -> Incoming:
        """What flows into the entries of a layer, summed with some weights."""
        cut = self.cuts[name]
        return self._incoming(cut.x, cut.alone, cut.reads(weights), float((cut.acts * weights).sum()))

    def _incoming(self, x: Tensor, alone: Tensor, reading: Tensor, value: float) -> Incoming:
        image, gradients, moved, unexplained = self._arriving(x, alone, reading)
        constants = 0.0
        for name, cut in reversed(self.cuts.items()):  # a skip passes on to layers before
            gradient = gradients.get(name)
            if gradient is None or not isinstance(cut.source, Block):
                continue
            through, constant = cut.source.through_skip(cut.x.detach(), as_maps(gradient))
            if through is not None:
                pixels, passed, moved_on, off = self._arriving(cut.x, cut.alone, through)
                constants += constant + float((through * cut.x.detach()).double().sum()) - moved_on
                image, unexplained = image + pixels, unexplained + off
                gradients |= {n: gradients[n] + g if n in gradients else g for n, g in passed.items()}
        slopes, errors, offsets = dict[str, Tensor](), dict[str, float](), 0.0
        for name, cut in self.cuts.items():
            if name in gradients:
                slopes[name] = cut.slopes(as_maps(gradients[name]))
                errors[name], offset = cut.left_over(as_maps(gradients[name]))
                offsets += offset
        given = {name: slope * self.cuts[name].acts for name, slope in slopes.items()}
        return Incoming(slopes, given, errors, image, value - moved + offsets + constants, unexplained)

    def _arriving(self, x: Tensor, alone: Tensor, reading: Tensor) -> tuple[Tensor, dict[str, Tensor], float, float]:
        """What flows into `reading * x` from what layers are fed, and from the image.

        Returns:
            What each pixel gives; the derivatives by what layers are fed; how much all of them give, by what the frozen
            network computes; what of that the paths do not bring.
        """
        leaves = [self.image, *(cut.leaf for cut in self.cuts.values())]
        slopes = torch.autograd.grad(x, leaves, reading.to(x), retain_graph=True, allow_unused=True)
        image = torch.zeros_like(self.image)
        if slopes[0] is not None:
            image = slopes[0] * (self.image.detach() - self.blank)
        arrives, gradients = image.double().sum(), dict[str, Tensor]()
        for (name, cut), gradient in zip(self.cuts.items(), slopes[1:], strict=True):
            if gradient is not None:
                arrives = arrives + (gradient * cut.leaf.detach()).double().sum()
                gradients[name] = gradient
        # the sum of the paths, and what the frozen network computes: two ways to the same number
        moved = float((reading * (x.detach() - alone)).double().sum())
        return image.detach(), gradients, moved, moved - float(arrives)

    def derivatives(self) -> tuple[dict[str, Tensor], Incoming, dict[str, Incoming]]:
        """The target's derivative by each entry of each layer along all paths, and what flows into it and them."""
        totals = {name: torch.zeros_like(cut.acts) for name, cut in self.cuts.items()}
        incoming: dict[str, Incoming] = {}

        def pass_on(flow: Incoming) -> Incoming:
            for name, slope in flow.slopes.items():
                totals[name] = totals[name] + slope
            return flow

        direct = pass_on(self.into_target())
        for name in reversed(self.cuts):
            incoming[name] = pass_on(self.into(name, totals[name]))
        return totals, direct, incoming


def _cut(source: Channels, x: Tensor, leaf: Tensor, alone: Tensor) -> Cut:
    x = as_maps(x)
    acts = as_maps(leaf.detach())
    error = None
    if isinstance(source, Latents):
        with torch.no_grad():
            parts = source.parts_from(x.detach(), acts) if isinstance(source, Block) else source.parts(acts)
            latents, error = parts[:, : source.latents], parts[:, source.latents :]
            flat = _rows(latents)
            rows, units = flat.nonzero(as_tuple=True)
            values = flat[rows, units]
    else:
        n, channels, h, w = acts.shape
        position = torch.arange(n * h * w, device=acts.device).view(n, 1, h, w)
        rows = position.expand_as(acts).flatten()
        units = torch.arange(channels, device=acts.device).view(1, -1, 1, 1).expand_as(acts).flatten()
        values = acts.flatten()
    return Cut(source, x, leaf, rows, units, values, error, alone)


def check_sums(flows: Mapping[str, Incoming]) -> float:
    """The largest difference between what paths bring and what the frozen network computes, as a share of its size.

    Raises:
        GraphError: something on a path is not finite, or has no form that can be held at an image.
    """
    worst = 0.0
    for name, flow in flows.items():
        size = sum(float(v.abs().sum()) for v in (*flow.given.values(), flow.image))
        size += sum(abs(v) for v in flow.errors.values()) + abs(flow.bias)
        off = abs(flow.unexplained) / size if size else 0.0
        if not math.isfinite(off):
            raise GraphError(
                f"what gives {name} is not finite on these images: weights or activations are NaN or infinite"
            )
        if not off < TOLERANCE:
            raise GraphError(
                f"on the way to {name} lies something that has no linear form at an image (a division by it, a power, "
                "a product that is no gate): take only layers after it"
            )
        worst = max(worst, off)
    return worst


TOLERANCE = 1e-4
"""Largest difference of the two sums; rounding gives about 1e-6."""
