"""The meaning of each operation of a network: one small vocabulary for modules, functions and methods.

`read_op` turns a torch.fx node into an `Op`, whatever way the author of the network wrote it
(`nn.ReLU()`, `F.relu(x, inplace=True)`, `x.relu_()`). Geometry, linearization and the exact
composition of kernels (graph.py, kernel_composition.py) know only `Op` kinds.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from zoo.networks.pooling import MaxPool2d

Pair = tuple[int, int]

#: pointwise nonlinearities that the linearized network skips
RECTIFIERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.PReLU, nn.RReLU,
)  # fmt: skip
_RECTIFIER_FUNCTIONS = frozenset((
    F.relu, F.relu_, F.relu6, F.leaky_relu, F.leaky_relu_, F.elu, F.elu_, F.celu, F.celu_, F.selu, F.selu_, F.gelu,
    F.silu, F.mish, F.hardswish, F.hardtanh, F.hardtanh_, F.softplus, F.prelu, F.rrelu, torch.relu, torch.relu_,
    torch.prelu, Tensor.relu, Tensor.relu_,
))  # fmt: skip
#: rectifiers when what they cut off starts at zero: `x.clamp(min=0)`, `torch.clip(x, 0, 6)`, `F.threshold(x, 0, 0)`
_CLAMPS = frozenset((
    torch.clamp, torch.clamp_, torch.clip, torch.clip_, Tensor.clamp, Tensor.clamp_, Tensor.clip, Tensor.clip_,
))  # fmt: skip
_CLAMPS_BELOW = frozenset((torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_))
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_MAX_POOLS = (F.max_pool2d, torch.max_pool2d)
_MAXIMA = (torch.amax, Tensor.amax)
#: functions and modules that also choose by size, in forms that are not followed channel by channel
_OTHER_MAXIMA = frozenset((
    torch.amax, Tensor.amax, torch.max, Tensor.max, torch.topk, Tensor.topk, torch.sort, Tensor.sort, torch.kthvalue,
    Tensor.kthvalue, torch.median, Tensor.median, F.max_pool1d, F.max_pool3d, F.adaptive_max_pool1d,
    F.adaptive_max_pool3d, F.fractional_max_pool2d, F.adaptive_max_pool2d_with_indices, F.max_pool2d_with_indices,
))  # fmt: skip
MAXIMUM_FUNCTIONS = frozenset((*_MAX_POOLS, F.adaptive_max_pool2d, *_OTHER_MAXIMA))
"""All functions that take a maximum, or choose by size."""
_OTHER_MAXIMUM_MODULES = (
    nn.MaxPool1d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool3d, nn.FractionalMaxPool2d
)  # fmt: skip
#: functions that put values elsewhere and change none
_REARRANGE = (
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim", "swapaxes",
    "chunk", "split", "tensor_split", "getitem", "contiguous", "concat", "cat", "concatenate", "stack", "roll", "flip",
    "channel_shuffle", "narrow", "index_select",
)  # fmt: skip
#: those of them after which a position of the map is where the axes of the tensor say: not `flip`, nor a choice
_MOVES_AXES = (
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim", "swapaxes",
    "getitem", "contiguous", "concat", "cat", "concatenate", "roll",
)  # fmt: skip
#: the dimensions of a map, as a reduction over positions names them
_MAPS = ({2, 3}, {-1, -2})
_ADDS = (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)
_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "add": _ADDS,
    "subtract": (operator.sub, operator.isub, torch.sub, Tensor.sub, Tensor.sub_),
    "multiply": (operator.mul, operator.imul, torch.mul, Tensor.mul, Tensor.mul_),
    "divide": (operator.truediv, operator.itruediv, torch.div, Tensor.div, Tensor.div_),
}
_NEGATIONS = (operator.neg, torch.neg, Tensor.neg)
_SOFTMAXES = (F.softmax, torch.softmax, F.log_softmax, torch.log_softmax, Tensor.softmax, Tensor.log_softmax)
#: functions and modules other than these whose output at a position depends on the input there alone
_POINTWISE = frozenset((
    *(f for functions in _ARITHMETIC.values() for f in functions), *_NEGATIONS,
    torch.sigmoid, F.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, torch.tanh, F.tanh, Tensor.tanh, Tensor.tanh_,
    F.hardsigmoid, F.softsign, F.logsigmoid, torch.exp, Tensor.exp, torch.log, Tensor.log, torch.sqrt, Tensor.sqrt,
    torch.rsqrt, Tensor.rsqrt, torch.square, Tensor.square, torch.pow, Tensor.pow, operator.pow, torch.abs, Tensor.abs,
    torch.sin, torch.cos, torch.clamp, Tensor.clamp, Tensor.clamp_, torch.where, torch.maximum, torch.minimum,
    operator.gt, operator.lt, operator.ge, operator.le, Tensor.to, Tensor.type_as, torch.erf, Tensor.erf,
))  # fmt: skip
_POINTWISE_MODULES = (nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.Tanhshrink, nn.Threshold)
#: modules that keep channels apart, besides those whose kind says so
_MOVERS = (nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle)
_BY_CHANNEL = (*_POINTWISE_MODULES, nn.InstanceNorm2d, nn.ReflectionPad2d, nn.ReplicationPad2d)
#: a constant that a max pool is padded with so that it never chooses it: -inf, or the least number of a type
_NEVER_CHOSEN = 65504.0
_CATS = (torch.cat, torch.concat, torch.concatenate)
_SAME = ("contiguous", "clone", "detach", "float")
#: functions that the linearized network passes by, as it does rectifiers
DROPOUT_FUNCTIONS = frozenset(
    (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.local_response_norm)
)


def rectifies(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of torch is a rectifier, which the linearized network skips."""
    if function in _RECTIFIER_FUNCTIONS:
        return True

    def argument(index: int, name: str) -> Any:
        return args[index] if len(args) > index else kwargs.get(name)

    if function in _CLAMPS:
        low, high = argument(1, "min"), argument(2, "max")
        return _is_zero(low) and (high is None or (isinstance(high, int | float) and high > 0))
    if function in _CLAMPS_BELOW:
        return _is_zero(argument(1, "min"))
    return (
        function in (F.threshold, torch.threshold_)
        and _is_zero(argument(1, "threshold"))
        and _is_zero(argument(2, "value"))
    )


