"""ReLUs that let a gradient through where all of it would be blocked, in any network.

A unit that is inactive at all positions of the first image gets no gradient, and its image stays gray noise. Lucid's
remedy (`lucid.misc.redirected_relu_grad`) is to redirect the gradient g of the loss at a ReLU of input x:

    x > 0:   g        as usual
    x <= 0:  g where g < 0 (a descent step raises x), else 0; but only for images whose usual gradient is 0 everywhere

It is used in the first steps only, and image by image: one blocked image does not change the others.

It acts on the functions themselves, so that modules, `F.relu(x, inplace=True)` and `x.relu_()` are all covered; ReLU6
and hardtanh are redirected at both bounds. GELU and SiLU, which transformers have, never block all of a gradient, and
do worse: left of their minimum they rise towards zero as x falls, so that ascent drives a unit that begins there
further off. An image is redirected where x <= 0 at every position that has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RELUS = {torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_}
_CLIPPED = {F.relu6, F.hardtanh, F.hardtanh_}
_SMOOTH = {F.gelu, F.silu, F.mish}


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        inside = (x > ctx.low) & (x < ctx.high)
        usual = torch.where(inside, grad, 0.0)
        # descent raises x where the gradient is negative, lowers it where it is positive: back inside the bounds
        inward = torch.where(x <= ctx.low, grad < 0, grad > 0)
        redirected = torch.where(inside | inward, grad, 0.0)
        blocked = usual.flatten(1).abs().amax(1) == 0
        return torch.where(blocked.view(-1, *[1] * (x.ndim - 1)), redirected, usual), None, None


class _RedirectedSmooth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            (usual,) = torch.autograd.grad(ctx.function(leaf), leaf, grad)
        redirected = torch.where((x <= 0) & (grad < 0), grad, usual)
        off = ((x <= 0) | (grad == 0)).flatten(1).all(1)
        return torch.where(off.view(-1, *[1] * (x.ndim - 1)), redirected, usual), None


class _Redirecting(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELUS or func in _CLIPPED:
            x = args[0] if args else kwargs["input"]
            if x.requires_grad and x.ndim >= 2:
                low, high = 0.0, float("inf")
                if func is F.relu6:
                    high = 6.0
                elif func in _CLIPPED:
                    low, high = _bounds(*args[1:3], **kwargs)
                return _Redirected.apply(x, low, high)
        if func in _SMOOTH:
            x = args[0] if args else kwargs["input"]
            if x.requires_grad and x.ndim >= 2:
                form = {"approximate": kwargs["approximate"]} if "approximate" in kwargs else {}  # never in place
                return _RedirectedSmooth.apply(x, partial(func, **form))
        return func(*args, **kwargs)


def _bounds(min_val: float = -1.0, max_val: float = 1.0, **_: Any) -> tuple[float, float]:
    return float(min_val), float(max_val)


@contextmanager
def redirected() -> Iterator[None]:
    """Inside, ReLUs redirect the gradient of images that would get none. Their forward pass stays the same.

    Gradients must be those of a loss, which is *minimized*: minus the objective.
    """
    with _Redirecting():
        yield
