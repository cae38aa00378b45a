"""The part of a network between a source layer and some units, run on its own.

Attribution, tracing and scoring need the same thing many times: the responses of some units for given activations of
the source layer. With a graph only the operations in between run, and of the last convolution only the channels of
these units: to trace one of 500 channels costs a 500th of that layer. Without one the whole network runs with the
source layer's output replaced.

The trap is a side input: a value that reaches the target without going through the source (a skip connection, another
branch). It does not depend on the source's activations, but on the image, so it is computed once per batch
(`Segment.context`) and fed to every run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from circuits.errors import GraphError
from circuits.network.address import Unit
from circuits.network.graph import Graph
from circuits.network.hooks import EditFunction, check_images, editing, forward, graph_edits, read
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.operations import MAXIMUM_FUNCTIONS, Pair, pair, shape_of, tap_positions, weight_of
from circuits.network.responses import read_directions, respond

LayerEdits = Mapping[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class _Part:
    """Some channels of one node: computed from `node`, which is a convolution's input when `conv` is set."""

    node: fx.Node
    conv: nn.Conv2d | None
    channels: list[int]
    slots: list[int]
    rectified: bool

    def take(self, value: Tensor) -> Tensor:
        if self.conv is None:
            out = value[:, self.channels]
        else:
            c = self.conv
            bias = None if c.bias is None else c.bias[self.channels]
            out = F.conv2d(value, weight_of(c)[self.channels], bias, c.stride, c.padding, c.dilation)
        return self.rectify(out)

    def take_by_taps(self, value: Tensor) -> Tensor:
        """`take`, to rounding: a convolution to a few channels as one product for all taps, whose maps are shifted.

        Libraries compute 8 or 16 output channels where one is asked for; the taps fill them.
        """
        c = self.conv
        if c is None or not isinstance(c.padding, tuple) or c.kernel_size == (1, 1):
            return self.take(value)
        weight, size = weight_of(c)[self.channels], (value.shape[2], value.shape[3])
        count, sources, kh, kw = weight.shape
        # a product of matrices takes a quarter of the time of a 1x1 convolution of many images to so few channels
        taps = torch.matmul(weight.permute(0, 2, 3, 1).reshape(-1, sources), value.flatten(2))
        taps = taps.view(len(value), count, kh, kw, *size)
        steps = [pair(v) for v in (c.padding, c.stride, c.dilation)]
        (rows, height), (columns, width) = (
            tap_positions(size[a], k, steps[0][a], steps[1][a], steps[2][a]) for a, k in ((0, kh), (1, kw))
        )
        out = torch.zeros(len(value), count, height, width, dtype=value.dtype, device=value.device)
        for i, (y, from_y) in enumerate(rows):
            for j, (x, from_x) in enumerate(columns):
                out[:, :, y, x] += taps[:, :, i, j, from_y, from_x]
        bias = 0.0 if c.bias is None else c.bias[self.channels].view(1, -1, 1, 1)
        return self.rectify(out + bias)

    def rectify(self, out: Tensor) -> Tensor:
        return torch.relu(out) if self.rectified else out


def _narrow(graph: Graph, node: fx.Node, channels: Sequence[int], begin: fx.Node) -> list[_Part]:
    """The least that has to run for some channels of a node: back through ReLU and concatenation to the conv."""
    # A unit needs one row of the weights of its convolution. So the graph runs up to the input of that convolution, and
    # `_Part.take` computes the channels that were asked for only.
    rectified = False
    while node is not begin and graph.ops[node].kind == "relu" and _is_plain_relu(graph, node):
        node, rectified = graph.ops[node].inputs[0], True
    op = graph.ops[node]
    if node is begin:
        return [_Part(node, None, list(channels), list(range(len(channels))), rectified)]
    if op.kind == "cat":
        return _narrow_cat(graph, op.inputs, channels, begin, rectified)
    if op.kind == "conv" and isinstance(op.module, nn.Conv2d) and op.module.groups == 1:
        graph.check_module(node)
        return [_Part(op.inputs[0], op.module, list(channels), list(range(len(channels))), rectified)]
    return [_Part(node, None, list(channels), list(range(len(channels))), rectified)]


