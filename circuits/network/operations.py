"""The meaning of each operation of a network: one small vocabulary for modules, functions and methods.

`read_op` turns a torch.fx node into an `Op`, whatever way the author of the network wrote it
(`nn.ReLU()`, `F.relu(x, inplace=True)`, `x.relu_()`). Geometry, linearization and the exact
composition of kernels (graph.py, kernel_composition.py) know only `Op` kinds.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

Pair = tuple[int, int]

#: pointwise nonlinearities that the linearized network skips
RECTIFIERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.PReLU, nn.RReLU,
)  # fmt: skip
_RECTIFIER_FUNCTIONS = (
    F.relu, F.relu_, F.relu6, F.leaky_relu, F.leaky_relu_, F.elu, F.elu_, F.celu, F.selu, F.gelu, F.silu,
    F.mish, F.hardswish, F.hardtanh, F.hardtanh_, F.softplus, F.prelu, F.rrelu, torch.relu, torch.relu_,
)  # fmt: skip
_RECTIFIER_METHODS = ("relu", "relu_")
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_MAX_POOLS = (F.max_pool2d, torch.max_pool2d)
_ADDS = (operator.add, operator.iadd, torch.add)
_ADD_METHODS = ("add", "add_")
_CATS = (torch.cat, torch.concat, torch.concatenate)
_SAME = ("contiguous", "clone", "detach", "float")


@dataclass(frozen=True)
class Op:
    """One operation: its kind, the nodes it reads tensors from, and its parameters.

    Kinds: input, conv, linear, relu, affine, lrn, dropout, maxpool, avgpool, globalpool, cat, add, pad,
    flatten, same, softmax, other (runs, but its meaning is unknown).
    """

    kind: str
    inputs: tuple[fx.Node, ...]
    module: nn.Module | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def skipped(self) -> bool:
        """Whether the linearized network passes its input through unchanged."""
        return self.kind in ("relu", "lrn", "dropout", "same")

    @property
    def weighted(self) -> bool:
        """Whether it mixes channels by learned weights."""
        return self.kind in ("conv", "linear") or (self.kind == "other" and _has_parameters(self.module))


def _has_parameters(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def pair(value: Any) -> Pair:
    """An int or a sequence of one or two ints as `(height, width)`."""
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def read_op(node: fx.Node, module: nn.Module | None) -> Op:
    """The meaning of one fx node; `module` is the leaf module when the node calls one."""
    inputs = tuple(node.all_input_nodes)
    if node.op == "placeholder":
        return Op("input", ())
    if node.op == "call_module" and module is not None:
        return _read_module(node, module, inputs)
    if node.op in ("call_function", "call_method"):
        return _read_function(node, inputs)
    return Op("other", inputs, module)


def _read_module(node: fx.Node, module: nn.Module, inputs: tuple[fx.Node, ...]) -> Op:
    kind, params = "other", {}
    match module:
        case nn.Conv2d() if module.padding_mode == "zeros":
            kind = "conv"
        case nn.Linear():
            kind = "linear"
        case nn.BatchNorm2d() | nn.BatchNorm1d() if not module.training and module.running_var is not None:
            kind = "affine"
        case nn.LocalResponseNorm():
            kind = "lrn"
        case nn.MaxPool2d():
            kind = "maxpool"
            params = _pool(module.kernel_size, module.stride, module.padding, module.ceil_mode, module.dilation)
        case nn.AvgPool2d():
            kind = "avgpool"
            params = _pool(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            params |= {"count_include_pad": module.count_include_pad, "divisor": module.divisor_override}
        case nn.AdaptiveAvgPool2d():
            kind, params = _adaptive(node)
        case nn.ZeroPad2d() | nn.ConstantPad2d() if module.value == 0:
            kind, params = "pad", {"padding": tuple(int(p) for p in module.padding)}
        case nn.Flatten():
            kind = "flatten" if _flattens(node) else "other"
        case nn.Softmax() | nn.LogSoftmax():
            kind = "softmax"
        case nn.Identity():
            kind = "same"
        case _ if isinstance(module, RECTIFIERS):
            kind = "relu"
        case _ if isinstance(module, _DROPOUTS):
            kind = "dropout"
    return Op(kind, inputs, module, params)


def _read_function(node: fx.Node, inputs: tuple[fx.Node, ...]) -> Op:
    f, args, kwargs = node.target, node.args, dict(node.kwargs)
    method = f if node.op == "call_method" else None

    def argument(index: int, name: str, default: Any) -> Any:
        return args[index] if len(args) > index else kwargs.get(name, default)

    if f in _RECTIFIER_FUNCTIONS or method in _RECTIFIER_METHODS:
        return Op("relu", inputs)
    if f in (F.dropout, F.dropout2d) or method in _SAME or getattr(f, "__name__", "") == "stochastic_depth":
        return Op("same", inputs)
    if f is F.local_response_norm:
        return Op("lrn", inputs)
    if f in _MAX_POOLS:
        size = argument(1, "kernel_size", None)
        pool = _pool(size, argument(2, "stride", None), argument(3, "padding", 0), argument(5, "ceil_mode", False))
        return Op("maxpool", inputs, params=pool | {"dilation": pair(argument(4, "dilation", 1))})
    if f is F.avg_pool2d:
        size = argument(1, "kernel_size", None)
        pool = _pool(size, argument(2, "stride", None), argument(3, "padding", 0), argument(4, "ceil_mode", False))
        extra = {
            "count_include_pad": argument(5, "count_include_pad", True),
            "divisor": argument(6, "divisor_override", None),
        }
        return Op("avgpool", inputs, params=pool | extra)
    if f is F.adaptive_avg_pool2d:
        kind, params = _adaptive(node)
        return Op(kind, inputs, params=params)
    if (f is torch.mean or method == "mean") and _dims(argument(1, "dim", None)) in ({2, 3}, {-1, -2}):
        return Op("globalpool", inputs)
    if f in _CATS and argument(1, "dim", 0) in (1, -3):
        return Op("cat", tuple(args[0]) if args else inputs)  # type: ignore[arg-type]
    if (f in _ADDS or method in _ADD_METHODS) and len(inputs) == 2 and "alpha" not in kwargs and _same_shapes(inputs):
        return Op("add", inputs)
    if f in (torch.flatten,) or method in ("flatten", "view", "reshape"):
        return Op("flatten" if _flattens(node) else "other", inputs)
    if (
        f is F.pad
        and argument(2, "mode", "constant") == "constant"
        and not argument(3, "value", 0)
        and isinstance(args[1], (tuple, list))
        and len(args[1]) == 4
    ):
        return Op("pad", inputs, params={"padding": tuple(args[1])})
    if f in (F.softmax, torch.softmax, F.log_softmax) or method in ("softmax", "log_softmax"):
        return Op("softmax", inputs)
    return Op("other", inputs)


def _pool(size: Any, stride: Any, padding: Any, ceil: Any, dilation: Any = 1) -> dict[str, Any]:
    kernel = pair(size)
    return {
        "kernel": kernel,
        "stride": kernel if stride is None or stride == [] else pair(stride),
        "padding": pair(padding),
        "ceil": bool(ceil),
        "dilation": pair(dilation),
    }


def _adaptive(node: fx.Node) -> tuple[str, dict[str, Any]]:
    """Adaptive pooling is global, the identity, or an ordinary average pool, depending on the sizes."""
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return "other", {}
    if after[2:] == before[2:]:
        return "same", {}
    if tuple(after[2:]) == (1, 1):
        return "globalpool", {}
    if all(b % a == 0 for a, b in zip(after[2:], before[2:], strict=True)):
        kernel = (before[2] // after[2], before[3] // after[3])
        return "avgpool", _pool(kernel, kernel, 0, False) | {"count_include_pad": True, "divisor": None}
    return "other", {}


def _dims(dim: Any) -> set[int]:
    return set(dim) if isinstance(dim, (tuple, list)) else set()


def _flattens(node: fx.Node) -> bool:
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    if before is None or after is None or len(after) != 2 or len(before) not in (2, 4):
        return False
    return before[0] == after[0] and torch.Size(before[1:]).numel() == after[1]


def _same_shapes(nodes: tuple[fx.Node, ...]) -> bool:
    shapes = [shape_of(n) for n in nodes]
    return shapes[0] is not None and all(s == shapes[0] for s in shapes)


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the node's output for one image, or None when it is no tensor."""
    shape: tuple[int, ...] | None = node.meta.get("shape")
    return shape


