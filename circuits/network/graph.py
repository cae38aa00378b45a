"""The graph of a network: its operations, the geometry of every node, its trunk, and partial runs.

Receptive fields follow the recursion of Araujo et al., Computing Receptive Fields of Convolutional Neural Networks,
Distill 2019: with a kernel k, stride s, padding p and dilation d, size' = size + d (k - 1) stride,
offset' = offset - p stride, stride' = s stride. Branches that meet take the union, if their strides agree.

Stands on torch.fx. Where a network cannot be traced (data-dependent control flow), `trace_graph` returns
None and the callers fall back on hooks: they lose only what needs the graph (receptive fields are then
measured by gradients, expanded weights by autograd on the whole network).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from circuits.errors import GraphError
from circuits.network.layers.axes import Axes, Layouts, plain_axes
from circuits.network.layers.readings import layouts_of
from circuits.network.operations import (
    Op,
    Pair,
    affine_scale,
    average,
    linear_padding,
    read_op,
    shape_of,
    title,
    weight_of,
    writes_in_place,
)
from zoo.networks.pooling import with_channels_together
from zoo.networks.trial import Output, outputs_of, selected
from zoo.progress import check_stopped


@dataclass(frozen=True)
class ReceptiveField:
    """The input pixels that one position of a layer can see.

    Position `(y, x)` sees rows `y * stride + offset` up to, not including, that plus `size`; likewise
    columns. Offsets are negative where padding is seen.
    """

    size: Pair
    stride: Pair
    offset: Pair

    def box(self, y: int, x: int, within: Pair | None = None) -> tuple[int, int, int, int]:
        """`(top, left, bottom, right)` in input pixels, half-open; clipped to an image of size `within`.

        Empty where the position sees nothing but padding.
        """
        top, left = y * self.stride[0] + self.offset[0], x * self.stride[1] + self.offset[1]
        bottom, right = top + self.size[0], left + self.size[1]
        if within is not None:
            top, bottom = (min(max(0, v), within[0]) for v in (top, bottom))
            left, right = (min(max(0, v), within[1]) for v in (left, right))
        return top, left, bottom, right


_OF_A_LAYOUT = ("view", "view_as", "as_strided", "is_contiguous", "stride", "data_ptr", "numpy", "resize_")
"""Functions and methods whose result, or success, depends on how a tensor lies in memory."""


class Graph:
    """Operations of a traced network, in execution order.

    Attributes:
        nodes: the fx nodes in order.
        ops: node -> meaning.
        layouts: node -> how its tensor is read.
        outputs: layer name -> node that holds the layer's output. A module that runs more than once has
            one name per call, `name.call0`, `name.call1`, ...
        output: which of what it puts out counts; see `circuits.wrap`.
    """

    def __init__(
        self, module: nn.Module, graph: fx.Graph, calls: list[tuple[str, fx.Node]], output: Output = None
    ) -> None:
        self.module, self.output = module, output
        self.nodes: list[fx.Node] = list(graph.nodes)
        # on the module itself: a GraphModule would go on with its own reference to a parameter that was replaced
        self._interpreter = fx.Interpreter(module, graph=graph)
        self.running = False
        self.order = {n: i for i, n in enumerate(self.nodes)}
        modules = dict(module.named_modules())
        self.ops: dict[fx.Node, Op] = {}
        self.constants: set[fx.Node] = set()
        for n in self.nodes:
            leaf = modules.get(str(n.target)) if n.op == "call_module" else None
            if n.op not in ("placeholder", "output") and all(i in self.constants for i in n.all_input_nodes):
                self.constants.add(n)
            self.ops[n] = read_op(n, leaf, self.constants)
        self.layouts: dict[fx.Node, Layouts] = {n: _layouts(n) for n in self.nodes}
        self.outputs = name_calls(calls)
        self.input = next(n for n in self.nodes if n.op == "placeholder")
        self.fields = self._receptive_fields()

    @functools.cached_property
    def convolves_in_any_layout(self) -> bool:
        """Whether there are convolutions, and nothing asks how its input lies in memory, as `view` does."""
        for n in self.nodes:
            op = self.ops[n]
            if n.op == "call_module" and not type(op.module).__module__.startswith(("torch.nn.", "zoo.")):
                return False
            if getattr(n.target, "__name__", n.target) in _OF_A_LAYOUT:
                return False
        return any(op.kind == "conv" for op in self.ops.values())

    # -- geometry ---------------------------------------------------------------------------------

    def _receptive_fields(self) -> dict[fx.Node, ReceptiveField | None]:
        """Receptive field of every node; None where it is the whole image or unknown."""
        fields: dict[fx.Node, ReceptiveField | None] = {}
        for n in self.nodes:
            op = self.ops[n]
            if op.kind == "input":
                fields[n] = ReceptiveField((1, 1), (1, 1), (0, 0))
                continue
            # a class token that was expanded to as many images is not computed from them
            sources = [i for i in op.inputs if i.meta.get("labels", "") is not None]
            read = [self._map(i) for i in (n, *sources)]
            if all(axes is None or axes.plain for axes in read):
                fields[n] = _step_field(op, n, [fields.get(i) for i in op.inputs])
            else:
                fields[n] = _kept_field(op, read, [fields.get(i) for i in sources])
        return fields

    def _map(self, node: fx.Node) -> Axes | None:
        layouts = self.layouts[node]
        return None if isinstance(layouts, str) else layouts[""]

    def channel_field(self, node: fx.Node, channel: int) -> ReceptiveField | None:
        """Receptive field of one channel: that of its own branch where the node is a concatenation."""
        field = self.fields[node]
        while field is not None:
            op = self.ops[node]
            if op.kind == "cat":
                start = 0
                for node in op.inputs:
                    width = (shape_of(node) or (0, 0))[1]
                    if channel < start + width:
                        break
                    start += width
                channel -= start
            elif op.kind in ("relu", "dropout", "same"):
                node = op.inputs[0]
            else:
                break
            field = self.fields[node]
        return field

    def trunk(self) -> list[fx.Node]:
        """Nodes that every path from input to output crosses, one per weighted stage: the activations.

        These are the layers that tracing goes back through. Between two cuts of the graph with weights
        in between lies one stage; its node is the last nonlinearity, else the last sum, concatenation,
        normalization or weighted operation (never a pool, whose channels are those before it).
        """
        # a node is a cut when no earlier node is still used after it: `reach` is the last use of all nodes so far
        live = self._live()
        carrying = (n for n in self.nodes if n.meta.get("carries") and n not in self.constants)
        order = [n for n in carrying if n in live and n.op != "output"]
        # a size that is taken of a tensor is no use of its values
        uses = {n: [u for u in n.users if u in live and "value" not in u.meta] for n in order}
        last_use = {n: max((self.order[u] for u in uses[n]), default=self.order[n]) for n in order}
        stages: list[list[fx.Node]] = []
        reach, weighted = -1, False
        for n in order:
            weighted = weighted or self.ops[n].weighted
            if reach <= self.order[n]:
                if weighted or not stages:
                    stages.append([])
                    weighted = False
                stages[-1].append(n)
            reach = max(reach, last_use[n])
        return [chosen for stage in stages if (chosen := self._stage_output(stage)) is not None]

    def _named(self, node: fx.Node) -> fx.Node:
        """`node`, or what a module makes of it at the end, up to a factor: a function inside of one has no name."""

        def passes(n: fx.Node) -> bool:
            op = self.ops[n]
            return op.kind in ("same", "dropout") or (op.kind == "affine" and not op.weights and op.module is None)

        named, at = set(self.outputs.values()), node
        while at not in named and len(users := list(at.users)) == 1 and passes(users[0]):
            at = users[0]
        return at if at in named else node

    def _stage_output(self, stage: list[fx.Node]) -> fx.Node | None:
        def last(kinds: tuple[str, ...]) -> fx.Node | None:
            layers = (n for n in reversed(stage) if self._is_stage(n))
            return next((n for n in layers if self.ops[n].kind in kinds), None)

        chosen = last(("relu",)) or last(("add", "cat", "affine", "conv", "linear", "other"))
        return None if chosen is None else self._named(chosen)

    def _is_stage(self, node: fx.Node) -> bool:
        """Whether a node may stand for its stage: it has units, and does not just rearrange tokens or take one."""
        layout = self.layouts[node]
        if isinstance(layout, str):
            return False
        before = [self.layouts[i] for i in self.ops[node].inputs]
        maps = all(isinstance(at, str) or at[""].plain for at in [layout, *before])
        return maps or self.ops[node].kind != "other" or self.ops[node].weighted

    def _live(self) -> set[fx.Node]:
        ends = [node for _, node in self.given(self.output)]
        return self.ancestors(ends or [n for n in self.nodes if n.op == "output"])

    def given(self, output: Output) -> list[tuple[str, fx.Node]]:
        """The nodes that the network puts out, each with what selects it; those inside of `output` alone."""
        whole: Any = next(n for n in self.nodes if n.op == "output").args[0]
        if isinstance(whole, fx.Node) and isinstance(whole.target, type):  # a named tuple or a data class
            whole = whole.target(*whole.args, **whole.kwargs)
        return list(outputs_of(selected(whole, output), kind=fx.Node))

    def ancestors(self, nodes: Iterable[fx.Node], stop: Iterable[fx.Node] = ()) -> set[fx.Node]:
        """`nodes` and all that they are computed from, not looking past `stop`."""
        stops, visited, todo = set(stop), set(), list(nodes)
        while todo:
            n = todo.pop()
            if n in visited:
                continue
            visited.add(n)
            if n not in stops:
                todo.extend(n.all_input_nodes)
        return visited

    def between(self, source: fx.Node, target: fx.Node) -> list[fx.Node]:
        """Nodes on some path from `source` to `target`, both included, in order.

        Raises:
            GraphError: no path leads from one to the other.
        """
        forward = {source}
        # forward closure from the source, cut with the ancestors of the target; both in one sweep of the nodes
        for n in self.nodes[self.order[source] + 1 : self.order[target] + 1]:
            if any(i in forward for i in n.all_input_nodes):
                forward.add(n)
        if target not in forward:
            raise GraphError(f"no path leads from {source.name} to {target.name}")
        backward = self.ancestors([target], stop=[source])
        return [n for n in self.nodes if n in forward and n in backward]

    def is_attention(self, node: fx.Node) -> bool:
        """Whether a node is attention in one piece, whose pattern is inside of it."""
        functions = (F.scaled_dot_product_attention, F.multi_head_attention_forward)
        return isinstance(self.ops[node].module, nn.MultiheadAttention) or node.target in functions

    def start(self, source: fx.Node, target: fx.Node) -> fx.Node:
        """The node whose activations feed the weights between `source` and `target`.

        It is the source itself, or what a single chain of ReLUs, pools and normalizations makes of
        it: across a pool, maps are only undistorted from the pool's output (Visualizing Weights, Distill 2021).
        """
        path = set(self.between(source, target))
        at, best = source, source
        while at is not target:
            users = [u for u in at.users if u in path]
            if len(users) != 1:
                break
            at = users[0]
            op = self.ops[at]
            if op.kind in ("maxpool", "avgpool") and op.params["stride"] != (1, 1) or op.kind in ("lrn", "relu"):
                best = at if at is not target else best
            elif op.kind not in ("dropout", "same", "pad"):
                break
        return best

    def max_pools(self, source: fx.Node) -> tuple[dict[fx.Node, int], list[fx.Node]]:
        """Max pools over the channels of `source` as they are, and other maxima over them, each in order.

        The first reach `source` through operations that keep every channel apart and in order, concatenations too; of
        each, which of its channels is the first of `source`. The second are behind a reshape or a shuffle, or take
        their maximum in another form than a pool's, or hold a channel twice, or normalize it among others after a
        concatenation: which channels of theirs are those of `source` is not known. There is no telling through an
        operation of unknown meaning, which counts as mixing channels.
        """
        reached, moved = {source: 0}, set[fx.Node]()
        for n in self.nodes[self.order[source] + 1 :]:
            op = self.ops[n]
            among_others = op.kind == "lrn" and (shape_of(n) or (0, 0))[1] != (shape_of(source) or (0, 0))[1]
            joined = self._joined(n, reached, moved)
            if op.by_channel and op.inputs[0] in reached and not among_others:
                reached[n] = reached[op.inputs[0]]
            elif joined is not None:
                reached[n] = joined
            elif (op.rearranges and any(i in reached or i in moved for i in op.inputs)) or (
                (op.by_channel or op.takes_other_maximum) and (op.inputs[0] in reached or op.inputs[0] in moved)
            ):
                moved.add(n)
        pools = {n: at for n, at in reached.items() if n is not source and self.ops[n].takes_maximum}
        others = [
            n for n in self.nodes if n in moved and (self.ops[n].takes_maximum or self.ops[n].takes_other_maximum)
        ]
        return pools, others

    def _joined(self, node: fx.Node, reached: Mapping[fx.Node, int], moved: Set[fx.Node]) -> int | None:
        """Where a concatenation of channels puts the first channel of one that is reached; None where it does not."""
        op = self.ops[node]
        shapes = [shape_of(i) for i in op.inputs]
        if op.kind != "cat" or any(shape is None or len(shape) != 4 for shape in shapes):
            return None
        indices = [i for i, n in enumerate(op.inputs) if n in reached]
        if len(indices) != 1 or any(n in moved for n in op.inputs):
            return None
        return reached[op.inputs[indices[0]]] + sum(shape[1] for shape in shapes[: indices[0]] if shape is not None)

    def side_inputs(self, source: fx.Node, target: fx.Node) -> list[fx.Node]:
        """Nodes that reach `target` past `source`: what a run between the two needs besides the source."""
        path = set(self.between(source, target))
        return [
            n for n in self.nodes if n not in path and n.op != "get_attr" and any(u in path - {source} for u in n.users)
        ]

    def before_relu(self, node: fx.Node) -> fx.Node:
        """The node that holds the pre-activations of `node`: what its ReLU reads, else the node itself."""
        while self.ops[node].kind == "relu":
            node = self.ops[node].inputs[0]
        return node

    # -- weights ----------------------------------------------------------------------------------

    def weight(self, node: fx.Node) -> Tensor:
        """The weight of a convolution or a linear layer, as the next forward pass will use it."""
        op = self.ops[node]
        return self._constant(op.params["weight"]) if op.module is None else weight_of(op.module).detach()

    def scale(self, node: fx.Node) -> Tensor:
        """What an affine operation multiplies each channel by, `(channels,)`."""
        op, shape = self.ops[node], shape_of(node)
        assert shape is not None
        if op.module is not None:
            return affine_scale(op.module).detach()
        if "variance" in op.params:
            scale: Tensor = (self._constant(op.params["variance"]) + op.params["eps"]).rsqrt()
            return scale if op.params["weight"] is None else scale * self._constant(op.params["weight"])
        value = op.params.get("factor", op.params.get("divisor"))
        like = next(self.module.parameters(), torch.zeros(1)).detach()
        factor = self._constant(value) if isinstance(value, fx.Node) else torch.tensor(value).to(like)
        return (factor if "factor" in op.params else 1 / factor).flatten().expand(shape[1])

    def _constant(self, node: fx.Node) -> Tensor:
        with torch.no_grad():
            value: Tensor = self.run({}, [node])[node]
        return value.detach()

    # -- running ----------------------------------------------------------------------------------

    def run(
        self,
        feeds: Mapping[fx.Node, Tensor],
        fetch: Iterable[fx.Node],
        *,
        linear: bool = False,
        edits: Mapping[fx.Node, Callable[[Tensor], Tensor]] | None = None,
    ) -> dict[fx.Node, Tensor]:
        """Compute `fetch` from `feeds`, running only what lies between, and never in place.

        Args:
            feeds: node -> its value; nothing before it runs.
            fetch: nodes whose values are wanted.
            linear: skip ReLUs, local normalization and dropout, and average where the network takes
                a maximum; what does not depend on `feeds` then counts as zero.
            edits: node -> function applied to its value as soon as it is there (also to a feed).

        Raises:
            GraphError: something needed is neither fed nor computable.
        """
        fetched = list(fetch)
        needed = self.ancestors(fetched, stop=feeds)
        env: dict[fx.Node, Any] = {}
        uses = {n: sum(u in needed for u in n.users) for n in needed}
        edits = edits or {}
        for n in self.nodes:
            if n not in needed:
                continue
            if n in feeds:
                value: Any = feeds[n]
            elif n.op == "placeholder":
                if not linear:
                    raise GraphError(f"a run between two layers also needs the value of {n.name!r}")
                value = None
            elif n.op == "output":
                continue
            else:
                value = self._guarded(n, env, linear)
            if n in edits and isinstance(value, Tensor):
                value = edits[n](value)
            env[n] = value
            for i in set(n.all_input_nodes) if n not in feeds else ():
                uses[i] -= 1
                if uses[i] == 0 and i not in fetched:
                    env[i] = None
        return {n: env[n] for n in fetched}

    def _guarded(self, n: fx.Node, env: dict[fx.Node, Any], linear: bool) -> Any:
        check_stopped()
        # hooks of edits on leaf modules stand aside while the graph runs them (hooks.py): `edits` holds them all
        self.running, before = True, self.running
        try:
            return self._apply(n, env, linear)
        except (TypeError, RuntimeError, AttributeError) as error:
            if linear and any(env.get(i) is None for i in n.all_input_nodes):  # what does not depend on the feeds
                raise GraphError(f"the path passes through {title(n)!r}, which has no linear form") from error
            raise
        finally:
            self.running = before

    def check_module(self, n: fx.Node) -> None:
        """Refuse a node whose module is no longer the one that was traced.

        Raises:
            GraphError: it was replaced by another one.
        """
        if n.op == "call_module" and self._interpreter.fetch_attr(str(n.target)) is not self.ops[n].module:
            raise GraphError(f"the module {n.target} was replaced after the network was wrapped; wrap it again")

    def _apply(self, n: fx.Node, env: dict[fx.Node, Any], linear: bool) -> Any:
        op = self.ops[n]
        self.check_module(n)
        values = [env.get(i) for i in op.inputs]
        if linear:
            if any(all(v is None for v in v_of) for v_of in (values, [env.get(i) for i in n.all_input_nodes]) if v_of):
                return None
            if op.skipped:  # contiguous() among them, which a view further on may stand on
                return values[0].contiguous() if op.kind == "same" and values[0] is not None else values[0]
            if op.kind == "maxpool":
                return average(values[0], op.params)  # type: ignore[arg-type]
            if op.kind == "add":
                present = [v for v in values if v is not None]
                return present[0] if len(present) == 1 else present[0] + present[1]
            if op.kind == "cat" and any(v is None for v in values):
                values = _fill_with_zeros(values, op.inputs)
                return torch.cat(values, dim=1)
            if op.kind == "pad":
                return F.pad(values[0], op.params["padding"], value=linear_padding(op.params["value"]))  # type: ignore[arg-type]
        args = fx.node.map_arg(n.args, lambda i: env.get(i))
        kwargs = fx.node.map_arg(n.kwargs, lambda i: env.get(i))
        if n.op == "call_function" and n.target in _OUT_OF_PLACE:
            return _OUT_OF_PLACE[n.target](*args)
        if kwargs.get("inplace"):
            kwargs = {**kwargs, "inplace": False}
        if args and in_place(n, op.module):
            args = (args[0].clone(), *args[1:])  # type: ignore[union-attr]
        run = getattr(self._interpreter, n.op)
        if op.kind == "maxpool" and args:
            return with_channels_together(lambda x: run(n.target, (x, *args[1:]), kwargs), args[0])
        return run(n.target, args, kwargs)


_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def in_place(n: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node writes into its first argument."""
    if n.op == "call_module":
        return bool(getattr(module, "inplace", False))
    return n.op in ("call_method", "call_function") and writes_in_place(n.target, n.args, dict(n.kwargs))