def _narrow_cat(
    graph: Graph, inputs: tuple[fx.Node, ...], channels: Sequence[int], begin: fx.Node, rectified: bool
) -> list[_Part]:
    parts, start = [], 0
    for i in inputs:
        width = (shape_of(i) or (0, 0))[1]
        # (place in the list that was asked for, channel of the branch) of the channels that lie in this branch
        mine = [(p, c - start) for p, c in enumerate(channels) if start <= c < start + width]
        if mine:
            for part in _narrow(graph, i, [c for _, c in mine], begin):
                slots = [mine[p][0] for p in part.slots]
                parts.append(_Part(part.node, part.conv, part.channels, slots, part.rectified or rectified))
        start += width
    return parts


def then(first: EditFunction, second: EditFunction) -> EditFunction:
    """Two edits of a layer, one after the other."""
    return lambda acts: second(first(acts))


def _is_plain_relu(graph: Graph, node: fx.Node) -> bool:
    module = graph.ops[node].module
    if module is not None:
        return isinstance(module, nn.ReLU)
    return node.target in (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")


@dataclass(frozen=True)
class Reader:
    """A convolution that reads the channels of a segment's start, as they are or after pools and ReLUs.

    Attributes:
        reads: the node that it reads.
        conv: the convolution; channels: those of its output that the segment needs.
        node: its own node; None where it is the last step of the segment, computed for the target's channels alone.
    """

    reads: fx.Node
    conv: nn.Conv2d
    channels: list[int]
    node: fx.Node | None

    def kernels(self) -> Tensor:
        """`(channels, sources, kh, kw)`."""
        return weight_of(self.conv)[self.channels]

    def convolve(self, acts: Tensor, kernels: Tensor, *, groups: int = 1) -> Tensor:
        """Its convolution with other kernels, without the bias."""
        c = self.conv
        return F.conv2d(acts, kernels, None, c.stride, c.padding, c.dilation, groups)

    def bias(self) -> Tensor | float:
        """Its bias, to be added to outputs `(..., channels, h, w)`."""
        return 0.0 if self.conv.bias is None else self.conv.bias[self.channels].view(-1, 1, 1)


class Segment:
    """From the activations of layer `start` to the responses of units of one later layer.

    Attributes:
        start: the layer that is fed.
        units: the targets, all of one layer.
        pre: whether responses are read before the target's own ReLU (where the model has a graph).
    """

    def __init__(self, model: Model, start: str, units: Sequence[Unit] | Unit, *, pre: bool = False) -> None:
        self.model, self.start = model, start
        self.units = [units] if isinstance(units, Unit) else list(units)
        self.layer = self.units[0].layer
        self._graph = model.graph
        plain = self.units[0].basis is None
        self.pre = pre and plain and self._graph is not None
        if self._graph is not None:
            self._begin = model.node(start)
            self._end = model.node(self.layer)
            self._axes = model.layers[start].axes
            if self.pre:
                self._end = self._graph.before_relu(self._end)
            channels = [u.index or 0 for u in self.units]
            # a narrowed convolution skips nodes that an active edit may want to change
            plain = plain and not model.node_edits and model.layers[self.layer].axes.plain
            self._parts = _narrow(self._graph, self._end, channels, self._begin) if plain else []
            self.fetch = [p.node for p in self._parts] or [self._end]
            sides = [s for end in self.fetch if end is not self._begin for s in self._side_inputs(end)]
            # the start itself where it holds more tokens than those that are fed
            self._side = list(dict.fromkeys([*sides, self._begin] if self._axes.partial else sides))

    @property
    def bypassed(self) -> bool:
        """Whether the targets also depend on something that does not go through `start`."""
        return self._graph is None or bool(self._side)

    @property
    def reads(self) -> list[tuple[fx.Node, nn.Conv2d | None]]:
        """Nodes that the targets are computed from, and the convolution of which only their channels run in between."""
        return [(part.node, part.conv) for part in self._parts] or [(self._end, None)]

    def _side_inputs(self, end: fx.Node) -> list[fx.Node]:
        assert self._graph is not None
        try:
            return self._graph.side_inputs(self._begin, end)
        except GraphError:
            return [end]  # a branch that does not come from the source at all: a constant

    def context(self, images: Tensor) -> Any:
        """What `respond` needs besides the activations of `start`; costs nothing when all paths go through it."""
        if self._graph is None:
            return images
        if not self._side:
            return {}
        x = self.model.input.normalize(check_images(self.model, images))
        with self.model.lock:
            return self._graph.run({self._graph.input: x}, self._side, edits=graph_edits(self.model))

    def begin(self, images: Tensor) -> tuple[Tensor, Any]:
        """Activations of `start` `(N, S, h, w)` on images, and the context that `respond` needs with them."""
        if self._graph is None:
            return read(self.model, images, [self.model.layers[self.start]])[self.start], images
        x = self.model.input.normalize(check_images(self.model, images))
        with self.model.lock:
            values = self._graph.run({self._graph.input: x}, [self._begin, *self._side], edits=graph_edits(self.model))
        acts = values[self._begin] if self._axes.partial else values.pop(self._begin)
        return self._axes.maps(acts), values

    def respond(self, acts: Tensor, context: Any, edits: LayerEdits | None = None) -> Tensor:
        """Response maps `(N, units, h, w)` of the targets when `start` holds `acts` `(N, S, h, w)`.

        Args:
            acts: activations of `start`.
            context: as `begin` gave it.
            edits: layer name -> function of its activations, for layers on the way.
        """
        edits = edits or {}
        if self._graph is None:
            functions = [(self.start, lambda old: acts.view_as(old).clone()), *edits.items()]
            with editing(self.model, functions):
                layer = self.model.layers[self.layer]
                out = read(self.model, context, [layer])[layer.name]
            return torch.stack([respond(self.model, u, out) for u in self.units], dim=1)
        responses: Tensor = self.collect(self.run(acts, context, edits))
        return responses

    def picked(self, context: Any, rows: Sequence[int], n: int) -> Any:
        """The context of other images: those with the numbers `rows` among its `n`; one may occur several times.

        Raises:
            GraphError: which part of a side input is which image's is not known.
        """
        if isinstance(context, Tensor):
            return context[rows]
        constants = set() if self._graph is None else self._graph.constants
        return {node: v if node in constants else _of_images(node, v, list(rows), n) for node, v in context.items()}

    def run(self, acts: Tensor, context: Any, edits: LayerEdits) -> dict[fx.Node, Tensor]:
        """What the last convolutions read: the same for all targets with the same `fetch`; see `collect`."""
        assert self._graph is not None
        feeds = {**context, self._begin: self._fed(acts, context)}
        with self.model.lock:  # a graph runs once at a time, with the edits of whoever runs it
            # what is fed has its edits already
            by_node = {n: f for n, f in graph_edits(self.model).items() if n not in feeds}
            for name, function in edits.items():
                node, function = self.model.node(name), self.model.layers[name].axes.edited(function)
                by_node[node] = then(by_node[node], function) if node in by_node else function
            return self._graph.run(feeds, self.fetch, edits=by_node)

    def _fed(self, acts: Tensor, context: Any) -> Tensor:
        """Activations of `start` as the network lays them out."""
        shape = shape_of(self._begin)
        assert shape is not None
        like = context[self._begin] if self._axes.partial else acts.new_zeros(()).expand(shape)
        return self._axes.write(acts, like)

    def collect(self, values: dict[fx.Node, Tensor], last: Sequence[Tensor] = (), by_taps: bool = False) -> Any:
        """The targets from fetched nodes; `last` are the outputs of parts whose convolution ran already, in order."""
        if not self._parts:
            out = self.model.layers[self.layer].axes.maps(values[self._end])
            return torch.stack([respond(self.model, u, out) for u in self.units], dim=1)
        pieces, order, ready = [], [], list(last)
        for part in self._parts:
            if part.node not in values:
                piece = part.rectify(ready.pop(0))
            else:
                piece = part.take_by_taps(values[part.node]) if by_taps else part.take(values[part.node])
            pieces.append(as_maps(piece))
            order += part.slots
        # parts come branch by branch; the argsort of their places restores the order that was asked for
        joined = torch.cat(pieces, dim=1)
        if order == list(range(len(order))):
            return joined
        return joined[:, torch.tensor(order).argsort()]

    def crosses(self, layer: str, without: Sequence[fx.Node] = ()) -> bool:
        """Whether a run computes a layer, or reads the start, with the nodes `without` fed; without a graph, true."""
        if self._graph is None:
            return True
        return self.model.node(layer) in self._graph.ancestors(self.fetch, stop=[self._begin, *without])

    def readers(self) -> list[Reader] | None:
        """The convolutions through which the start's channels act, all of them; None where something else reads one.

        Also None without a graph, under edits, and where something bypasses the start.
        """
        graph = self._graph
        if graph is None or self.bypassed or self.model.node_edits or not self._axes.plain:
            return None
        channels = {self._begin}  # the nodes that hold the channels of the start, each apart from the others
        readers = []
        needed = graph.ancestors(self.fetch, stop=[self._begin])
        for n in (n for n in graph.nodes if n in needed and n is not self._begin):
            op = graph.ops[n]
            reads = [i for i in op.inputs if i in channels]
            if not reads:
                continue
            if op.by_channel and op.kind != "lrn":
                channels.add(n)
            elif op.kind == "conv" and isinstance(op.module, nn.Conv2d) and op.module.groups == 1:
                readers.append(Reader(reads[0], op.module, list(range(op.module.out_channels)), n))
            else:
                return None
        for part in self._parts:
            if part.node in channels and part.conv is None:
                return None
            if part.node in channels and part.conv is not None:
                readers.append(Reader(part.node, part.conv, part.channels, None))
        return readers if self._parts or not channels & set(self.fetch) else None

    def values(self, acts: Tensor, nodes: Sequence[fx.Node], edits: LayerEdits | None = None) -> dict[fx.Node, Tensor]:
        """Values of nodes that only depend on `start`, when it holds `acts`."""
        assert self._graph is not None
        axes = {name: self.model.layers[name].axes for name in edits or {}}
        by_node = {self.model.node(name): axes[name].edited(function) for name, function in (edits or {}).items()}
        with self.model.lock:
            return self._graph.run({self._begin: self._fed(acts, {})}, nodes, edits=by_node)

    def respond_after(self, outputs: Sequence[tuple[Reader, Tensor]]) -> Any:
        """Response of the targets when the convolutions that read the start give `outputs`, of all `readers`."""
        assert self._graph is not None
        last = [out for reader, out in outputs if reader.node is None]
        feeds = {reader.node: out for reader, out in outputs if reader.node is not None}
        reads = {reader.reads for reader, _ in outputs if reader.node is None}
        with self.model.lock:
            values = self._graph.run(feeds, [n for n in self.fetch if n not in reads or n in feeds])
        return self.collect(values, last, by_taps=True)

    def bias(self, shape: tuple[int, int]) -> Tensor | None:
        """What the biases alone give the targets `(units, h, w)`: the linearized segment on a zero map of `shape`.

        None where the segment has no linear form, responses are read after a ReLU, or latents are not read along rows.
        """
        if self._graph is None or not (self.pre or self._graph.before_relu(self._end) is self._end):
            return None
        # a linear segment is A x + b, and its value at x = 0 is b: what the biases add up to on the way
        like = next(self.model.module.parameters(), torch.zeros(1))
        width = self.model.layers[self.start].channels
        zero = like.new_zeros((1, width, *shape))
        if self._axes.partial:
            return None  # the other tokens are not a part of the source
        fed = self._fed(zero, {})
        try:
            with self.model.lock:
                out = self._graph.run({self._begin: fed}, [self._end], linear=True)[self._end]
        except (GraphError, RuntimeError):
            return None
        out = self.model.layers[self.layer].axes.maps(out).detach()
        indices = [u.index or 0 for u in self.units]
        try:
            directions = read_directions(self.model, self.layer, self.units[0].basis, indices)
        except GraphError:
            return None
        if directions is not None:
            return torch.einsum("tc,chw->thw", directions.to(out), out[0])
        return out[0, indices]


class OutputSegment(Segment):
    """From the activations of layer `start` to the network's whole output, whatever its form."""

    def __init__(self, model: Model, start: str) -> None:
        self.model, self.start, self._graph = model, start, model.graph
        if self._graph is not None:
            self._begin, self._axes = model.node(start), model.layers[start].axes
            self._output = next(n for n in self._graph.nodes if n.op == "output")
            self._parts: list[_Part] = []
            self.fetch = list(self._output.all_input_nodes)
            sides = [s for end in self.fetch for s in self._side_inputs(end)]
            self._side = list(dict.fromkeys([*sides, self._begin] if self._axes.partial else sides))

    def respond(self, acts: Tensor, context: Any, edits: LayerEdits | None = None) -> Any:
        """The network's output when `start` holds `acts` `(N, S, h, w)`; see `Segment.respond`."""
        if self._graph is None:
            with editing(self.model, [(self.start, lambda old: acts.view_as(old).clone()), *(edits or {}).items()]):
                return forward(self.model, context)
        return self.collect(self.run(acts, context, edits or {}))

    def collect(self, values: dict[fx.Node, Tensor], last: Sequence[Tensor] = (), by_taps: bool = False) -> Any:
        return fx.node.map_arg(self._output.args[0], lambda n: values[n])


MAX_POOLS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)


