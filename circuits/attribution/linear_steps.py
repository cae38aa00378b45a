"""What a unit is a linear function of: the last nonlinear layers before it, on the way from a source layer.

Between two trunk layers of most networks lie other nonlinearities: the ReLU of a bottleneck, of a depthwise
convolution, of the first convolution of a residual block. The expanded weights pass them as if they were not there. A
linear step stops at them instead. It walks back from a unit's value before its own ReLU through convolutions, linear
layers, batch normalization, sums, concatenations and average pools, and ends at the outputs of nonlinear operations and
at the source layer: the unit is exactly a weighted sum of these, plus biases.

A max pool, or a local response normalization, keeps channels in their places. So where a step ends at one, what it
reads are units of the layer that is pooled, at the value that they have after the pool (as kernels across a pool do in
the expanded weights).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx

from circuits.attribution.expanded_weights import ExpandedWeights
from circuits.attribution.kernel_composition import compose
from circuits.errors import GraphError
from circuits.network.address import Unit
from circuits.network.graph import Graph
from circuits.network.layers.axes import as_maps
from circuits.network.model import Model
from circuits.network.operations import shape_of, title

LINEAR = frozenset(
    ("conv", "linear", "affine", "avgpool", "globalpool", "cat", "add", "pad", "flatten", "dropout", "same")
)
"""Kinds of operations that a step passes."""
_PLACED = frozenset(("maxpool", "lrn", "dropout", "same"))
"""Kinds that leave a unit what it is, in another size or scale."""


@dataclass(frozen=True)
class LinearStep:
    """How the value of some unit before its own ReLU is made.

    Attributes:
        end: the node that holds the value; channel: which channel of it.
        reads: node -> the layer whose units its channels are, in the order of the network.
        inside: the nodes that the step passes, ends included.
    """

    end: fx.Node
    channel: int
    reads: Mapping[fx.Node, str]
    inside: frozenset[fx.Node]


class LinearSteps:
    """Linear steps from the units of layers back to a source layer.

    Args:
        model: one with a graph.
        source: the layer at which all steps end, if not before.

    Raises:
        GraphError: the model has no graph, or the layer is not a map with channels first.
    """

    def __init__(self, model: Model, source: str) -> None:
        if model.graph is None:
            raise GraphError(f"torch.fx cannot trace {model.name}, so what lies inside of its blocks is not known")
        self.model, self.source, self._graph = model, source, model.graph
        self._check_maps(source)
        self._begin = model.node(source)
        self._known: dict[tuple[fx.Node, int], LinearStep] = {}

    @cached_property
    def _after(self) -> set[fx.Node]:
        """The nodes that depend on the source."""
        after = {self._begin}
        for n in self._graph.nodes[self._graph.order[self._begin] + 1 :]:
            if any(i in after for i in n.all_input_nodes):
                after.add(n)
        return after

    def of(self, unit: Unit) -> LinearStep:
        """The step to a channel.

        Raises:
            GraphError: an operation without a linear form makes the unit; what it reads has no name; or it does not
                depend on the source.
        """
        self._check_maps(unit.layer)
        assert unit.index is not None
        end, channel = _own(self._graph, self.model.node(unit.layer), unit.index)
        if (end, channel) not in self._known:
            self._known[end, channel] = self._walk(end, channel, unit)
        return self._known[end, channel]

    def layers(self, after: str) -> list[str]:
        """All layers whose units the steps from `after` to the source go through, the latest first, without the ends.

        Those that no step can enter are left out.
        """
        layers: dict[str, None] = {}
        todo = [after]
        while todo:
            at = todo.pop()
            for read in self._read_by(at):
                if read != self.source and read not in layers:
                    layers[read] = None
                    todo.append(read)
        return sorted(layers, key=lambda name: -self._graph.order[self.model.node(name)])

    def _read_by(self, layer: str) -> list[str]:
        """Layers that the units of one are made of; units of one branch are made of the same."""
        reads: dict[str, None] = {}
        ends: set[fx.Node] = set()
        for index in range(self.model.layers[layer].channels):
            end, _ = _own(self._graph, self.model.node(layer), index)
            if end in ends:
                continue
            ends.add(end)
            try:
                reads |= dict.fromkeys(self.of(Unit(layer, index)).reads.values())
            except GraphError:
                continue
        return list(reads)

    def _walk(self, end: fx.Node, channel: int, unit: Unit) -> LinearStep:
        ops = self._graph.ops
        if end not in self._after or end is self._begin:
            raise GraphError(f"no path leads from {self.source} to {unit.short}")
        inside, reads, todo = {end}, set[fx.Node](), [end]
        if ops[end].kind not in LINEAR:
            reads, todo = {end}, []
        while todo:
            for i in ops[todo.pop()].inputs:
                if i not in self._after or i in inside:
                    continue
                inside.add(i)
                if i is self._begin or ops[i].kind not in LINEAR:
                    reads.add(i)
                else:
                    todo.append(i)
        ordered = sorted(reads, key=self._graph.order.__getitem__)
        named = {node: self._layer_of(node, end, unit) for node in ordered}
        return LinearStep(end, channel, named, frozenset(inside))

    def _layer_of(self, node: fx.Node, end: fx.Node, unit: Unit) -> str:
        """The layer whose units the channels of a node are: the node's own, or the one that is pooled."""
        at = node
        while at is not self._begin and self._graph.ops[at].kind in _PLACED:
            at = self._graph.ops[at].inputs[0]
        if at is end:
            raise GraphError(
                f"{unit.short} comes out of {title(end)!r}, which has no linear form: trace it with by='gradient'"
            )
        if at is self._begin:
            return self.source
        name = self.model.name_of(at)
        self._check_maps(name)
        return name

    def _check_maps(self, layer: str) -> None:
        if not self.model.layers[layer].axes.plain:
            raise GraphError(f"{self.model.name}/{layer} is no map with channels first: steps are taken through those")

    def kernels(self, step: LinearStep, node: fx.Node, unit: Unit) -> ExpandedWeights:
        """The weights from all channels of one of the nodes that a step reads to the unit, `(1, channels, kh, kw)`."""
        others = set(step.reads) - {node}
        channel = torch.tensor([step.channel])
        kernel = compose(self._graph, node, step.end, None, channel, within=step.inside - others)
        layer, start = step.reads[node], node.name
        assert kernel.values is not None
        return ExpandedWeights(kernel.values, layer, [unit.short], start, kernel.offset, kernel.stride, "exact")

    def bias(self, step: LinearStep, values: Mapping[fx.Node, Tensor]) -> Tensor:
        """What the biases on the way give the unit `(h, w)`: the step with all that it reads at zero."""
        feeds = {node: torch.zeros_like(values[node][:1]) for node in step.reads}
        with self.model.lock, torch.no_grad():
            out = self._graph.run(feeds, [step.end], linear=True)[step.end]
        return as_maps(out)[0, step.channel]


def _own(graph: Graph, node: fx.Node, channel: int) -> tuple[fx.Node, int]:
    """Node and channel that hold a unit's value before its own ReLU: back through ReLUs, into its branch."""
    while True:
        op = graph.ops[node]
        if op.kind in ("relu", "dropout", "same") and shape_of(op.inputs[0]) == shape_of(node):
            node = op.inputs[0]
        elif op.kind == "cat":
            node, channel = _branch(op.inputs, channel)
        else:
            return node, channel


def _branch(inputs: Collection[fx.Node], channel: int) -> tuple[fx.Node, int]:
    for node in inputs:
        width = (shape_of(node) or (0, 0))[1]
        if channel < width:
            return node, channel
        channel -= width
    raise AssertionError("a concatenation has as many channels as its inputs")
