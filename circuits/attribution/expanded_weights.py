"""Weights between any two layers, adjacent or not: expanded weights, per example, and best case.

Source: Voss et al., Visualizing Weights, Distill 2021. Expanded weights are the linear map between two
layers of the network with ReLUs skipped and max pools averaging: exact where the network is linear
between them, otherwise the gradient that would be seen if all units in between fired independently.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from circuits.attribution.frozen_attention import frozen_weights
from circuits.attribution.kernel_composition import compose, support
from circuits.attribution.linearity import LinearPath, first_nonlinear, probe_images
from circuits.errors import AddressError, CaptureError, GraphError
from circuits.network.address import Unit
from circuits.network.graph import Graph
from circuits.network.hooks import editing, frozen, outputs, read
from circuits.network.layers.axes import Axes, as_maps, plain_axes
from circuits.network.layers.readings import PATTERN
from circuits.network.linearized import linearized, measured_kernels
from circuits.network.model import Model
from circuits.network.operations import Pair, shape_of, title
from circuits.network.responses import peaks, read_directions, respond
from zoo.common.autograd import outside_inference_mode
from zoo.common.checks import one_of
from zoo.common.results import Result
from zoo.images.sources import open_images

Method = Literal["auto", "exact", "vjp"]


@dataclass(frozen=True)
class ExpandedWeights(Result):
    """Kernels from every channel of one layer to some units of another.

    Target position `p` reads the activations of `start` at `p * stride + offset + (i, j)` with weights
    `kernels[:, :, i, j]`.

    Attributes:
        kernels: `(targets, sources, kh, kw)`.
        source: the layer whose channels the sources are, or the basis whose latents they are.
        targets: addresses of the target units, without the model's name.
        start: the layer whose activations the kernels multiply: the source, or the output of a pool or a
            local normalization right after it.
        offset: row and column of `kernels[..., 0, 0]` relative to `p * stride`.
        stride: source positions per target position; (0, 0) when the target reads the whole map at once.
        method: "exact", "vjp", "example", "best case", or "frozen" (attention as it is on images).
    """

    kernels: Tensor
    source: str
    targets: list[str]
    start: str
    offset: Pair
    stride: Pair
    method: str

    @property
    def norms(self) -> Tensor:
        """L2 norm over positions, `(targets, sources)`: how strongly a source acts, whatever its sign."""
        norms: Tensor = torch.linalg.vector_norm(self.kernels, dim=(2, 3))
        return norms

    @property
    def summed(self) -> Tensor:
        """Sum over positions, `(targets, sources)`: the sign of a source that fires everywhere."""
        return self.kernels.sum(dim=(2, 3))

    def top(self, target: int = 0, n: int = 10) -> list[tuple[int, float]]:
        """The `n` sources with the largest L2 norm for one target: `[(source channel, signed norm)]`."""
        order = self.norms[target].argsort(descending=True, stable=True)[:n].tolist()
        return [(c, math.copysign(float(self.norms[target, c]), float(self.summed[target, c]))) for c in order]

    def rest(self, listed: Sequence[int], target: int = 0) -> Tensor:
        """Kernel sum `(kh, kw)` of all sources that are not in `listed`, so that listed + rest = all."""
        hidden = torch.ones(self.kernels.shape[1], dtype=torch.bool)
        hidden[list(listed)] = False
        return self.kernels[target, hidden].sum(dim=0)

    def patches(self, acts: Tensor, positions: Sequence[Pair]) -> Tensor:
        """What each target position reads: `acts` `(N, S, h, w)`, one `(y, x)` per image -> `(N, S, kh, kw)`.

        Positions outside the map read zero, as the network's padding does.
        """
        kh, kw = self.kernels.shape[2:]
        out = acts.new_zeros((len(acts), acts.shape[1], kh, kw))
        for i, (y, x) in enumerate(positions):
            top, left = y * self.stride[0] + self.offset[0], x * self.stride[1] + self.offset[1]
            y0, x0 = max(0, top), max(0, left)
            y1, x1 = min(acts.shape[2], top + kh), min(acts.shape[3], left + kw)
            if y1 > y0 and x1 > x0:
                out[i, :, y0 - top : y1 - top, x0 - left : x1 - left] = acts[i, :, y0:y1, x0:x1]
        return out


@outside_inference_mode
def expanded_weights(
    model: Model,
    *,
    source: str,
    target: str | Unit | Sequence[str | Unit],
    method: Method = "auto",
    max_memory: int = 512 * 2**20,
    attention: Literal["frozen"] | None = None,
    images: Any = None,
) -> ExpandedWeights:
    """Kernels from all channels of `source` to one or more units of a later layer.

    Args:
        model: the model.
        source: the earlier layer, or a basis attached to it (`mixed4b~sae`): kernels are then from its latents, by
            what each writes.
        target: a layer (all of its channels), a unit, a latent, or several units of one layer.
        method: "exact" composes the kernels (milliseconds); "vjp" differentiates the linearized network
            in batches; "auto" takes the first that applies. They agree to rounding.
        max_memory: bytes that the batched differentiation may hold at a time.
        attention: "frozen" holds attention patterns as they are on `images`: the target is a unit at one position
            (`block1.attention:3@2,5`, or `@cls`), which reads the whole map of the source.
        images: for frozen attention, in any form that `capture` takes; weights are a mean over them.

    Raises:
        AddressError: unknown layer or unit, or targets of several layers.
        GraphError: no path from source to target, or an operation without a linear form between them: differentiated
            weights are held against what the path computes on images, rectifiers skipped.

    >>> expanded_weights(load("scenes"), source="mixed3a", target="mixed3b:4").kernels.ndim
    4
    """
    model.check_images("a map of expanded weights", GraphError)
    targets = _targets(model, target)
    at = model.resolve(source)
    if at.index is not None:
        raise AddressError(f"the source of expanded weights is a layer; got the unit {at.short}")
    if at.basis is not None:
        options = {"max_memory": max_memory, "attention": attention, "images": images}
        plain = expanded_weights(model, source=at.layer, target=target, method=method, **options)
        write = model.basis(at.layer, at.basis).write.detach().to(plain.kernels)
        return replace(plain, kernels=torch.einsum("tshw,ms->tmhw", plain.kernels, write), source=at.space)
    if method not in ("auto", "exact", "vjp"):
        raise GraphError(f"method={method!r}: use 'auto', 'exact' or 'vjp'")
    part = model.layers[at.layer].part
    base = at.layer if part is None else part[0]
    if attention is not None:
        return _with_attention(model, at.layer, target, attention, images)
    with model.lock:  # the linearized network runs, too, and one at a time
        if model.graph is None:
            try:
                result = _through_module(model, base, targets)
            except CaptureError as error:  # it branches on its activations
                raise GraphError(
                    f"the linearized network takes another branch, without {base} or {targets.layer}: "
                    "no kernels lie between them"
                ) from error
        else:
            result = _through_graph(model, model.graph, base, targets, method, max_memory)
    if part is not None:
        result = replace(result, kernels=result.kernels[:, part[1] : part[1] + model.layers[at.layer].channels])
    return replace(result, source=at.layer)


@dataclass(frozen=True)
class _Targets:
    """Units of one layer; a whole layer is common, so there is no `Unit` for each."""

    layer: str
    basis: str | None
    indices: list[int]

    @property
    def names(self) -> list[str]:
        prefix = self.layer if self.basis is None else f"{self.layer}~{self.basis}"
        return [f"{prefix}:{i}" for i in self.indices]


def _targets(model: Model, target: str | Unit | Sequence[str | Unit]) -> _Targets:
    requested = [target] if isinstance(target, (str, Unit)) else list(target)
    indices: list[int] = []
    spaces = set()
    for address in requested:
        unit = model.resolve(address)
        layer, start, count = model.layers[unit.layer], 0, model.layers[unit.layer].channels
        if unit.basis is not None:
            count = len(model.basis(unit.layer, unit.basis).read)
        elif layer.part is not None:
            start = layer.part[1]
            layer = model.layers[layer.part[0]]
        spaces.add((layer.name, unit.basis))
        indices += range(start, start + count) if unit.index is None else [unit.index]
    if len(spaces) != 1:
        names = ", ".join(sorted(name for name, _ in spaces)) or "none"
        raise AddressError(f"the targets of one call are units of one layer; got {names}")
    name, basis = spaces.pop()
    return _Targets(name, basis, indices)


def _through_graph(
    model: Model, graph: Graph, source: str, targets: _Targets, method: Method, max_memory: int
) -> ExpandedWeights:
    start = model.start(source, targets.layer)
    begin, end = model.node(start), model.node(targets.layer)
    if begin is end:
        raise GraphError(f"{source} and {targets.layer} have no weights between them")
    channels = torch.tensor(targets.indices)
    directions = read_directions(model, targets.layer, targets.basis, targets.indices)
    kernels, path, used = None, None, "exact"
    ends = model.layers[start].axes, model.layers[targets.layer].axes
    if not _all_maps(graph, begin, end):
        if method == "exact":
            raise GraphError(
                f"no exact linear form is composed between {source} and {targets.layer}, which are not maps with "
                "channels first all the way; method='auto' differentiates"
            )
        with _naming_attention(graph, begin, end):
            path = _path(model, graph, begin, end, directions, targets.indices, ends)
            kernels, offset, stride = _differentiate_whole(graph, begin, end, directions, channels, ends)
        used = "vjp"
    elif method != "vjp":
        try:
            k = compose(graph, begin, end, directions, channels)
            kernels, offset, stride = k.values, k.offset, k.stride
        except GraphError:
            if method == "exact":
                raise
    if kernels is None:
        with _naming_attention(graph, begin, end):
            path = _path(model, graph, begin, end, directions, targets.indices, ends)
        kernels, offset, stride = _differentiate(graph, begin, end, directions, channels, max_memory)
        used = "vjp"
    weights = ExpandedWeights(kernels, source, targets.names, start, offset, stride, used)
    if path is not None:
        with _naming_attention(graph, begin, end):
            path.check(kernels, weights.patches)
    return weights


def _with_attention(
    model: Model, source: str, target: str | Unit | Sequence[str | Unit], attention: str, images: Any
) -> ExpandedWeights:
    one_of("attention", attention, ("frozen",))
    if images is None:
        raise GraphError("attention='frozen' holds patterns as they are on images: give images=")
    units = [model.unit(address) for address in ([target] if isinstance(target, (str, Unit)) else target)]
    if len({unit.layer for unit in units}) != 1:
        raise AddressError("the targets of one call are units of one layer")
    with model.lock:
        kernels = frozen_weights(model, images, source, units)
    return ExpandedWeights(kernels, source, [unit.short for unit in units], source, (0, 0), (0, 0), "frozen")


@contextmanager
def _naming_attention(graph: Graph, begin: Any, end: Any) -> Iterator[None]:
    """Say so where attention is why there are no kernels between two nodes."""
    try:
        yield
    except GraphError as error:
        path = graph.between(begin, end)[1:]
        inputs = [graph.layouts[i] for n in path for i in (n, *n.all_input_nodes)]
        if PATTERN in inputs or any(graph.is_attention(n) for n in path):
            raise GraphError(
                f"no kernels between {title(begin)} and {title(end)}: attention lies between them, whose pattern "
                "depends on the image; attention='frozen' with images= holds it"
            ) from error
        raise


def _all_maps(graph: Graph, begin: Any, end: Any) -> bool:
    """Whether all between two nodes are maps with channels first, or vectors, which kernels can be composed for."""
    layouts = [graph.layouts[n] for n in graph.between(begin, end) if shape_of(n) is not None]
    return all(isinstance(layout, dict) and layout[""].plain for layout in layouts)


def _differentiate(
    graph: Graph, begin: Any, end: Any, directions: Tensor | None, channels: Tensor, max_memory: int
) -> tuple[Tensor, Pair, Pair]:
    """Batched vector-Jacobian products on the linearized sub-graph between two nodes.

    The source map is made just large enough that one target position sees no padding. Where the meaning of an
    operation between the two is unknown, the kernel is measured on the whole map instead.
    """
    shape, out_shape = _map_shape(begin), shape_of(end)
    assert out_shape is not None
    if len(out_shape) == 4:
        try:
            offset, size, stride = support(graph, begin, end)
        except GraphError:
            ends = plain_axes(shape_of(begin) or ()), plain_axes(out_shape)
            return _differentiate_whole(graph, begin, end, directions, channels, ends)
        middle = tuple(max(0, math.ceil(-offset[a] / stride[a])) for a in range(2))
        hw = tuple(middle[a] * stride[a] + offset[a] + size[a] for a in range(2))
    else:
        offset, stride, middle, hw = (0, 0), (0, 0), (0, 0), (shape[2], shape[3])
    like = next(graph.module.parameters(), torch.zeros(1))
    map_size = shape[1] * hw[0] * hw[1]
    # several times the source map is alive at once: its own gradient, and the maps in between
    chunk = max(1, max_memory // (16 * map_size * like.element_size()))
    parts = []
    with frozen(graph.module), torch.enable_grad():
        for start in range(0, len(channels) if directions is None else len(directions), chunk):
            rows = channels[start : start + chunk]
            some = None if directions is None else directions[start : start + chunk]
            count = len(rows) if some is None else len(some)
            leaf = torch.zeros((count, shape[1], *hw), dtype=like.dtype, device=like.device, requires_grad=True)
            fed = leaf if len(shape_of(begin) or ()) == 4 else leaf.flatten(1)
            out = graph.run({begin: fed}, [end], linear=True)[end]
            here = out[:, :, middle[0], middle[1]] if out.ndim == 4 else out
            total = here[torch.arange(count), rows].sum() if some is None else (here * some.to(here)).sum()
            parts.append(torch.autograd.grad(total, leaf)[0])
    kernels = torch.cat(parts)
    if stride == (0, 0):
        return kernels, (0, 0), (0, 0)
    # the map ends where the kernel does; before it lie the rows that only a whole number of strides brought in
    top, left = (middle[a] * stride[a] + offset[a] for a in range(2))
    return kernels[:, :, top:, left:], offset, stride


def _differentiate_whole(
    graph: Graph, begin: Any, end: Any, directions: Tensor | None, channels: Tensor, ends: tuple[Axes, Axes]
) -> tuple[Tensor, Pair, Pair]:
    like = next(graph.module.parameters(), torch.zeros(1))
    with frozen(graph.module), torch.enable_grad():
        whole = like.new_zeros(shape_of(begin) or ())
        leaf = torch.zeros_like(ends[0].maps(whole), requires_grad=True)
        try:
            out = ends[1].maps(graph.run({begin: ends[0].write(leaf, whole)}, [end], linear=True)[end])
        except (RuntimeError, TypeError, AttributeError) as error:  # one of the other inputs of a function is missing
            raise GraphError(f"what lies between {title(begin)} and {title(end)} has no linear form") from error
        return measured_kernels(leaf, out, directions, channels.tolist(), as_maps)


def _path(
    model: Model, graph: Graph, begin: Any, end: Any, directions: Tensor | None, rows: Any, ends: tuple[Axes, Axes]
) -> LinearPath | None:
    """The path as it computes, where an operation of unknown meaning (a product of two maps, say) may bend it.

    Raises:
        GraphError: it is far from linear.
    """
    unknown = [n for n in graph.between(begin, end)[1:] if graph.ops[n].kind in ("other", "softmax")]
    if not unknown:
        return None

    def run(acts: Tensor, nodes: list[Any]) -> dict[Any, Tensor]:
        whole = acts.new_zeros((len(acts), *(shape_of(begin) or ())[1:]))
        return graph.run({begin: ends[0].write(acts, whole)}, nodes, linear=True)

    def culprit(acts: Tensor) -> str:
        nodes = [n for n in unknown if shape_of(n) is not None]
        return repr(first_nonlinear({title(n): v for n, v in run(acts, nodes).items()}, acts) or title(unknown[0]))

    def evaluate(acts: Tensor) -> Tensor:
        try:
            return _read(ends[1].maps(run(acts, [end])[end]), directions, rows)
        except (RuntimeError, TypeError, AttributeError) as error:  # one of its other inputs is missing
            raise GraphError(f"the path passes through {title(unknown[0])!r}, which has no linear form") from error

    with torch.no_grad():
        images = model.input.normalize(_probe_images(model))
        acts = ends[0].maps(graph.run({graph.input: images}, [begin])[begin])
    path = LinearPath(acts, evaluate, culprit)
    path.refuse_gates()
    return path


def _probe_images(model: Model) -> Tensor:
    return probe_images(model.input.shape, torch.zeros((), dtype=model.dtype, device=model.device))


def _read(maps: Tensor, directions: Tensor | None, rows: Sequence[int]) -> Tensor:
    """Responses `(N, T, h, w)` of targets on the maps of their layer, without the bias of latents."""
    return maps[:, list(rows)] if directions is None else torch.einsum("tc,nchw->nthw", directions.to(maps), maps)


def _map_shape(node: Any) -> tuple[int, ...]:
    shape = shape_of(node)
    assert shape is not None
    return shape if len(shape) == 4 else (*shape, 1, 1)


def _through_module(model: Model, source: str, targets: _Targets) -> ExpandedWeights:
    """Without a graph: differentiate the whole linearized network at a gray image, then crop."""
    gray = torch.full((1, *model.input.shape), 0.5, device=model.device, requires_grad=True)
    layer = targets.layer
    directions = read_directions(model, layer, targets.basis, targets.indices)

    def evaluate(image: Tensor, points: Tensor) -> Tensor:
        images = image.expand(len(points), -1, -1, -1)
        with linearized(), editing(model, [(source, lambda old: points.reshape(old.shape).clone())]):
            return _read(read(model, images, [model.layers[layer]])[layer], directions, targets.indices)

    with torch.no_grad():
        probes = _probe_images(model)
        acts = read(model, probes, [model.layers[source]])[source]
    between = f"what lies between {source} and {layer} (a gate, a product or a normalization?)"
    # a gate that bypasses the source is another one on another image
    paths = [LinearPath(acts, partial(evaluate, image), lambda _: between) for image in (gray.detach(), probes[:1])]
    for path in paths:
        path.refuse_gates()
    with frozen(model.module), torch.enable_grad(), linearized():
        begin_end = outputs(model, gray, [source, layer])
        to_maps, end = model.layers[source].axes.maps, model.layers[layer].axes.maps(begin_end[layer])
        kernels, offset, stride = measured_kernels(begin_end[source], end, directions, targets.indices, to_maps)
    weights = ExpandedWeights(kernels, source, targets.names, source, offset, stride, "vjp")
    for path in paths:
        path.check(kernels, weights.patches)
    return weights


@outside_inference_mode
def example_weights(
    model: Model,
    images: Any,
    *,
    source: str,
    target: str | Unit,
    positions: Sequence[Pair] | None = None,
    batch_size: int = 32,
) -> tuple[ExpandedWeights, Tensor]:
    """Weights as they are on each image: the gradient of the real network, nothing linearized.

    Linear weights of opposite signs cancel along two hops even where each hop matters; these do not
    (the boundary detector case of Visualizing Weights).

    Args:
        model: the model.
        images: images in any form that `capture` takes.
        source: the earlier layer.
        target: one unit.
        positions: where to read the target, one `(y, x)` an image (default: its position, else its peak).
        batch_size: images per pass.

    Returns:
        The mean over images (method "example"), and the gradients `(N, S, kh, kw)` of every image,
        placed in the same window.
    """
    unit, begin = model.unit(target), model.layer(source)
    frame = expanded_weights(model, source=source, target=unit)
    dataset = open_images(images)
    if positions is not None and len(positions) != len(dataset):
        raise GraphError(f"positions= needs one (y, x) for each of the {len(dataset)} images; got {len(positions)}")
    gradients = []
    for indices, batch in dataset.batches(model.input, batch_size=batch_size):
        with frozen(model.module), torch.enable_grad():
            acts = outputs(model, batch.requires_grad_(True), [unit.layer, frame.start])
            response = respond(model, unit, model.layers[unit.layer].axes.maps(acts[unit.layer]))
            if positions is not None:
                batch_positions = [positions[i] for i in indices]
            else:
                batch_positions = peaks(response, unit)
            total = sum(response[i, y, x] for i, (y, x) in enumerate(batch_positions))
            (gradient,) = torch.autograd.grad(total, acts[frame.start])  # type: ignore[arg-type]
        gradient = model.layers[frame.start].axes.maps(gradient)
        if begin.part is not None:
            gradient = gradient[:, begin.part[1] : begin.part[1] + begin.channels]
        gradients.append(frame.patches(gradient, batch_positions))
    each = torch.cat(gradients)
    return replace(frame, kernels=each.mean(dim=0, keepdim=True), method="example"), each


@outside_inference_mode
def best_case_weights(model: Model, images: Any, *, source: str, target: str | Unit, **options: Any) -> ExpandedWeights:
    """For every source and offset the largest gradient (by size, sign kept) over the images.

    Takes the arguments of `example_weights`. What never cancels: a source that matters on any image shows.
    """
    frame, each = example_weights(model, images, source=source, target=target, **options)
    strongest = each.abs().argmax(dim=0, keepdim=True)
    return replace(frame, kernels=each.gather(0, strongest), method="best case")
