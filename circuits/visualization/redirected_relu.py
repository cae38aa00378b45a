"""Rectifiers that let a gradient through where all of it would be blocked, in any network.

A unit that is off everywhere in the first picture gets no gradient, and its picture stays gray noise. Lucid's
remedy is to redirect: where a rectifier would block the gradient of a *whole picture*, let through what would raise
its input. It is wanted in the first steps only, and per picture: one blocked picture does not change the others.

Works on the functions themselves, so modules, `F.relu(x, inplace=True)` and `x.relu_()` are all the same to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RECTIFIERS = {torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_}
_CLIPPED = {F.relu6, F.hardtanh, F.hardtanh_}


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
        plain = torch.where(inside, grad, 0.0)
        # What is minimized falls where the gradient is negative and x rises: back towards the open side.
        inward = torch.where(x <= ctx.low, grad < 0, grad > 0)
        redirected = torch.where(inside | inward, grad, 0.0)
        blocked = plain.flatten(1).abs().amax(1) == 0
        return torch.where(blocked.view(-1, *[1] * (x.ndim - 1)), redirected, plain), None, None


class _Redirecting(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RECTIFIERS or func in _CLIPPED:
            x = args[0] if args else kwargs["input"]
            if x.requires_grad and x.ndim >= 2:
                low, high = 0.0, float("inf")
                if func is F.relu6:
                    high = 6.0
                elif func in _CLIPPED:
                    low, high = _bounds(*args[1:3], **kwargs)
                return _Redirected.apply(x, low, high)
        return func(*args, **kwargs)


def _bounds(min_val: float = -1.0, max_val: float = 1.0, **_: Any) -> tuple[float, float]:
    return float(min_val), float(max_val)


@contextmanager
def redirected() -> Iterator[None]:
    """Inside, rectifiers redirect the gradient of pictures that would get none. What they compute stays the same.

    Gradients must be those of something to be *minimized*: minus the objective.
    """
    with _Redirecting():
        yield