def title(node: fx.Node) -> str:
    """How people know a node: the module it calls, or fx's name of a function call."""
    return str(node.target) if node.op == "call_module" else node.name


def average(x: Tensor, params: dict[str, Any]) -> Tensor:
    """The average pool that stands in for a pool in the linearized network."""
    return F.avg_pool2d(
        x,
        params["kernel"],
        params["stride"],
        params["padding"],
        ceil_mode=params["ceil"],
        count_include_pad=params.get("count_include_pad", True),
        divisor_override=params.get("divisor"),
    )


def weight_of(module: nn.Module) -> Tensor:
    """The weight that the next forward pass will use.

    Weight and spectral normalization of the old style and pruning write `module.weight` at each forward pass,
    in a pre-hook, from the parameters that are trained: between passes it is that of the last one.
    """
    for hook in module._forward_pre_hooks.values():
        if hasattr(hook, "compute_weight") or hasattr(hook, "apply_mask"):
            hook(module, ())
    return module.weight  # type: ignore[return-value]


def affine_scale(module: nn.Module) -> Tensor:
    """Per-channel factor of a batch normalization in eval mode, `(channels,)`."""
    assert isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_var is not None
    scale = (module.running_var + module.eps).rsqrt()
    return scale if module.weight is None else scale * module.weight