def channel_pools(model: Model, layer: str, target: str | None = None) -> dict[str, slice]:
    """Max pools over the channels of `layer` as they are, in order: layer name -> which of its channels those are.

    The pool of a channel's mean is not the mean of its pool: it is smaller, and often smaller than anything that the
    pooled channel ever is. So a channel that is held at its mean is held at the mean of its pooled map after these.

    Args:
        model: the model.
        layer: a whole layer.
        target: only those on the way to this layer.

    Raises:
        GraphError: a maximum is taken over these channels in a form, or behind an operation, that does not say which
            channels are which.
    """
    if model.graph is None:
        return _probed_pools(model, layer, target)
    source = model.node(layer)
    pools, others = model.graph.max_pools(source)
    if target is not None and (pools or others):
        path = set(model.graph.between(source, model.node(target)))
        pools, others = {n: at for n, at in pools.items() if n in path}, [n for n in others if n in path]
    if others:
        raise _no_mean_behind(model, layer, others[0].name)
    width = model.layers[layer].channels
    return {model.name_of(n): slice(at, at + width) for n, at in pools.items()}


def _no_mean_behind(model: Model, layer: str, maximum: str) -> GraphError:
    return GraphError(
        f"{model.name}: {maximum!r} takes a maximum over the channels of {layer}, in a form or behind an operation "
        "that does not say which channels are which, so their mean behind it is not known: take units of the layer "
        "that it reads, write it as nn.AdaptiveMaxPool2d or amax((2, 3)), or use baseline='resample' or 'zero'"
    )