def _fill_with_zeros(values: list[Any], nodes: tuple[fx.Node, ...]) -> list[Any]:
    like = next(v for v in values if v is not None)
    filled = []
    for value, node in zip(values, nodes, strict=True):
        shape = shape_of(node)
        assert shape is not None
        filled.append(like.new_zeros((like.shape[0], shape[1], *like.shape[2:])) if value is None else value)
    return filled


def name_calls(calls: list[tuple[str, Any]]) -> dict[str, Any]:
    """`(module path, thing)` per call, in order -> `{layer name: thing}`; repeated modules get `.callN`."""
    total: dict[str, int] = {}
    for path, _ in calls:
        total[path] = total.get(path, 0) + 1
    counts: dict[str, int] = {}
    names = {}
    for path, thing in calls:
        index = counts.get(path, 0)
        counts[path] = index + 1
        names[path if total[path] == 1 else f"{path}.call{index}"] = thing
    return names


def _layouts(node: fx.Node) -> Layouts:
    shape = shape_of(node)
    if shape is None:
        return "it is no tensor"
    if "labels" in node.meta:
        return layouts_of(node.meta["labels"], shape)
    return {"": plain_axes(shape)} if len(shape) in (2, 4) else "it is neither a map nor a vector"


def _step_field(op: Op, node: fx.Node, before: list[ReceptiveField | None]) -> ReceptiveField | None:
    grid = _grid(node)
    if not before or any(f is None for f in before) or grid is None:
        return None
    fields = [f for f in before if f is not None]
    first, p = fields[0], op.params
    if op.kind == "pad" or (op.kind == "other" and "padding" in p and "kernel" not in p):
        left, _, top, _ = p["padding"]
        return _window(first, (1, 1), (1, 1), (top, left), (1, 1))
    if "kernel" in p:
        return _window(first, p["kernel"], p["stride"], p["padding"], p.get("dilation", (1, 1)))
    if op.skipped or op.kind in ("affine", "softmax", "cat", "add"):
        return _union(fields)
    if p.get("pointwise") and all(_grid(i) == grid for i in op.inputs):
        return _union(fields)
    return None


