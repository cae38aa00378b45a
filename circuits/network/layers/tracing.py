"""From a module to its graph: torch.fx, shapes and axes of every value, and what happens where fx cannot look.

A module without children that fails on fx's proxies is one operation of the graph. Where more fails, there is no graph.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from circuits.errors import GraphError
from circuits.network.graph import Graph, in_place
from circuits.network.layers.tracking import labeled, labels_of, tracking
from circuits.network.operations import shape_of
from zoo.networks.pooling import MaxPool2d
from zoo.networks.trial import Output, outputs_of

logger = logging.getLogger(__name__)
_tracing = threading.RLock()


class _Tracer(fx.Tracer):
    """Records, for every module call (leaf or not), the node that holds its output."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[tuple[str, fx.Node]] = []

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """The image is all that is fed: what else the forward takes (an attention mask) has its default."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        parameters = list(inspect.signature(root_fn).parameters.values())
        if len(parameters) == len(args) and len({p.kind for p in parameters}) == 1:
            for i, parameter in enumerate(parameters[2:], start=2):  # after self and the image
                if parameter.default is not inspect.Parameter.empty:
                    self.graph.erase_node(args[i].node)
                    args[i] = parameter.default
        return function, args

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # a normalization of one's own is one all the same
        return isinstance(m, nn.LocalResponseNorm | MaxPool2d) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            self.path_of_module(m)
        except NameError:  # made in the forward itself, as in nn.ReLU()(x): traced as the functions that it calls
            return forward(*args, **kwargs)
        out = self._traced_or_leaf(m, forward, args, kwargs)
        if isinstance(out, fx.Proxy):
            self.outputs.append((self.path_of_module(m), out.node))
        return out

    def _traced_or_leaf(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        last, depth = next(reversed(self.graph.nodes), None), len(self.module_stack)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # whatever the traced code raises on a proxy
            if any(True for _ in m.children()):
                raise
        # a single operation that cannot be looked into, such as padding that is computed from the size: run as it is
        for node in reversed(self.graph.nodes):
            if node is last:
                break
            self.graph.erase_node(node)
        while len(self.module_stack) > depth:  # fx leaves what failed on it
            self.module_stack.popitem()
        return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


class _Shapes(fx.Interpreter):
    """Runs the graph once, writes the shape of every tensor into its node, and finds what is overwritten.

    Attributes:
        overwritten: nodes whose tensor another one writes into, and that one, where it is read again after that.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.overwritten: list[tuple[fx.Node, fx.Node]] = []

    def run_node(self, n: fx.Node) -> Any:
        self._find_overwritten(n)
        out = super().run_node(n)
        if isinstance(out, Tensor):
            n.meta["shape"] = tuple(out.shape)
        elif isinstance(out, (tuple, list)) and out and all(isinstance(o, Tensor) for o in out):
            n.meta["parts"] = [tuple(o.shape) for o in out]
        elif n.op != "output" and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            n.meta["value"] = out
        # also the several tensors of a chunk or split carry what the network computes; sizes do not
        n.meta["carries"] = isinstance(out, Tensor) or (
            isinstance(out, (tuple, list)) and any(isinstance(o, Tensor) for o in out)
        )
        return out

    def _find_overwritten(self, n: fx.Node) -> None:
        """Raises: GraphError: a part of a tensor is overwritten that is read again after that."""
        written = n.args[0] if n.args else None
        leaf = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if not isinstance(written, fx.Node) or not in_place(n, leaf):
            return
        x, later = self.env[written], set(_after(n))
        if not isinstance(x, Tensor):
            return
        for other, held in self.env.items():
            if not later.intersection(other.users):
                continue
            for tensor in (t for t in tree_leaves(held) if isinstance(t, Tensor)):
                if tensor is x or _region(tensor) == _region(x) and tensor.stride() == x.stride():
                    self.overwritten.append((other, n))
                elif _overlap(tensor, x):
                    raise GraphError(f"{n.name} writes into a part of {other.name}, which is read again after that")

    def rewire(self) -> None:
        """Let what reads an overwritten tensor read what was written: partial runs overwrite nothing."""
        for old, new in self.overwritten:
            later = set(_after(new))
            old.replace_all_uses_with(new, delete_user_cb=later.__contains__)


