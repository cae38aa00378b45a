"""Edits folded into weights, where that is exact: the network's own architecture, with other numbers in it.

A channel that is held at a constant, or scaled, is one row of the convolution, linear layer or normalization that
writes it: the row's weights become zero and its bias the constant. That holds whatever reads the channel, zero padding
and pooling included, because the channel itself is constant. (Its readers could take a constant into their biases only
where nothing pads it.) It passes a ReLU where the constant is not negative, a ReLU6 where it is at most 6 besides, a
LeakyReLU, and a concatenation into the branch that holds the channel. A direction that is projected out is folded into
what reads the layer, W (I - d d'), if all that read it are convolutions and linear layers: zero stays zero under
padding, so that is exact, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from circuits.dataset.audit.repair.choice import State
from circuits.errors import EditError
from circuits.network.graph import Graph
from circuits.network.interventions import Edit, Project, Scale, Set
from circuits.network.model import Model

_CARRY = ("dropout", "same", "avgpool", "globalpool")
"""Operations that commute with a linear map of the channels, and keep which is which."""
_RELUS = (
    nn.ReLU,
    torch.relu,
    torch.relu_,
    nn.functional.relu,
    nn.functional.relu_,
    Tensor.relu,
    Tensor.relu_,
    "relu",
    "relu_",
)


class NotExact(EditError):
    """An edit that no weights of the same architecture make; the message says why."""


def folded(model: Model, edits: Sequence[Edit]) -> State:
    """The network's state with the edits in its weights, for modules of the same class.

    Args:
        model: a network that torch.fx can trace.
        edits: `Set` to a number, `Scale` or `Project`, of whole units.

    Returns:
        Every entry of `module.state_dict()`, copied.

    Raises:
        NotExact: weights alone cannot make one of the edits exactly.
    """
    if model.graph is None:
        raise NotExact(f"torch.fx cannot trace {model.name}: which weights write a unit is not known")
    state = {name: value.clone() for name, value in model.module.state_dict().items()}
    folding = _Folding(model, model.graph, state)
    at = [folding.node(edit) for edit in edits]
    order = {node: i for i, node in enumerate(model.graph.nodes)}
    # as they run: layer by layer, and in a layer in the order given
    for i in sorted(range(len(edits)), key=lambda i: order[at[i]]):
        folding.fold(at[i], edits[i])
    # W P2 P1 is read where P1 runs first: the last one is folded first
    for node, direction, name in reversed(folding.projected):
        folding.project(node, direction, name)
    return state


@dataclass(frozen=True)
class _Folding:
    model: Model
    graph: Graph
    state: State
    projected: list[tuple[fx.Node, Tensor, str]] = field(default_factory=list)
    """Directions that are taken out, in the order in which they run."""

    def node(self, edit: Edit) -> fx.Node:
        """The node whose output an edit changes."""
        unit = self.model.resolve(edit.unit)
        layer = self.model.layers[unit.layer]
        if unit.index is None or unit.at is not None or edit.positions is not None or layer.view is not None:
            raise NotExact(f"{edit.unit}: weights hold a whole unit, and neither a layer, a position nor a token")
        return self.model.node(unit.layer)

    def fold(self, node: fx.Node, edit: Edit) -> None:
        """Put one edit into the state, or a direction on the list."""
        unit = self.model.resolve(edit.unit)
        assert unit.index is not None
        if isinstance(edit, Project) and unit.basis is not None:
            direction = self.model.basis(unit.layer, unit.basis).write[unit.index]
            self.projected.append((node, direction, str(edit.unit)))
        elif isinstance(edit, Project) and unit.basis is None:
            self._write(node, unit.index, 0.0, 0.0, str(edit.unit))
        elif unit.basis is not None:
            raise NotExact(f"{edit.unit}: what a latent's encoder computes is in no weight; project its direction out")
        elif isinstance(edit, Set) and isinstance(edit.to, int | float):
            self._write(node, unit.index, 0.0, float(edit.to), str(edit.unit))
        elif isinstance(edit, Scale):
            self._write(node, unit.index, edit.by, 0.0, str(edit.unit))
        else:
            raise NotExact(f"{type(edit).__name__} of {edit.unit} is no constant and no factor, and in no weight")

    def _write(self, node: fx.Node, channel: int, factor: float, constant: float, name: str) -> None:
        """Make the channel of a node `factor` times what it was, plus `constant`, where it is written."""
        first = node
        while True:
            op = self.graph.ops[node]
            if any(
                node is other for other, _, _ in self.projected
            ):  # it ran earlier, and the unit is written before it
                raise NotExact(f"{name}: a direction is taken out of {node.name} before the unit is changed")
            if node is not first and len(node.users) > 1:
                raise NotExact(f"{name}: {node.name} is also read before the edited layer")
            if op.kind == "relu" and (rectifier := _rectifier(node, op.module)) is not None:
                slope, most = rectifier
                if factor < 0 or (constant < 0 and not slope > 0) or constant > most:
                    raise NotExact(f"{name}: no weight makes a {_called(slope, most)} give {factor or constant:g}")
                if most < math.inf and factor not in (0, 1):
                    raise NotExact(f"{name}: a {_called(slope, most)} does not scale with what it reads")
                constant = constant if constant >= 0 else constant / slope
                node = op.inputs[0]
            elif op.kind in ("dropout", "same"):
                node = op.inputs[0]
            elif op.kind == "cat":
                node, channel = self._branch(node, op.inputs, channel)
            elif op.kind in ("affine", "conv", "linear"):
                return self._row(node, op.module, channel, factor, constant, name)
            else:
                raise NotExact(f"{name}: {node.name} ({op.kind}) has no weights of its own for a unit")

    def _branch(self, node: fx.Node, parts: Sequence[fx.Node], channel: int) -> tuple[fx.Node, int]:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        if dim != 1 or len(set(parts)) < len(parts):
            raise NotExact(f"{node.name} concatenates in a form that does not say which branch writes a unit")
        for part in parts:
            width = _width(part)
            if channel < width:
                return part, channel
            channel -= width
        raise NotExact(f"{node.name} has no channel {channel}")

    def _row(
        self, node: fx.Node, module: nn.Module | None, channel: int, factor: float, constant: float, name: str
    ) -> None:
        path = self._own(node, module, name)
        keys = [f"{path}.weight", f"{path}.bias"]
        if keys[0] not in self.state:
            raise NotExact(f"{name}: {path} has no weight of its own, or computes it")
        if keys[1] not in self.state and constant:
            raise NotExact(f"{name}: {path} has no bias to hold a constant in")
        for key in keys:
            if key in self.state:
                self.state[key][channel] *= factor
        if constant:
            self.state[keys[1]][channel] += constant

    def _own(self, node: fx.Node, module: nn.Module | None, name: str) -> str:
        """The path of a node's module, if its weights are used in this node alone."""
        path = str(node.target)
        if node.op != "call_module" or module is None:
            raise NotExact(f"{name}: {node.name} is no module with weights of its own")
        if sum(n.op == "call_module" and n.target == node.target for n in self.graph.nodes) > 1:
            raise NotExact(f"{name}: {path} runs more than once, and its weights would change each time")
        weights = {id(p) for p in module.parameters()}
        every = self.model.module.named_parameters(remove_duplicate=False)
        read = any(n.op == "get_attr" and str(n.target).startswith(f"{path}.") for n in self.graph.nodes)
        if read or any(id(p) in weights and not key.startswith(f"{path}.") for key, p in every):
            raise NotExact(f"{name}: the weights of {path} are used elsewhere, too")
        return path

    def project(self, node: fx.Node, direction: Tensor, name: str) -> None:
        """Take a direction of a node's channels out of everything that reads it."""
        readers: list[tuple[fx.Node, nn.Module | None]] = []
        waiting, seen = [node], set[fx.Node]()
        while waiting:
            for user in waiting.pop().users:
                op = self.graph.ops[user]
                if op.kind in _CARRY or (op.kind == "flatten" and _width(user) == len(direction)):
                    waiting.append(user)
                elif op.kind in ("conv", "linear") and getattr(op.module, "groups", 1) == 1:
                    readers += [] if user in seen else [(user, op.module)]
                    seen.add(user)
                else:
                    raise NotExact(
                        f"{name}: {user.name} ({op.kind}) reads the layer, and has no weights for a direction"
                    )
        if not readers:
            raise NotExact(f"{name}: nothing with weights reads it")
        unit = direction.detach() / direction.detach().norm()
        for reader, module in readers:
            key = f"{self._own(reader, module, name)}.weight"
            weight = self.state[key]
            self.state[key] = weight - torch.tensordot(weight, unit.to(weight), ([1], [0])).unsqueeze(1) * unit.to(
                weight
            ).view(1, -1, *[1] * (weight.ndim - 2))


def _rectifier(node: fx.Node, module: nn.Module | None) -> tuple[float, float] | None:
    """The slope below zero and the largest value of a rectifier that is linear on both sides; None for others."""
    if node.op == "call_module":
        if type(module) is nn.LeakyReLU:
            return float(module.negative_slope), math.inf
        return (0.0, math.inf) if type(module) is nn.ReLU else (0.0, 6.0) if type(module) is nn.ReLU6 else None
    if node.target is nn.functional.leaky_relu:
        slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
        return (float(slope), math.inf) if isinstance(slope, int | float) else None
    if node.target is nn.functional.relu6:
        return 0.0, 6.0
    return (0.0, math.inf) if node.target in _RELUS else None


def _called(slope: float, most: float) -> str:
    return "LeakyReLU" if slope else "ReLU" if most == math.inf else f"ReLU{most:g}"


def _width(node: fx.Node) -> int:
    shape: tuple[int, ...] = node.meta["shape"]
    return shape[1]
