"""Exact composition of linear maps: the kernel from one layer to another, without running the network.

A kernel is carried backwards from the target to the source, operation by operation. With target(p) = sum_m,u K[m, u]
middle(p s + o + u) and middle(q) = sum_c,v W[m, c, v] source(q s' - pad + v), substitution gives

    target(p) = sum_c,w (K * W)[c, w] source(p s s' + (o s' - pad) + w),
    (K * W)[c, w] = sum_m,u K[m, u] W[m, c, w - u s']

so going back through a convolution is a transposed convolution (stride s') of the kernel itself; strides multiply, and
the offset o becomes o s' - pad. Grouped, depthwise, strided and dilated convolutions, folded batch norm, pools, sums
and concatenations all compose exactly, and the usual case (a 1x1 bottleneck before a kxk convolution) is one matrix
product. ReLUs and local normalization are skipped, max pools average: this is the linearized network of the expanded
weights in *Visualizing Weights* (Voss et al., Distill 2021).

The traps: a whole layer as target starts as the identity, which is kept as a selection of channels and never written
out (512 x 512 zeros with a diagonal); branches of a concatenation reach the source with kernels of different size and
offset, which `_sum` aligns on a common window.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from circuits.errors import GraphError
from circuits.network.graph import Graph
from circuits.network.model import Model
from circuits.network.operations import Op, Pair, conv_padding, pair, shape_of, title
from circuits.network.subnetwork import Segment

Span = tuple[Pair, Pair, Pair]
"""`(offset, size, stride)` of what a position reads."""
POINT: Span = ((0, 0), (1, 1), (1, 1))
"""Of a position itself."""


@dataclass(frozen=True)
class Kernel:
    """Weights from one node to some targets.

    Target position `p` reads the node at `p * stride + offset + (i, j)` with weight `values[:, :, i, j]`.

    Attributes:
        rows: which targets `(R,)`; the weights to all others are zero.
        values: `(R, channels, kh, kw)`, or None while it is still the identity selection `channels`.
        channels: `(R,)` the channel that each row selects, when `values` is None.
        offset, stride: see above; stride (0, 0) when the target is one vector for the whole image.
        width: number of channels of the node.
    """

    rows: Tensor
    values: Tensor | None
    channels: Tensor | None
    offset: Pair
    stride: Pair
    width: int

    def dense(self, like: Tensor) -> Tensor:
        """`values`, written out where it was still a selection."""
        if self.values is not None:
            return self.values
        assert self.channels is not None
        values = like.new_zeros((len(self.rows), self.width, 1, 1))
        values[torch.arange(len(self.rows)), self.channels] = 1
        return values


def compose(
    graph: Graph,
    source: fx.Node,
    target: fx.Node,
    directions: Tensor | None,
    channels: Tensor,
    *,
    within: Collection[fx.Node] | None = None,
) -> Kernel:
    """The kernel from `source` to units of `target` in the linearized network.

    Args:
        graph: the network.
        source, target: nodes of it.
        directions: `(T, C)` directions read at the target, or None for single channels.
        channels: `(T,)` channels read at the target when `directions` is None.
        within: the nodes that a path may cross, both ends included (default: all).

    Raises:
        GraphError: no path, or an operation on it that has no exact linear form.
    """
    path = graph.between(source, target)
    if within is not None:
        reached = {source}
        for n in path[1:]:
            if n in within and any(i in reached for i in graph.ops[n].inputs):
                reached.add(n)
        path = [n for n in path if n in reached]
    shape = shape_of(target)
    assert shape is not None
    stride = (1, 1) if len(shape) == 4 else (0, 0)
    count = len(channels) if directions is None else len(directions)
    values = None if directions is None else directions[:, :, None, None]
    first = Kernel(torch.arange(count), values, channels if directions is None else None, (0, 0), stride, shape[1])
    like = next(graph.module.parameters(), torch.zeros(1)).detach()
    arriving: dict[fx.Node, list[Kernel]] = {n: [] for n in path}
    arriving[target].append(first)
    inside = set(path)
    # The chain rule, from the target back: nodes come in reverse topological order, so that when one is reached all
    # that read it have passed their kernels on, and the sum over them is the sum over paths (Voss et al. 2021).
    for n in reversed(path):
        if n is source:
            break
        kernel = _merge(arriving.pop(n), like)
        if kernel is None:
            continue
        graph.check_module(n)
        for node, part in _backward(graph, n, kernel, inside, like):
            arriving[node].append(part)
    merged = _merge(arriving[source], like)
    if merged is None:
        raise GraphError("the weights between the two layers are empty")
    return _spread(merged, count, like)


def _backward(
    graph: Graph, node: fx.Node, k: Kernel, inside: set[fx.Node], like: Tensor
) -> list[tuple[fx.Node, Kernel]]:
    op = graph.ops[node]
    if op.kind == "cat":
        return _through_cat(op, k, inside)
    sources = [i for i in op.inputs if i in inside]
    if op.kind == "add":
        # a sum passes the same kernel on to each of its terms
        return [(i, k) for i in sources]
    if op.skipped:
        return [(sources[0], k)]
    before = shape_of(sources[0]) if sources else None
    if before is None:  # several tensors at once (chunk, split), or a number
        raise GraphError(f"the path passes through {title(node)!r}, which has no exact linear form")
    match op.kind:
        case "conv":
            return [(sources[0], _through_conv(op.params, graph.weight(node), k, like))]
        case "linear":
            weight = graph.weight(node)[:, :, None, None]
            return [(sources[0], _through_weight(weight, k, (1, 1), (0, 0), like))]
        case "affine":
            # batch norm in evaluation mode is y = scale x + shift; a shift adds nothing to any weight
            return [(sources[0], _replace(k, k.dense(like) * graph.scale(node)[None, :, None, None]))]
        case "maxpool" | "avgpool":
            return [(sources[0], _through_pool(op, k, like))]
        case "pad":
            left, _, top, _ = op.params["padding"]
            return [(sources[0], _replace(k, k.values, offset=(k.offset[0] - top, k.offset[1] - left)))]
        case "flatten" if len(before) == 4:
            # weights to a flattened map are one kernel as large as the map, at one position: stride 0
            values = k.dense(like).reshape(len(k.rows), *before[1:])
            return [(sources[0], Kernel(k.rows, values, None, (0, 0), (0, 0), before[1]))]
        case "flatten":
            return [(sources[0], k)]
        case "globalpool":
            # a mean over h w positions gives each of them the weight 1 / (h w)
            values = k.dense(like)[:, :, :1, :1].expand(-1, -1, *before[2:]) / (before[2] * before[3])
            return [(sources[0], Kernel(k.rows, values, None, (0, 0), (0, 0), before[1]))]
    raise GraphError(f"the path passes through {title(node)!r}, which has no exact linear form")


def _replace(k: Kernel, values: Tensor | None, offset: Pair | None = None) -> Kernel:
    channels = k.channels if values is None else None
    return Kernel(k.rows, values, channels, k.offset if offset is None else offset, k.stride, k.width)


def _through_cat(op: Op, k: Kernel, inside: set[fx.Node]) -> list[tuple[fx.Node, Kernel]]:
    parts, start = [], 0
    for i in op.inputs:
        shape = shape_of(i)
        assert shape is not None
        stop = start + shape[1]
        if i in inside:
            if k.values is None:
                assert k.channels is not None
                # a selection of channels goes to the branch that holds each: no zeros are written for the others
                mine = (k.channels >= start) & (k.channels < stop)
                if mine.any():
                    parts.append(
                        (i, Kernel(k.rows[mine], None, k.channels[mine] - start, k.offset, k.stride, shape[1]))
                    )
            else:
                parts.append((i, Kernel(k.rows, k.values[:, start:stop], None, k.offset, k.stride, shape[1])))
        start = stop
    return parts


def _through_conv(params: dict[str, Any], weight: Tensor, k: Kernel, like: Tensor) -> Kernel:
    # The layer is y[q] = sum_j w[j] x[q s + d j - pad]. A kernel that reads y at p S + o + i so reads x at
    # p (S s) + (o s - pad) + (i s + d j): the transposed convolution of the kernel by w (the gradient of the layer),
    # with the offset and the stride of `_moved`.
    stride, dilation, groups, before = (params[name] for name in ("stride", "dilation", "groups", "padding"))
    if groups == 1 and dilation == (1, 1):
        return _through_weight(weight, k, stride, before, like)
    values = F.conv_transpose2d(k.dense(like), weight, stride=stride, dilation=dilation, groups=groups)
    return _moved(k, values, stride, before, weight.shape[1] * groups)


def _through_weight(weight: Tensor, k: Kernel, stride: Pair, padding: Pair, like: Tensor) -> Kernel:
    if k.values is None:
        assert k.channels is not None
        # selected channels: their weights are the kernels, as they are (all of them in order without a copy)
        whole = len(k.channels) == len(weight) and bool((k.channels == torch.arange(len(weight))).all())
        values = weight if whole else weight[k.channels.to(weight.device)]
    elif weight.shape[2:] == (1, 1) and (stride == (1, 1) or k.values.shape[2:] == (1, 1)):
        # a 1x1 convolution mixes channels in the same way at every position: a product of matrices
        values = torch.einsum("tmyx,mi->tiyx", k.values, weight[:, :, 0, 0])
    elif k.values.shape[2:] == (1, 1):
        # a kernel of one position is a mixture of the kernels below
        values = torch.einsum("tm,miyx->tiyx", k.values[:, :, 0, 0], weight)
    else:
        values = F.conv_transpose2d(k.values, weight, stride=stride)
    return _moved(k, values, stride, padding, weight.shape[1])


def _through_pool(op: Op, k: Kernel, like: Tensor) -> Kernel:
    kernel, stride = op.params["kernel"], op.params["stride"]
    if op.params.get("dilation", (1, 1)) != (1, 1):
        raise GraphError("a dilated max pool has no average pool to stand in for it")
    divisor = op.params.get("divisor") or kernel[0] * kernel[1]
    values = k.dense(like)
    rows, channels = values.shape[:2]
    if values.shape[2:] == (1, 1):
        return _moved(k, (values / divisor).expand(-1, -1, *kernel), stride, op.params["padding"], k.width)
    # a max pool counts as the average pool of its window: which position wins depends on the image, their mean does not
    window = values.new_full((1, 1, *kernel), 1.0 / divisor)
    spread = F.conv_transpose2d(values.reshape(rows * channels, 1, *values.shape[2:]), window, stride=stride)
    return _moved(k, spread.view(rows, channels, *spread.shape[2:]), stride, op.params["padding"], k.width)


def _moved(k: Kernel, values: Tensor, stride: Pair, padding: Pair, width: int) -> Kernel:
    offset = (k.offset[0] * stride[0] - padding[0], k.offset[1] * stride[1] - padding[1])
    return Kernel(k.rows, values, None, offset, (k.stride[0] * stride[0], k.stride[1] * stride[1]), width)


def _merge(parts: list[Kernel], like: Tensor) -> Kernel | None:
    """Sum of kernels that reach the same node along different branches."""
    if len(parts) < 2:
        return parts[0] if parts else None
    if any(p.stride != parts[0].stride for p in parts):
        raise GraphError("branches of different stride meet; their kernels have no common grid")
    rows = torch.unique(torch.cat([p.rows for p in parts]))
    return _sum(parts, len(rows), [torch.searchsorted(rows, p.rows) for p in parts], rows, like)


def _spread(k: Kernel, count: int, like: Tensor) -> Kernel:
    """The kernel with a row for every target, zero where there was none."""
    rows = torch.arange(count)
    return _sum([k], count, [k.rows], rows, like) if len(k.rows) < count else _replace(k, k.dense(like))


def _sum(parts: list[Kernel], count: int, indices: list[Tensor], rows: Tensor, like: Tensor) -> Kernel:
    dense = [p.dense(like) for p in parts]
    # kernels of branches differ in size and offset (1x1 beside 5x5): they are summed in the frame that holds them all
    top, left = min(p.offset[0] for p in parts), min(p.offset[1] for p in parts)
    bottom = max(p.offset[0] + d.shape[2] for p, d in zip(parts, dense, strict=True))
    right = max(p.offset[1] + d.shape[3] for p, d in zip(parts, dense, strict=True))
    total = dense[0].new_zeros((count, parts[0].width, bottom - top, right - left))
    separate = sum(len(index) for index in indices) == count
    for p, d, index in zip(parts, dense, indices, strict=True):
        y, x = p.offset[0] - top, p.offset[1] - left
        first, last = int(index[0]), int(index[-1])
        # positions are distinct and ascending, so this is a plain indexed sum; a branch is one run of rows
        rows_of_part = slice(first, last + 1) if last - first + 1 == len(index) else index
        window = total[rows_of_part, :, y : y + d.shape[2], x : x + d.shape[3]]
        if isinstance(rows_of_part, slice) and separate:
            window.copy_(d)
        else:
            total[rows_of_part, :, y : y + d.shape[2], x : x + d.shape[3]] += d
    return Kernel(rows, total, None, (top, left), parts[0].stride, parts[0].width)


def support(graph: Graph, source: fx.Node, target: fx.Node, span: Span = POINT) -> Span:
    """`(offset, size, stride)` of what one target position reads at the source, without any weights.

    Args:
        graph, source, target: from where to where; span: of the target, instead of one of its positions.

    Raises:
        GraphError: as `compose`.
    """
    spans: dict[fx.Node, Span] = {}
    shape = shape_of(target)
    if shape is None or len(shape) != 4:
        raise GraphError("a vector reads the whole map")
    spans[target] = span
    path = graph.between(source, target)
    inside = set(path)
    for n in reversed(path):
        if n is source or n not in spans:
            continue
        for i in (i for i in graph.ops[n].inputs if i in inside):
            spans[i] = _join(spans.get(i), _span(graph.ops[n], n, spans[n]))
    return spans[source]


def _span(op: Op, node: fx.Node, span: Span) -> Span:
    if op.kind in ("cat", "add", "affine") or op.skipped:
        return span
    if op.kind == "pad":
        left, _, top, _ = op.params["padding"]
        return (span[0][0] - top, span[0][1] - left), span[1], span[2]
    if op.kind in ("conv", "maxpool", "avgpool"):
        kernel, s, p = op.params["kernel"], op.params["stride"], op.params["padding"]
        d = op.params.get("dilation", (1, 1))
    else:
        raise GraphError(f"the path passes through {title(node)!r}, which has no exact linear form")
    return _span_of_window(span, kernel, s, p, d)


def _span_of_window(span: Span, kernel: Pair, s: Pair, p: Pair, d: Pair) -> Span:
    offset, size, stride = span
    # n neighboring positions read (n - 1) s + d (k - 1) + 1 positions below (Araujo et al., Distill 2019)
    new_size = tuple((size[a] - 1) * s[a] + d[a] * (kernel[a] - 1) + 1 for a in range(2))
    new_offset = tuple(offset[a] * s[a] - p[a] for a in range(2))
    return (new_offset[0], new_offset[1]), (new_size[0], new_size[1]), (stride[0] * s[0], stride[1] * s[1])


def _join(a: Span | None, b: Span) -> Span:
    if a is None:
        return b
    low = (min(a[0][0], b[0][0]), min(a[0][1], b[0][1]))
    high = (max(a[0][0] + a[1][0], b[0][0] + b[1][0]), max(a[0][1] + a[1][1], b[0][1] + b[1][1]))
    return low, (high[0] - low[0], high[1] - low[1]), b[2]


@dataclass(frozen=True)
class SourceWindow:
    """The part of a source map that one position of some targets reads, of one size for all positions.

    It begins on the grid of the strides, and at the border of the map it is moved inwards: what the network pads there
    is padded here too. Elsewhere a run on the window alone pads what lies beyond, but no target reads that.

    Attributes:
        back: strides from the target position to where its window begins, away from the border.
        stride: see `Kernel`.
        shape: `(h, w)` of the map; size: of the window, smaller by whole strides.
    """

    back: Pair
    stride: Pair
    shape: Pair
    size: Pair

    def corner(self, position: Pair) -> Pair:
        """Where the window of a target position begins."""
        y, x = (
            min(max(0, at - self.back[a]) * self.stride[a], self.shape[a] - self.size[a])
            for a, at in enumerate(position)
        )
        return y, x

    def within(self, position: Pair) -> Pair:
        """A target position, counted from where its window begins."""
        y, x = self.corner(position)
        return position[0] - y // self.stride[0], position[1] - x // self.stride[1]

    def crops(
        self,
        maps: Tensor,
        positions: Sequence[Pair],
        stride: Pair = (1, 1),
        images: Sequence[int] | None = None,
    ) -> Tensor:
        """The windows of target positions on maps `(N, C, h, w)`.

        Args:
            maps: of the source, or of a layer between the two whose positions are `stride` of the source apart; of one
                position, what is the same everywhere.
            positions: of the target.
            stride: divides the window's own.
            images: of which image each position is (default: one an image, in order).
        """
        rows = range(len(positions)) if images is None else images
        if len(maps) == 1:
            rows = [0] * len(positions)
        if maps.shape[2:] == (1, 1) != self.shape:
            return maps if len(maps) == 1 else maps[list(rows)]
        h, w = (maps.shape[2 + a] - (self.shape[a] - self.size[a]) // stride[a] for a in range(2))
        corners = [(y // stride[0], x // stride[1]) for y, x in map(self.corner, positions)]
        return torch.stack([maps[i, :, y : y + h, x : x + w] for i, (y, x) in zip(rows, corners, strict=True)])


def source_window(segment: Segment) -> SourceWindow | None:
    """What a position of a segment's targets reads of its start; None where that is not known, or is the whole map."""
    model, graph = segment.model, segment.model.graph
    layer = model.layers[segment.start]
    if graph is None or layer.size is None or not layer.axes.plain or model.node_edits or segment.bypassed:
        return None
    begin, span = model.node(segment.start), None
    try:
        for node, conv in segment.reads:
            last = POINT
            if conv is not None:
                kernel, s, d = (pair(v) for v in (conv.kernel_size, conv.stride, conv.dilation))
                before, _ = conv_padding(conv.padding, conv.kernel_size, conv.dilation)
                last = _span_of_window(POINT, kernel, s, before, d)
            here = last if node is begin else support(graph, begin, node, last)
            if (span is not None and span[2] != here[2]) or any(
                _differs_by_position(graph, n) for n in (() if node is begin else graph.between(begin, node))
            ):
                return None
            span = _join(span, here)
    except GraphError:
        return None
    assert span is not None
    offset, reads, stride = span
    # strides from the target position back to the window, which begins on their grid, and not after the position
    back = [max(0, -(offset[a] // stride[a])) for a in range(2)]
    needed = [back[a] * stride[a] + offset[a] + reads[a] for a in range(2)]
    cut = [max(0, layer.size[a] - needed[a]) // stride[a] * stride[a] for a in range(2)]
    if cut == [0, 0]:
        return None
    size = layer.size[0] - cut[0], layer.size[1] - cut[1]
    return SourceWindow((back[0], back[1]), stride, layer.size, size)


def stride_between(model: Model, source: str, target: str) -> Pair:
    """How many positions of a layer lie between two of a later one.

    Raises:
        GraphError: see `compose`.
    """
    graph = model.graph
    if graph is None:
        raise GraphError("torch.fx cannot trace this network: its strides are not known")
    return support(graph, model.node(source), model.node(target))[2]


def _differs_by_position(graph: Graph, node: fx.Node) -> bool:
    """Whether a node takes in a constant map, as an embedding of positions: what it gives then is not of a window."""
    op = graph.ops[node]
    shapes = [shape_of(n) for n in op.weights] if op.kind not in ("conv", "relu") else []
    return any(max(shape[-2:], default=1) > 1 for shape in shapes if shape is not None)
