"""How much each source contributed to a target's response, on given images.

Methods: weight x activation (exact where the network is linear between source and target: "show the sum"),
gradient x activation, integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365), and ablation.
Levels: any layer, and the image itself (`source="input"`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuits.attribution.expanded_weights import expanded_weights
from circuits.common.provenance import provenance
from circuits.errors import CircuitsError, GraphError
from circuits.network.address import Unit
from circuits.network.hooks import check_images, frozen, graph_edits, read
from circuits.network.model import Model
from circuits.network.operations import Pair
from circuits.network.responses import ActivationMeans, peaks, respond
from circuits.network.subnetwork import Segment, ablation_drops, channel_pools
from zoo.common import drawings
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import whole_number
from zoo.common.results import Result, remembers
from zoo.images.sources import open_images

Method = Literal["weight*act", "grad*act", "integrated", "ablation"]
METHODS = ("weight*act", "grad*act", "integrated", "ablation")


@dataclass(frozen=True)
class Attribution(Result):
    """Contributions of every source to one target.

    `values` summed over sources and positions, plus `bias`, plus `remainder`, is `response`, per image.

    Attributes:
        target, source, method: of what; `start` is the layer whose activations were attributed to.
        values: `(N, S, h, w)` contributions on the grid of `start` (ablation: `(N, S, 1, 1)`).
        response: `(N,)` the target before its own ReLU, at `positions`.
        bias: `(N,)` what biases give (weight*act), or the response at the baseline (integrated); else zero.
        remainder: `(N,)` what is left: the work of the nonlinearities in between.
        positions: where the target was read on each image.
    """

    target: str
    source: str
    start: str
    method: str
    values: Tensor
    response: Tensor
    bias: Tensor
    remainder: Tensor
    positions: list[Pair]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def units(self) -> Tensor:
        """Contribution of each source, summed over positions, `(N, S)`."""
        return self.values.sum(dim=(2, 3))

    def records(self) -> list[dict[str, Any]]:
        """The rows of `table`: one for each source, strongest first, with its mean contribution over the images."""
        return [{"source": f"{self.source}:{c}", "contribution": v} for c, v in self.top(self.values.shape[1])]

    @property
    def by_position(self) -> Tensor:
        """Contribution of each position, summed over sources, `(N, h, w)`."""
        return self.values.sum(dim=1)

    def overlay(self, image: Tensor, index: int = 0, *, path: str | Path | None = None) -> NDArray[np.uint8]:
        """The contributions of each position over the image, `(H, W, 3)` uint8; with `path` written there as PNG.

        Args:
            image: `(C, H, W)` in [0, 1], of the size that the network gets.
            index: number of the image among those that were attributed to.
            path: of the file.

        Raises:
            CircuitsError: no such image. FileError: the file cannot be written.
        """
        whole_number("index", index, least=0, most=len(self.values) - 1)
        pixels: NDArray[np.uint8] = drawings.overlay(self.by_position[index], image, path)
        return pixels

    def top(self, n: int = 10) -> list[tuple[int, float]]:
        """The `n` sources with the largest mean contribution by size: `[(source channel, contribution)]`."""
        mean = self.units.mean(dim=0)
        return [(int(c), float(mean[c])) for c in mean.abs().argsort(descending=True, stable=True)[:n]]


@remembers("model", "images")
@outside_inference_mode
def attribute(
    model: Model,
    images: Any,
    *,
    source: str,
    target: str | Unit,
    method: Method = "grad*act",
    at: Sequence[Pair] | Pair | None = None,
    baseline: Literal["zero", "mean"] = "zero",
    steps: int = 64,
    batch_size: int = 32,
) -> Attribution:
    """Contributions of `source` to `target` on each image.

    Args:
        model: the model.
        images: images in any form that `capture` takes.
        source: a layer, or "input" for the image (not with "weight*act" or "ablation").
        target: a unit, a neuron, a latent, or a class score `logits:817`.
        method: see the module.
        at: where to read the target: one `(y, x)`, or one per image (default: its peak on each). In networks of
            sequences `(t,)`, of volumes `(z, y, x)`.
        baseline: for "integrated" and "ablation": zero, or the mean over these images.
        steps: integration steps of "integrated".
        batch_size: images at a time.

    Raises:
        AddressError: unknown unit or layer. CircuitsError: unknown method, or one that does not apply.

    >>> attribute(load("scenes"), "scenes:2", source="mixed3b", target="mixed4a:0").values.ndim
    4
    """
    if method not in METHODS:
        raise CircuitsError(f"method={method!r}: use one of {', '.join(METHODS)}")
    if baseline not in ("zero", "mean") or steps < 1:
        raise CircuitsError(f"baseline is 'zero' or 'mean' and steps at least 1; got {baseline!r}, {steps}")
    unit = model.unit(target)
    dataset = open_images(images)
    positions = positions_of(at, len(dataset), unit, model)
    worker = input_worker(model, unit) if source == "input" else layer_worker(model, source, unit)
    if source == "input" and method in ("weight*act", "ablation"):
        raise CircuitsError(
            f"method={method!r} needs a layer as its source; for the image use 'grad*act' or 'integrated'"
        )
    means: Tensor | None = None
    pooled: dict[str, tuple[Tensor, slice]] = {}
    if baseline == "mean" and method in ("integrated", "ablation"):
        pools = _pools(model, worker)
        if pools and method == "integrated":
            first = next(iter(pools))
            raise CircuitsError(
                f"the pool of a mean is not the mean of the pool: method='integrated' with baseline='mean' is not "
                f"defined from {worker.start} through {first}; attribute from {first}, take baseline='zero', or "
                "rank(method='integrated'), which holds pooled means"
            )
        means, pooled = _means(worker, dataset, model, batch_size, pools)
    results = []
    for indices, batch in dataset.batches(model.input, batch_size=batch_size):
        batch_positions = None if positions is None else [positions[i] for i in indices]
        results.append(worker.run(batch, method, batch_positions, means, steps, pooled))
    return Attribution(
        target=str(unit),
        source=source,
        start=worker.start,
        method=method,
        values=torch.cat([r[0] for r in results]),
        response=torch.cat([r[1] for r in results]),
        bias=torch.cat([r[2] for r in results]),
        remainder=torch.cat([r[1] - r[2] - r[0].sum(dim=(1, 2, 3)) for r in results]),
        positions=[p for r in results for p in r[3]],
        provenance=provenance(weights=model.digest, images=dataset.name, images_digest=dataset.digest, steps=steps),
    )


def positions_of(at: Sequence[Any] | None, count: int, unit: Unit, model: Model) -> list[Pair] | None:
    """Where a unit is read on each of `count` images; None for its peak on each.

    Raises:
        CircuitsError: another number of positions, or one outside of the map.
    """
    layer = model.layers[unit.layer]
    if at is None:
        return None if unit.at is None else [model.position(layer, unit.at)] * count
    single = all(isinstance(v, int) for v in at)
    positions = [tuple(at)] * count if single else [tuple(int(v) for v in p) for p in at]
    if len(positions) != count:
        raise CircuitsError(f"at= needs one position, or one for each of the {count} images; got {len(positions)}")
    return [model.position(layer, p) for p in positions]


@dataclass
class Worker:
    """One source-target pair: gives activations of the source, and the target's response to them."""

    start: str
    begin: Callable[[Tensor], tuple[Tensor, Any]]
    respond: Callable[[Tensor, Any], Tensor]
    segment: Segment | None = None
    model: Model | None = None
    source: str = ""
    unit: Unit | None = None

    def run(
        self,
        batch: Tensor,
        method: str,
        positions: list[Pair] | None,
        means: Tensor | None,
        steps: int,
        pooled: Mapping[str, tuple[Tensor, slice]],
    ) -> tuple[Tensor, Tensor, Tensor, list[Pair]]:
        with torch.no_grad():
            acts, context = self.begin(batch)
            response = self.respond(acts, context)
        positions = peaks(response, Unit("x", 0)) if positions is None else positions
        value = pick(response, positions)
        zero = torch.zeros_like(value)
        if method == "weight*act":
            try:
                values, bias = self._weights(acts, positions)
            except GraphError as error:
                raise GraphError(f"{error}; method='grad*act' needs no weights") from error
            return values, value, bias, positions
        if method == "ablation":
            assert self.segment is not None
            reference = means if means is not None else acts.new_zeros(acts.shape[1])
            drops = ablation_drops(self.segment, acts, context, positions, value, reference, pooled)
            return drops[:, :, None, None], value, zero, positions
        if method == "grad*act":
            return self.gradient(acts, context, positions) * acts, value, zero, positions
        base = torch.zeros_like(acts) if means is None else means.view(1, -1, 1, 1).expand_as(acts)
        total = torch.zeros_like(acts)
        for k in range(steps):
            # midpoints: the error of the sum falls with the square of the step
            total += self.gradient(base + (acts - base) * ((k + 0.5) / steps), context, positions)
        with torch.no_grad():
            bias = pick(self.respond(base, context), positions)
        return total / steps * (acts - base), value, bias, positions

    def gradient(self, acts: Tensor, context: Any, positions: list[Pair]) -> Tensor:
        assert self.model is not None
        with frozen(self.model.module), torch.enable_grad():
            leaf = acts.detach().clone().requires_grad_(True)
            total = pick(self.respond(leaf, context), positions).sum()
            return torch.autograd.grad(total, leaf)[0]

    def _weights(self, acts: Tensor, positions: list[Pair]) -> tuple[Tensor, Tensor]:
        assert self.model is not None and self.unit is not None and self.segment is not None
        weights = expanded_weights(self.model, source=self.source, target=self.unit)
        products = weights.patches(acts, positions) * weights.kernels[0].to(acts)
        values = torch.zeros_like(acts)
        kh, kw = products.shape[2:]
        for i, (y, x) in enumerate(positions):
            top, left = y * weights.stride[0] + weights.offset[0], x * weights.stride[1] + weights.offset[1]
            y0, x0, y1, x1 = max(0, top), max(0, left), min(acts.shape[2], top + kh), min(acts.shape[3], left + kw)
            values[i, :, y0:y1, x0:x1] = products[i, :, y0 - top : y1 - top, x0 - left : x1 - left]
        bias = self.segment.bias((acts.shape[2], acts.shape[3]))
        each = acts.new_zeros(len(acts)) if bias is None else torch.stack([bias[0, y, x] for y, x in positions])
        return values, each


