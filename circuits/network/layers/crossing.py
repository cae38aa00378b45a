"""Which layers every path from the image to the output crosses, in a network that torch.fx cannot trace.

Autograd's own graph of one forward pass is gone through in place of the network's: an operation is crossed by every
path where nothing computed before it is used after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from circuits.network.layers.find import split_call

#: autograd's names of operations that mix channels by weights: convolutions and linear layers, not attention
_WEIGHTED = ("Convolution", "Addmm", "Mm", "Linear", "SlowConv", "MkldnnConv", "CudnnConv", "MiopenConv")
#: operations that give the channels of their input, or class scores in another form, and are no stage of their own
_PASSIVE = (
    "View", "Reshape", "UnsafeView", "Alias", "Clone", "Squeeze", "Unsqueeze", "Permute", "Transpose", "Select",
    "Slice", "Expand", "Mean", "AvgPool", "MaxPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "ConstantPad", "Upsample",
    "Softmax", "LogSoftmax",
)  # fmt: skip
_NAME = re.compile(rf"(?:(?:{'|'.join(_PASSIVE)})[A-Za-z0-9]*|T)Backward")
#: kinds of layers that are rectifiers, by the names of their modules
NONLINEAR = ("relu", "relu6", "leakyrelu", "elu", "gelu", "silu", "mish", "hardswish", "prelu", "selu", "softplus")


def stages(functions: Mapping[str, Any], outputs: Iterable[Any], module: nn.Module) -> list[list[str]]:
    """Names of the layers that every path crosses, one list for each stage of weights, in order.

    Args:
        functions: layer name -> the autograd function of its output, or None, in the order in which layers ran.
        outputs: the autograd functions of what the network puts out.
        module: the network.

    Returns:
        Of each stage the layers that give the last nonlinearity that is crossed, or where there is none the last
        operation; several names are of one output.
    """
    ends = [f for f in outputs if f is not None]
    order, last_use = _uses(ends)
    named: dict[Any, list[str]] = {}
    for name, function in functions.items():
        if function in order:
            named.setdefault(function, []).append(name)
    result: list[list[str]] = []
    reach, weighted = -1, False
    for function in order:
        weighted = weighted or type(function).__name__.startswith(_WEIGHTED)
        names = named.get(function, [])
        passive = _NAME.match(type(function).__name__) and not any(_is_weight(module, name) for name in names)
        if reach <= order[function] and names and not passive:
            rectified = bool(result) and _is_nonlinear(module, result[-1]) and not _is_nonlinear(module, names)
            if weighted or not result:
                result.append(names)
            elif not rectified:
                result[-1] = names
            weighted = False
        reach = max(reach, last_use[function])
    return result


def _uses(ends: list[Any]) -> tuple[dict[Any, int], dict[Any, int]]:
    """Of every function that leads to an end: its place in the order of running, and the last place of its use."""
    functions, waiting = set(ends), list(ends)
    while waiting:
        for function, _ in waiting.pop().next_functions:
            if function is not None and function not in functions:
                functions.add(function)
                waiting.append(function)
    # the image is a leaf, which autograd numbers as if it came last
    leaves = [f for f in functions if not f.next_functions]
    inner = sorted((f for f in functions if f.next_functions), key=lambda f: f._sequence_nr())
    order = {function: number for number, function in enumerate([*leaves, *inner])}
    last_use = dict(order)
    for function, number in order.items():
        for before, _ in function.next_functions:
            if before is not None:
                last_use[before] = max(last_use[before], number)
    last_use |= dict.fromkeys(ends, len(order))
    return order, last_use


def _is_weight(module: nn.Module, name: str) -> bool:
    """Whether a layer is weights alone: of a linear layer over tokens, autograd names the reshaping at its end."""
    part = module.get_submodule(split_call(name)[0])
    return next(part.children(), None) is None and next(part.parameters(), None) is not None


def _is_nonlinear(module: nn.Module, names: list[str]) -> bool:
    paths = (split_call(name)[0] for name in names)
    return any(type(module.get_submodule(path)).__name__.lower() in NONLINEAR for path in paths)