def _kept_field(op: Op, read: list[Axes | None], before: list[ReceptiveField | None]) -> ReceptiveField | None:
    """Receptive field of channels-last maps, tokens and windows, where a position is computed from the same position.

    `read` says how the node's own tensor and those of its inputs are laid out; `tracking` followed rows and columns
    through all that rearranges them.
    """
    known = [axes for axes in read if axes is not None]
    fields = [f for f in before if f is not None]
    if len(known) < len(read) or not fields or len(fields) < len(before):
        return None
    own, *sources = known
    if own.grid is None or any(axes.grid != own.grid for axes in sources):
        return None
    if op.moves_axes and len(sources) == 1:
        return fields[0]
    same_order = all(axes.in_same_order(own) for axes in sources)
    pointwise = op.skipped or op.kind in ("affine", "add") or bool(op.params.get("pointwise"))
    if same_order and (pointwise or (own.channels_last and op.over_last_axis)):
        return _union(fields)
    return None


def _grid(node: fx.Node) -> tuple[int, ...] | None:
    """Height and width of the maps that a node gives (of the first, where it gives several), channels first."""
    parts = node.meta.get("parts")
    shape = shape_of(node) if parts is None else parts[0]
    return shape[-2:] if shape is not None and len(shape) in (4, 5) else None


def _window(f: ReceptiveField, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> ReceptiveField:
    axes = range(2)
    return ReceptiveField(
        size=_pair(f.size[a] + dilation[a] * (kernel[a] - 1) * f.stride[a] for a in axes),
        stride=_pair(f.stride[a] * stride[a] for a in axes),
        offset=_pair(f.offset[a] - padding[a] * f.stride[a] for a in axes),
    )


def _union(fields: list[ReceptiveField]) -> ReceptiveField | None:
    if any(f.stride != fields[0].stride for f in fields):
        return None
    start = _pair(min(f.offset[a] for f in fields) for a in range(2))
    stop = [max(f.offset[a] + f.size[a] for f in fields) for a in range(2)]
    return ReceptiveField((stop[0] - start[0], stop[1] - start[1]), fields[0].stride, start)


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second