def pick(response: Tensor, positions: list[Pair]) -> Tensor:
    """The value at a position of each map `(N, h, w)`: `(N,)`."""
    return torch.stack([response[i, y, x] for i, (y, x) in enumerate(positions)])


def layer_worker(model: Model, source: str, unit: Unit) -> Worker:
    """From the activations of a layer to a unit.

    Raises:
        CircuitsError: a branch of a layer. GraphError: no way from the layer to the unit.
    """
    base = model.layer(source)
    if base.part is not None:
        raise CircuitsError(f"attribute to the whole layer {base.part[0]}; {base.name} is channels of it")
    start = base.name
    if model.graph is not None:
        start = model.start(base.name, unit.layer)
    segment = Segment(model, start, unit, pre=True)
    return Worker(
        start,
        segment.begin,
        lambda acts, context: segment.respond(acts, context)[:, 0],
        segment,
        model,
        base.name,
        unit,
    )


def input_worker(model: Model, unit: Unit) -> Worker:
    """From images in [0, 1] to a unit."""
    layer = model.layers[unit.layer]

    def begin(batch: Tensor) -> tuple[Tensor, Any]:
        return check_images(model, batch), None

    def response_map(acts: Tensor, _context: Any) -> Tensor:
        if model.graph is None:
            return respond(model, unit, read(model, acts, [layer])[layer.name])
        end = model.node(layer.name)
        end = model.graph.before_relu(end) if unit.basis is None else end
        fed = {model.graph.input: model.input.normalize(acts)}
        with model.lock:
            out = model.graph.run(fed, [end], edits=graph_edits(model))[end]
        return respond(model, unit, layer.axes.maps(out))

    return Worker("input", begin, response_map, None, model, "input", unit)


def _pools(model: Model, worker: Worker) -> dict[str, slice]:
    """Max pools over the source's channels that a run to the target computes."""
    segment = worker.segment
    if segment is None or worker.unit is None:
        return {}
    pools = channel_pools(model, worker.start, worker.unit.layer)
    return {name: channels for name, channels in pools.items() if segment.crosses(name)}


def _means(
    worker: Worker, dataset: Any, model: Model, batch_size: int, pools: Mapping[str, slice]
) -> tuple[Tensor, dict[str, tuple[Tensor, slice]]]:
    """Mean of each source `(S,)`, and of their maps after each of some max pools, in one pass."""
    total, count, pooled = torch.zeros(()), 0, ActivationMeans()
    with torch.no_grad():
        for _, batch in dataset.batches(model.input, batch_size=batch_size):
            acts, context = worker.begin(batch)
            total = total + acts.sum(dim=(0, 2, 3))
            count += acts.shape[0] * acts.shape[2] * acts.shape[3]
            if pools:
                assert worker.segment is not None
                worker.segment.respond(acts, context, {name: pooled.tap(name) for name in pools})
    held = {name: (pooled.of(name)[pools[name]].to(model.device), pools[name]) for name in pooled.layers}
    return total / count, held