def _after(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes after one, in order."""
    while (node := node.next).op != "root":
        yield node


def _region(x: Tensor) -> tuple[int, int, int]:
    """Storage of a tensor, its first element there, and the one after its last."""
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    first = int(x.storage_offset())
    return x.untyped_storage().data_ptr(), first, first + int(last) + 1


def _overlap(a: Tensor, b: Tensor) -> bool:
    (of_a, first_a, end_a), (of_b, first_b, end_b) = _region(a), _region(b)
    return of_a == of_b and first_a < end_b and first_b < end_a


class _Axes(fx.Interpreter):
    """Runs the graph once on labeled images and writes the labels of every tensor into its node."""

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        if isinstance(out, Tensor):
            n.meta["labels"] = labels_of(out)
        return out


def trace_graph(module: nn.Module, example: Tensor, output: Output = None) -> Graph | None:
    """The graph of `module` with shapes for `example` `(1, C, H, W)`, or None where fx cannot trace it."""
    tracer = _Tracer()
    try:
        with _lengths_of_proxies(module):
            graph = tracer.trace(module)
        if sum(n.op == "placeholder" for n in graph.nodes) != 1:
            drop = [n for n in graph.nodes if n.op == "placeholder"][1:]
            if any(n.users for n in drop):
                return None
        with torch.no_grad():
            runnable = fx.GraphModule(module, graph)
            shapes = _Shapes(runnable)
            if not _same(shapes.run(example), module(example)):
                logger.info(
                    "torch.fx sees another branch of %s than it runs; falling back on hooks", type(module).__name__
                )
                return None
            shapes.rewire()
            if any(_moves_axes(n, runnable) for n in graph.nodes):
                with tracking():
                    _Axes(runnable).run(labeled(example))
        return Graph(module, graph, tracer.outputs, output)
    except Exception as error:  # fx raises whatever the traced code raises on a proxy
        logger.info("torch.fx cannot trace %s (%s); falling back on hooks", type(module).__name__, error)
        return None


def _same(traced: Any, given: Any) -> bool:
    """Whether the graph gives what the network gives. A branch on `isinstance` goes another way on fx's proxies."""

    def close(a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape:
            return False
        largest = float(b.float().abs().nan_to_num().amax()) if b.numel() else 0.0
        return torch.allclose(a.float(), b.float(), rtol=1e-2, atol=1e-3 * largest, equal_nan=True)

    first, second = dict(outputs_of(traced)), dict(outputs_of(given))
    return first.keys() == second.keys() and all(close(value, second[name]) for name, value in first.items())


def _length(x: Any) -> Any:
    return x.size(0) if isinstance(x, fx.Proxy) else len(x)


@contextmanager
def _lengths_of_proxies(module: nn.Module) -> Iterator[None]:
    """Inside, `len(x)` in a forward is `x.size(0)`. fx refuses it, since Python demands a number of `len` itself."""
    forwards = (getattr(type(m).forward, "__globals__", {}) for m in module.modules())
    with _tracing:
        spaces = {id(names): names for names in forwards if "len" not in names}
        for names in spaces.values():
            names["len"] = _length
        try:
            yield
        finally:
            for names in spaces.values():
                names.pop("len", None)


#: functions that can put channels elsewhere than on the second axis
_MOVES = frozenset(
    ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "reshape", "view", "flatten", "unflatten",
     "einsum", "matmul", "bmm", "T", "mT", "t", "__getitem__", "getitem", "squeeze", "unsqueeze", "select", "unbind",
     "stack", "expand", "unfold", "fold", "getattr", "tensordot", "linear", "multi_head_attention_forward", "repeat")
)  # fmt: skip


def _moves_axes(node: fx.Node, module: nn.Module) -> bool:
    """Whether axes have to be followed through a node: it may do more than maps to maps, or maps to vectors."""
    shape = shape_of(node)
    if "value" in node.meta or node.op in ("placeholder", "get_attr", "output"):
        return False
    if shape is None or len(shape) not in (2, 4):
        return True
    if node.op == "call_module":
        leaf = module.get_submodule(str(node.target))
        flat = isinstance(leaf, nn.Flatten) and leaf.start_dim == 1
        linear = isinstance(leaf, nn.Linear) and len(shape) == 2
        known = type(leaf).__module__.startswith("torch.nn.modules.") and not isinstance(leaf, (nn.Flatten, nn.Linear))
        return not (flat or linear or known or isinstance(leaf, nn.LocalResponseNorm | MaxPool2d))
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name == "flatten" and len(shape) == 2:
        return False
    return name in _MOVES