@torch.no_grad()
def _probed_pools(model: Model, layer: str, target: str | None) -> dict[str, slice]:
    """Without a graph: the pool modules of which just one channel moves when one channel of the layer does.

    Functions cannot be held there: one of which just a channel moves is refused.
    """
    names = list(model.layers)
    end = len(names) if target is None else names.index(target) + 1
    between = [model.layers[n] for n in names[names.index(layer) + 1 : end]]
    pools = [at for at in between if at.path is not None and isinstance(model.module.get_submodule(at.path), MAX_POOLS)]
    image = torch.rand((1, *model.input.shape), generator=torch.Generator().manual_seed(0))

    def run() -> tuple[dict[str, Tensor], list[tuple[str, Tensor]]]:
        """What the pools give, and functions that take a maximum on the way."""
        with _Maxima() as maxima:
            if target is None:
                forward(model, image)
            else:
                read(model, image, between[-1:])
        values = read(model, image, pools) if pools else {}
        return values, maxima.less(values)

    clean, called = run()
    if not pools and not called:
        return {}
    width = model.layers[layer].channels
    aligned, starts = dict.fromkeys(clean, True), dict[str, int]()
    for channel in sorted({0, width // 2, width - 1}):

        def move(acts: Tensor, channel: int = channel) -> Tensor:
            moved = acts.clone()
            moved[:, channel] += 1 + acts.abs().amax()
            return moved

        with editing(model, [(layer, move)]):
            after, again = run()
        for (name, before), (_, later) in zip(called, again, strict=False):
            if before.shape != later.shape or len(_changed(before, later)) == 1:
                raise _no_mean_behind(model, layer, name)
        for name, values in clean.items():
            changed = _changed(values, after[name])
            aligned[name] = aligned[name] and len(changed) == 1
            if len(changed) == 1 and starts.setdefault(name, changed[0] - channel) != changed[0] - channel:
                raise _no_mean_behind(model, layer, name)
    return {name: slice(starts[name], starts[name] + width) for name, good in aligned.items() if good}


def _changed(before: Tensor, after: Tensor) -> list[int]:
    """Channels in which two tensors `(N, C, ...)` differ."""
    differ = (before != after).reshape(*before.shape[:2], -1).any(dim=2).any(dim=0)
    return [int(c) for c in differ.nonzero().flatten()]


class _Maxima(TorchFunctionMode):
    """Records what functions that take a maximum give, also those inside of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[tuple[str, Tensor]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        values = out[0] if isinstance(out, tuple) and out else out
        if function in MAXIMUM_FUNCTIONS and isinstance(values, Tensor) and values.ndim > 1:
            self.outputs.append((function.__name__, values.detach().clone()))
        return out

    def less(self, modules: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """The outputs that are not those of modules."""
        own, outputs = list(modules.values()), []
        for name, values in self.outputs:
            same = next((i for i, v in enumerate(own) if v.shape == values.shape and torch.equal(v, values)), None)
            if same is None:
                outputs.append((name, values))
            else:
                own.pop(same)
        return outputs


def ablation_drops(
    segment: Segment,
    acts: Tensor,
    context: Any,
    positions: Sequence[Pair],
    before: Tensor,
    means: Tensor,
    pooled: Mapping[str, tuple[Tensor, slice]] | None = None,
    chunk: int = 512,
) -> Tensor:
    """Drop of the target at one position per image when each source channel is set to its mean, `(N, S)`.

    Args:
        segment: from the sources to the target; acts, context: as its `begin` gave them.
        positions: where the target is read on each image; before: its value there, `(N,)`.
        means: value of each source `(S,)`.
        pooled: name of a max pool over the sources (`channel_pools`) -> its own value for each `(S,)`, and which of its
            channels these are.
        chunk: images times sources in one run.
    """
    n, channels = acts.shape[:2]
    # one forward pass for several channels: each has a copy of all images in which it alone is set to its mean
    per = max(1, chunk // n)
    drops = []
    with torch.no_grad():
        for start in range(0, channels, per):
            some = list(range(start, min(start + per, channels)))
            many = _set_each(acts.repeat(len(some), 1, 1, 1), some, means)
            edits = {
                name: lambda maps, some=some, values=values, at=at: _set_each(maps.clone(), some, values, at.start)
                for name, (values, at) in (pooled or {}).items()
            }
            out = segment.respond(many, segment.picked(context, list(range(n)) * len(some), n), edits)[:, 0]
            for k in range(len(some)):
                rows = out[k * n : (k + 1) * n]
                drops.append(before - torch.stack([rows[i, y, x] for i, (y, x) in enumerate(positions)]))
    return torch.stack(drops, dim=1)


def _set_each(maps: Tensor, channels: Sequence[int], values: Tensor, start: int = 0) -> Tensor:
    """Sets the k-th of `channels`, counted from `start`, in the k-th part of a batch, in place."""
    n = len(maps) // len(channels)
    for k, c in enumerate(channels):
        maps[k * n : (k + 1) * n, start + c] = values[c]
    return maps


def _of_images(node: fx.Node, value: Any, rows: list[int], n: int) -> Any:
    """The value that a node has on the images `rows`, from the one it has on all `n`."""
    if not isinstance(value, Tensor):
        return _size_of_images(node, value, node.meta.get("value"), rows, n)
    labels, shape = node.meta.get("labels"), shape_of(node)
    if isinstance(labels, tuple):
        for axis, atoms in enumerate(labels):
            kinds = [atom.root.kind for atom in atoms]
            sizes = [n if atom.root.kind == "image" else atom.size for atom in atoms]
            if "image" in kinds and math.prod(sizes) == value.shape[axis]:  # windows of all images are one axis
                parts = value.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
                images = torch.tensor(rows, device=value.device)
                return parts.index_select(axis + kinds.index("image"), images).flatten(axis, axis + len(sizes) - 1)
    elif shape is not None and shape[0] == 1 and len(value) == n:
        return value[rows]
    raise GraphError(f"{node.name} of shape {tuple(value.shape)} bypasses the source: which images it is of is unknown")


def _size_of_images(node: fx.Node, value: Any, of_one: Any, rows: list[int], n: int) -> Any:
    """A size as it is on other images, from what it is on `n` and was on one."""
    if isinstance(value, (tuple, list)) and isinstance(of_one, (tuple, list)) and len(value) == len(of_one):
        return type(value)(_size_of_images(node, v, o, rows, n) for v, o in zip(value, of_one, strict=True))
    if value == of_one and not (n == 1 and _is_batch_size(node)):
        return value
    if isinstance(value, int) and isinstance(of_one, int) and value == of_one * n:
        return of_one * len(rows)
    raise GraphError(f"{node.name} bypasses the source and depends on the images: what it is on others is unknown")


def _is_batch_size(node: fx.Node) -> bool:
    return node.args[1:] == (0,) and (node.target in (operator.getitem, "size"))