def writes_in_place(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of a function, or of the tensor's method of a name, writes into its first argument."""
    name = function if isinstance(function, str) else getattr(function, "__name__", "")
    if name in _WRITING or (name.endswith("_") and not name.endswith("__")):
        return True
    at = _position_of_inplace(function)
    return bool(kwargs.get("inplace", at is not None and len(args) > at and args[at]))


_WRITING = frozenset(f"{mark}{name}{mark}" for mark in ("", "__") for name in ("iadd", "isub", "imul", "itruediv"))


@cache
def _position_of_inplace(function: Any) -> int | None:
    try:
        return list(inspect.signature(function).parameters).index("inplace")
    except (TypeError, ValueError):  # a name, a builtin without a signature, or no such argument
        return None


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


@dataclass(frozen=True)
class Op:
    """One operation: its kind, the nodes it reads what the network computes from, and its parameters.

    Kinds: input, constant (computed from weights alone), conv, linear, relu, affine, lrn, dropout, maxpool, avgpool,
    globalpool, cat, add, pad, flatten, same, softmax, other (runs, but its meaning is unknown).

    Attributes:
        weights: nodes of constants that it reads: the kernel of `F.conv2d`, a factor.
    """

    kind: str
    inputs: tuple[fx.Node, ...]
    module: nn.Module | None = None
    params: dict[str, Any] = field(default_factory=dict)
    weights: tuple[fx.Node, ...] = ()

    @property
    def skipped(self) -> bool:
        """Whether the linearized network passes its input through unchanged."""
        return self.kind in ("relu", "lrn", "dropout", "same")

    @property
    def weighted(self) -> bool:
        """Whether it mixes channels by learned weights."""
        if self.kind != "other":
            return self.kind in ("conv", "linear")
        return _has_parameters(self.module) or any(len(shape_of(n) or ()) > 1 for n in self.weights)

    @property
    def by_channel(self) -> bool:
        """Whether channel c of the output is channel c of the one input: pools, ReLUs, batch normalization.

        Local response normalization counts: it scales each channel, though by its neighbors.
        """
        known = ("relu", "affine", "lrn", "dropout", "maxpool", "avgpool", "pad", "same")
        aligned = self.kind in known or "elementwise" in self.params or isinstance(self.module, _BY_CHANNEL)
        return len(self.inputs) == 1 and (aligned or self.takes_maximum)

    @property
    def takes_maximum(self) -> bool:
        """Whether it takes the maximum over positions: the pool of a mean is then not the mean of the pool."""
        return self.kind == "maxpool" or isinstance(self.module, nn.AdaptiveMaxPool2d) or "maximum" in self.params

    @property
    def takes_other_maximum(self) -> bool:
        """Whether it takes a maximum, or chooses by size, in a form that `by_channel` does not follow."""
        return "other maximum" in self.params or isinstance(self.module, _OTHER_MAXIMUM_MODULES)

    @property
    def rearranges(self) -> bool:
        """Whether it moves values to other places, other channels maybe, and changes none."""
        return self.kind in ("cat", "flatten") or "rearranges" in self.params or isinstance(self.module, _MOVERS)

    @property
    def moves_axes(self) -> bool:
        """Whether it changes no value, and keeps positions as far as the layout of its output tells them."""
        moved = self.kind in ("flatten", "cat") or "moves axes" in self.params
        return moved or isinstance(self.module, (nn.Flatten, nn.Unflatten))

    @property
    def over_last_axis(self) -> bool:
        """Whether it mixes nothing but what lies along the last axis: a linear layer, a layer normalization."""
        own = self.module is not None and is_torchs_own(self.module) and isinstance(self.module, nn.LayerNorm)
        normalized = getattr(self.module, "normalized_shape", ()) if own else ()
        return self.kind == "linear" or "over last axis" in self.params or len(normalized) == 1


def _has_parameters(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def pair(value: Any) -> Pair:
    """An int or a sequence of one or two ints as `(height, width)`."""
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def read_op(node: fx.Node, module: nn.Module | None, constants: Collection[fx.Node]) -> Op:
    """The meaning of one fx node.

    Args:
        node: with `meta["shape"]` of tensors and `meta["value"]` of numbers, for one image.
        module: the leaf module when the node calls one.
        constants: nodes that do not depend on the image.
    """
    if node.op == "placeholder":
        return Op("input", ())
    if node in constants:
        return Op("constant", (), module)
    inputs = tuple(i for i in node.all_input_nodes if i not in constants and "value" not in i.meta)
    if node.op == "call_module" and module is not None:
        return _read_module(node, module, inputs)
    if node.op in ("call_function", "call_method"):
        op = _read_function(node, inputs, constants)
        return replace(op, weights=tuple(i for i in node.all_input_nodes if i in constants))
    return Op("other", inputs, module)


def is_torchs_own(module: nn.Module) -> bool:
    """Whether `module` computes what the class of torch.nn that it derives from does."""
    if isinstance(module, MaxPool2d):  # of our networks: torch's values, bit for bit
        return True
    base = next((c for c in type(module).__mro__ if c.__module__.startswith("torch.")), nn.Module)
    methods = ("forward", "_conv_forward")
    return all(getattr(type(module), m, None) is getattr(base, m, None) for m in methods)


def _read_module(node: fx.Node, module: nn.Module, inputs: tuple[fx.Node, ...]) -> Op:
    kind, params = "other", {}
    if isinstance(module, nn.LocalResponseNorm):  # a normalization of one's own is one all the same
        return Op("lrn", inputs, module)
    if not is_torchs_own(module):
        params = _measured_conv(module, node) if isinstance(module, nn.Conv2d) else {}
        return Op("relu" if _is_relu(module) else "other", inputs, module, params)
    match module:
        case nn.Conv2d():
            padding = conv_padding(module.padding, module.kernel_size, module.dilation)
            params = _conv(module.kernel_size, module.stride, padding, module.dilation, module.groups)
            kind = "conv" if module.padding_mode == "zeros" else "other"
        case nn.Linear():
            kind = "linear"
        case nn.BatchNorm2d() | nn.BatchNorm1d() if not module.training and module.running_var is not None:
            kind = "affine"
        case nn.MaxPool2d():
            kind = "maxpool"
            params = _pool(module.kernel_size, module.stride, module.padding, module.ceil_mode, module.dilation)
        case nn.AvgPool2d():
            kind = "avgpool"
            params = _pool(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            params |= {"count_include_pad": module.count_include_pad, "divisor": module.divisor_override}
        case nn.AdaptiveAvgPool2d():
            kind, params = _adaptive(node)
        case nn.ZeroPad2d() | nn.ConstantPad2d():
            kind, params = "pad", _padding(module.padding, module.value)
        case nn.ReflectionPad2d() | nn.ReplicationPad2d():
            params = _padding(module.padding, 0)
        case nn.Flatten():
            kind = "flatten" if _flattens(node) else "other"
        case nn.Softmax() | nn.LogSoftmax():
            kind = "softmax" if _over_channels(node, module.dim) else "other"
        case nn.Identity():
            kind = "same"
        case _ if isinstance(module, RECTIFIERS) or (isinstance(module, nn.Threshold) and _is_relu(module)):
            kind = "relu"
        case _ if isinstance(module, _DROPOUTS):
            kind = "dropout"
        case _ if isinstance(module, _POINTWISE_MODULES):
            params = {"pointwise": True}
    return Op(kind, inputs, module, params)


def _measured_conv(module: nn.Conv2d, node: fx.Node) -> dict[str, Any]:
    """Geometry of a convolution with a forward of its own, which may pad as it likes; nothing where it is no window."""
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    if before is None or after is None or len(before) != 4 or len(after) != 4 or min(after[2:]) < 4:
        return {}
    like = module.weight
    y, x = after[2] // 2, after[3] // 2
    with torch.enable_grad():
        image = torch.zeros((1, *before[1:]), dtype=like.dtype, device=like.device, requires_grad=True)
        out = module(image).sum(dim=1)
        used = [torch.autograd.grad(out[0, y + i, x + i], image, retain_graph=True)[0][0].abs().sum(0) for i in (0, 1)]
    boxes = [[(int(n[0]), int(n[-1])) for n in (u.sum(1).nonzero()[:, 0], u.sum(0).nonzero()[:, 0])] for u in used]
    params = _conv(module.kernel_size, module.stride, ((0, 0), (0, 0)), module.dilation, module.groups)
    padding = []
    for axis, position in enumerate((y, x)):
        (first, last), (following, _) = boxes[0][axis], boxes[1][axis]
        size = params["dilation"][axis] * (params["kernel"][axis] - 1) + 1
        if last - first + 1 != size or following - first != params["stride"][axis]:
            return {}
        padding.append(position * params["stride"][axis] - first)
    return params | {"padding": (padding[0], padding[1])}


def _is_relu(module: nn.Module) -> bool:
    """Whether a module without weights that torch.fx cannot look into gives max(x, 0)."""
    if _has_parameters(module):
        return False
    x = 4 * torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            out = module(x.clone())
    except Exception:  # whatever the user's own forward raises
        return False
    return isinstance(out, Tensor) and torch.equal(out, torch.relu(x))


def _read_function(node: fx.Node, inputs: tuple[fx.Node, ...], constants: Collection[fx.Node]) -> Op:
    f: Any = getattr(Tensor, str(node.target), None) if node.op == "call_method" else node.target
    name = node.target if node.op == "call_method" else getattr(f, "__name__", "")
    # sizes that the forward computes are numbers here: those for one image of the declared size
    args, kwargs = _with_numbers(node.args), _with_numbers(dict(node.kwargs))

    def argument(index: int, name: str, default: Any) -> Any:
        return args[index] if len(args) > index else kwargs.get(name, default)

    if rectifies(f, args, kwargs):
        return Op("relu", inputs)
    if f is F.local_response_norm:
        return Op("lrn", inputs)
    if f in DROPOUT_FUNCTIONS or (node.op == "call_method" and name in _SAME) or name == "stochastic_depth":
        return Op("same", inputs)
    if f is F.conv2d and inputs == (args[0],) and argument(1, "weight", None) in constants:
        weight = argument(1, "weight", None)
        kernel, dilation = (shape_of(weight) or ())[2:], argument(5, "dilation", 1)
        padding = conv_padding(argument(4, "padding", 0), kernel, dilation)
        params = _conv(kernel, argument(3, "stride", 1), padding, dilation, argument(6, "groups", 1))
        return Op("conv", inputs, params=params | {"weight": weight})
    if f is F.linear and inputs == (args[0],) and argument(1, "weight", None) in constants:
        return Op("linear", inputs, params={"weight": argument(1, "weight", None)})
    if f is F.batch_norm and not argument(5, "training", False) and argument(2, "running_var", None) in constants:
        params = {"variance": argument(2, "running_var", None), "weight": argument(3, "weight", None)}
        return Op("affine", inputs, params=params | {"eps": argument(7, "eps", 1e-5)})
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
    if f in (torch.mean, Tensor.mean) and _dims(argument(1, "dim", None)) in _MAPS:
        return Op("globalpool", inputs)
    if f is F.adaptive_max_pool2d or (f in _MAXIMA and _dims(argument(1, "dim", None)) in _MAPS):
        return Op("other", inputs, params={"maximum": True})
    if f in _CATS and argument(1, "dim", 0) in (1, -3):
        return Op("cat", tuple(args[0]) if args else inputs)
    if f in _ADDS and len(inputs) == 2 and "alpha" not in kwargs and _same_shapes(inputs):
        return Op("add", inputs)
    if f in (torch.flatten, torch.reshape, Tensor.flatten, Tensor.view, Tensor.reshape) and _flattens(node):
        return Op("flatten", inputs)
    if f is F.pad and isinstance(argument(1, "pad", None), (tuple, list)) and len(argument(1, "pad", ())) == 4:
        mode, value = argument(2, "mode", "constant"), argument(3, "value", 0) or 0
        params = _padding(argument(1, "pad", ()), value)
        if mode in ("constant", "reflect", "replicate"):
            return Op("pad" if mode == "constant" else "other", inputs, params=params)
    if f in _SOFTMAXES and _over_channels(node, argument(1, "dim", None)):
        return Op("softmax", inputs)
    factor = _factor(f, args, node, inputs)
    if factor is not None:
        return Op("affine", inputs, params=factor)
    params = {
        "elementwise": f in _POINTWISE,
        "pointwise": _keeps_positions(f, name, node, argument),
        # over the channels a maximum mixes them, as a convolution does; of two tensors it is elementwise
        "other maximum": f in _OTHER_MAXIMA
        and len(inputs) == 1
        and not _over_channels(inputs[0], argument(1, "dim", 0)),
        "rearranges": name in _REARRANGE,
        "moves axes": name in _MOVES_AXES,
        "over last axis": f is F.layer_norm and len(argument(1, "normalized_shape", ())) == 1,
    }
    return Op("other", inputs, params={key: True for key, holds in params.items() if holds})


def _with_numbers(value: Any) -> Any:
    return fx.node.map_arg(value, lambda n: n.meta.get("value", n))


def _factor(f: Any, args: Any, node: fx.Node, inputs: tuple[fx.Node, ...]) -> dict[str, Any] | None:
    """What each channel is multiplied by, of a product or a sum with a number or a constant for each channel."""
    if f in _NEGATIONS and len(inputs) == 1:
        return {"factor": -1.0}
    kind = next((kind for kind, functions in _ARITHMETIC.items() if f in functions), None)
    if kind is None or len(inputs) != 1 or len(args) != 2 or node.kwargs or list(args).count(inputs[0]) != 1:
        return None
    other, first = (args[1], True) if args[0] is inputs[0] else (args[0], False)
    shape = shape_of(node)
    if shape is None or shape != shape_of(inputs[0]) or not _for_each_channel(other, shape):
        return None
    match kind:
        case "multiply":
            return {"factor": other}
        case "divide" if first:
            return {"divisor": other}
        case "add":
            return {"factor": 1.0}
        case "subtract":
            return {"factor": 1.0 if first else -1.0}
    return None


def _for_each_channel(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether `value`, a number or the node of a constant, is one number for each channel of maps or vectors."""
    if not isinstance(value, fx.Node):
        return isinstance(value, int | float)
    of = shape_of(value)
    if of is None or len(shape) not in (2, 4) or len(of) > len(shape):
        return False
    padded = (1,) * (len(shape) - len(of)) + of
    return padded[0] == 1 and padded[1] in (1, shape[1]) and all(n == 1 for n in padded[2:])


def _keeps_positions(f: Any, name: Any, node: fx.Node, argument: Callable[[int, str, Any], Any]) -> bool:
    """Whether each position of the output is computed from the same position of the inputs."""
    if f in _POINTWISE or f is operator.getitem and "parts" in node.all_input_nodes[0].meta:
        return True
    shapes = [shape_of(i) for i in node.all_input_nodes]
    if name in ("chunk", "split", "tensor_split", "unbind"):
        return argument(2, "dim", 0) in (1, -3) and shapes[:1] != [None] and len(shapes[0] or ()) == 4
    if name in ("mean", "sum", "var", "std", "amax"):  # over the channels
        dim = argument(1, "dim", None)
        return len(shapes[0] or ()) == 4 and len(shape_of(node) or ()) == 4 and dim in (1, -3, [1], (1,), [-3], (-3,))
    if name in ("view", "reshape"):  # channels into groups and back
        before, after = shapes[0] or (), shape_of(node) or ()
        return {len(before), len(after)} <= {4, 5} and before[:1] + before[-2:] == after[:1] + after[-2:]
    if name in ("transpose", "swapaxes"):
        return len(shapes[0] or ()) == 5 and {argument(1, "dim0", None), argument(2, "dim1", None)} == {1, 2}
    return False


def _over_channels(node: fx.Node, dim: Any) -> bool:
    shape = shape_of(node) or ()
    return dim in (1, 1 - len(shape)) or (dim is None and len(shape) in (2, 4))  # torch's own default is 1 there


def _conv(kernel: Any, stride: Any, padding: tuple[Pair, Pair], dilation: Any, groups: int) -> dict[str, Any]:
    return {
        "kernel": pair(kernel),
        "stride": pair(stride),
        "padding": padding[0],
        "dilation": pair(dilation),
        "groups": int(groups),
    }


def conv_padding(padding: Any, kernel: Any, dilation: Any) -> tuple[Pair, Pair]:
    """Zero padding of a convolution: `(top, left)`, `(bottom, right)`."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(pair(dilation), pair(kernel), strict=True)]
        before = (totals[0] // 2, totals[1] // 2)
        return before, (totals[0] - before[0], totals[1] - before[1])
    both = (0, 0) if padding == "valid" else pair(padding)
    return both, both


def _padding(sides: Any, value: Any) -> dict[str, Any]:
    left, right, top, bottom = (int(side) for side in sides)
    return {"padding": (left, right, top, bottom), "value": float(value)}


def linear_padding(value: float) -> float:
    """What the linearized network pads with: nothing where -inf keeps a max pool from choosing the padding."""
    return value if abs(value) < _NEVER_CHOSEN else 0.0


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


def tap_positions(
    size: int, taps: int, padding: int, stride: int, dilation: int
) -> tuple[list[tuple[slice, slice]], int]:
    """Along one axis of a convolution, for each tap the outputs that read it within the map, and what they read.

    And the number of outputs.
    """
    count = (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    positions = []
    for tap in range(taps):
        at = tap * dilation - padding  # what output 0 reads
        first, last = max(0, -(at // stride)), min(count, (size - 1 - at) // stride + 1)
        last = max(first, last)
        start = first * stride + at
        positions.append((slice(first, last), slice(start, start + (last - first) * stride, stride)))
    return positions, count
