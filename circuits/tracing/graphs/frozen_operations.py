"""The network as the affine map that it is at one image: every nonlinearity held as it acts there.

Of a piecewise linear operation that is its linear piece: a ReLU passes what it passes, a max pool takes what it takes.
Of the others it is the form that the field's attribution graphs freeze (Ameisen et al., Circuit Tracing, 2025):

- rectifiers that are a value times a gate of it (SiLU, GELU, Hardswish): the gate is held, `f(x) = (f(a) / a) x`.
- normalizations (layer, group, instance, RMS and local response): the denominator is held.
- attention: its pattern is held, values move linearly.
- a product of two values that depend on the image: the gate is held, which is the one that comes out of a sigmoid, or
  is broadcast (squeeze and excitation), or else comes out of a SiLU or GELU (the gated MLPs of language models).
- sigmoid and tanh where they are no gate: the tangent, whose constant is a bias.

A function mode, so that it does not matter how the network is written. One pass records the steps at an image, with
the network's own values; a second replays them on other activations: with none, it gives what the biases alone make.
What has no such form is refused where it is known, and else found by the sums that do not come out (`flows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from circuits.errors import GraphError
from circuits.network.operations import MAXIMUM_FUNCTIONS, rectifies, writes_in_place

Step = Callable[..., Any]
"""What a call computes of its arguments, with all that depends on the image held."""

_SIGMOIDS = frozenset((
    torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid, torch.special.expit, F.hardsigmoid,
))  # fmt: skip
_TANGENTS = frozenset((
    *_SIGMOIDS, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, F.tanh, F.softplus, F.logsigmoid, F.softsign,
    F.tanhshrink,
))  # fmt: skip
_GATED = frozenset((F.silu, F.gelu))
"""Rectifiers that gate another value in gated MLPs (SwiGLU, GeGLU)."""
_SOFTMAXES = frozenset((F.softmax, torch.softmax, Tensor.softmax))
_AMAX = frozenset((torch.amax, Tensor.amax))
_POOLS: dict[Any, Any] = {
    F.max_pool1d: F.max_pool1d_with_indices, torch.max_pool1d: F.max_pool1d_with_indices,
    F.max_pool2d: F.max_pool2d_with_indices, torch.max_pool2d: F.max_pool2d_with_indices,
    F.max_pool3d: F.max_pool3d_with_indices, torch.max_pool3d: F.max_pool3d_with_indices,
    F.adaptive_max_pool1d: F.adaptive_max_pool1d_with_indices,
    F.adaptive_max_pool2d: F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d: F.adaptive_max_pool3d_with_indices,
}  # fmt: skip
"""Max pools, each with the function that also gives the places that it takes."""
_PRODUCTS = ("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__")


class FrozenOperations(TorchFunctionMode):
    """Records each nonlinear step of the network at an image, and replays it on other activations.

    `with operations: ...` records; `with operations.replayed(): ...` runs the same network again, step by step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[tuple[Any, Step]] = []
        self._replay: Iterator[tuple[Any, Step]] | None = None
        self._paused = False
        self._gates: list[Tensor] = []
        self._rectified: list[Tensor] = []

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, every recorded step acts as it was recorded."""
        self._replay = iter(self._steps)
        try:
            with self:
                yield
        finally:
            self._replay = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is recorded: what runs there is no part of the network."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused or not self._is_step(func, args, kwargs):
            return func(*args, **kwargs)
        if self._replay is None:
            step = self._step(func, args, kwargs)
            self._steps.append((func, step))
        else:
            recorded = next(self._replay, None)
            if recorded is None or recorded[0] is not func:
                raise GraphError(
                    "the network takes another path where its layers are zero (an `if` on its activations): what its "
                    "biases give on this one is not known"
                )
            step = recorded[1]
        x = args[0] if args else kwargs["input"]
        out = step(*(args or (x,)))
        if func in _SIGMOIDS:
            self._gates.append(out)  # held, so that no other tensor takes its place in memory
        elif func in _GATED:
            self._rectified.append(out)
        if isinstance(out, Tensor) and writes_in_place(func, args, kwargs):
            return x.copy_(out)
        return out

    def _is_step(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if func.__name__ in _PRODUCTS:
            return len(args) == 2 and all(isinstance(a, Tensor) for a in args)
        return (
            rectifies(func, args, kwargs)
            or func in _TANGENTS
            or func in _SOFTMAXES
            or func in _POOLS
            or func in _NORMS
            or func is F.local_response_norm
            or func in MAXIMUM_FUNCTIONS
            or func in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
        )

    def _step(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        x: Tensor = args[0] if args else kwargs["input"]
        if func.__name__ in _PRODUCTS:
            return self._product(args)
        rest = args[1:], {k: v for k, v in kwargs.items() if k != "input"}
        if func in _POOLS:
            return _pool(_POOLS[func], x, *rest)
        if func in _AMAX:
            return _amax(x, *rest)
        if func is F.scaled_dot_product_attention:
            return _attention(args, kwargs)
        if func in _SOFTMAXES:
            pattern = func(x.detach(), *rest[0], **rest[1])
            return lambda *_: pattern
        if func in _NORMS:
            return _NORMS[func](x, *rest[0], **rest[1])
        if func in _TANGENTS:
            return _tangent(func, x, *rest)
        if func is F.local_response_norm or rectifies(func, args, kwargs):
            return _scaled(func, x, *rest)
        if func is F.multi_head_attention_forward:
            return _multi_head(args, kwargs)
        if isinstance(x, Tensor) and x.requires_grad:
            raise GraphError(
                f"the network takes a maximum, or chooses by size, by {func.__name__}, which is not held at an image: "
                "write it as nn.MaxPool2d, nn.AdaptiveMaxPool2d or amax, or take layers after it"
            )
        return lambda *a: func(*a, *rest[0][len(a) - 1 :], **rest[1])

    def _product(self, factors: tuple[Any, ...]) -> Step:
        if not all(f.requires_grad for f in factors):
            return lambda a, b: a * b
        gates = [any(f is gate for gate in self._gates) for f in factors]
        sizes = [f.numel() for f in factors]
        if gates[0] == gates[1] and sizes[0] == sizes[1]:
            gates = [any(f is gate for gate in self._rectified) for f in factors]
        if gates[0] == gates[1] and sizes[0] == sizes[1]:
            raise GraphError(
                "the network multiplies two values of one size that both depend on the image, and neither comes out of "
                "a sigmoid, a SiLU or a GELU: which of them is the gate is not known; take layers after it"
            )
        held = int(gates[1]) if gates[0] != gates[1] else int(sizes[1] < sizes[0])
        gate = factors[held].detach()
        return lambda *a: a[1 - held] * gate


def _affine(slope: Tensor, constant: Tensor) -> Step:
    return lambda x, *_: x * slope + constant


def _scaled(func: Any, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
    """A value times what the function scales it by at the image; nothing where the value is zero."""
    with torch.no_grad():
        at = x.detach().clone()
        out = func(at.clone(), *args, **kwargs)
        slope = torch.where(at == 0, torch.zeros_like(at), out / at)
        return _affine(slope, out - slope * at)


def _tangent(func: Any, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_(True)
        out = func(at.clone(), *args, **kwargs)
        (slope,) = torch.autograd.grad(out.sum(), at)
    return _affine(slope, (out - slope * at).detach())


def _pool(with_indices: Any, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
    options = {k: v for k, v in kwargs.items() if k != "return_indices"}
    both = bool(kwargs.get("return_indices"))
    with torch.no_grad():
        _, at = with_indices(x.detach(), *args, **options)
    lead = x.ndim - (at.ndim - x.ndim) - _spatial(with_indices)

    def take(x: Tensor, *_: Any) -> Any:
        out = x.flatten(lead).gather(-1, at.flatten(lead)).view(at.shape)
        return (out, at) if both else out

    return take


def _spatial(with_indices: Any) -> int:
    return int(with_indices.__name__.partition("pool")[2][0])


def _amax(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
    def given(dim: Any = (), keepdim: bool = False) -> tuple[Any, bool]:
        return dim, keepdim

    dim, keepdim = given(*args, **kwargs)
    dims = tuple(range(x.ndim)) if dim == () else dim
    taken = (x.detach() == x.detach().amax(dims, keepdim=True)).to(x)
    shares = taken / taken.sum(dims, keepdim=True)  # of equal values each has its share, as in the derivative
    return lambda x, *_: (x * shares).sum(dims, keepdim=keepdim)


def _attention(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
    def pattern(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if enable_gqa or dropout_p:
            raise GraphError("attention with dropout or shared heads (enable_gqa) is not held at an image")
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        if attn_mask is not None:
            bool_mask = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if bool_mask else scores + attn_mask
        return scores.softmax(-1).detach()

    held = pattern(*args, **kwargs)
    if len(args) < 3:
        raise GraphError("scaled_dot_product_attention is held where query, key and value are given by position")
    return lambda _query, _key, value, *_: held @ value


def _multi_head(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
    """`nn.MultiheadAttention`: what values are made of each token, moved by the pattern."""

    def given(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any,
        in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, *output: Any,
        use_separate_proj_weight: bool = False, static_k: Any = None, static_v: Any = None, **_: Any,
    ) -> tuple[int, Any, Any, Any]:  # fmt: skip
        unusual = (bias_k, bias_v, static_k, static_v)
        if query.ndim != 3 or add_zero_attn or use_separate_proj_weight or any(v is not None for v in unusual):
            raise GraphError("attention with biases of keys, projections apart, or without a batch is not held")
        return num_heads, in_proj_weight.chunk(3)[2], in_proj_bias, output

    heads, weight, bias, output = given(*args, **kwargs)
    detached = [a.detach() if isinstance(a, Tensor) else a for a in args]
    function: Any = F.multi_head_attention_forward
    pattern: Tensor = function(*detached, **{**kwargs, "need_weights": True, "average_attn_weights": False})[1]
    shift = None if bias is None else bias.chunk(3)[2]

    def apply(_query: Tensor, _key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        tokens, images, width = value.shape
        rows = F.linear(value, weight, shift).view(tokens, images, heads, width // heads).permute(1, 2, 0, 3)
        mixed = (pattern @ rows).permute(2, 0, 1, 3).reshape(-1, images, width)
        return F.linear(mixed, *output[:2]), pattern

    return apply


def _layer_norm(
    x: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Step:
    dims = tuple(range(-len(normalized_shape), 0))
    return _normalization(x, dims, weight, bias, eps)


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Step:
    shape = (1, -1, *[1] * (x.ndim - 2))
    own, shift = (None if p is None else p.view(shape) for p in (weight, bias))
    grouped = len(x), num_groups, -1, *x.shape[2:]
    inner = _normalization(x.detach().reshape(grouped), tuple(range(2, x.ndim + 1)), None, None, eps)

    def apply(x: Tensor, *_: Any) -> Tensor:
        y: Tensor = inner(x.reshape(grouped)).reshape(x.shape)
        y = y if own is None else y * own
        return y if shift is None else y + shift

    return apply


def _instance_norm(
    x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Step:  # fmt: skip
    if not use_input_stats:  # affine already
        return lambda x, *_: F.instance_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    return _group_norm(x, x.shape[1], weight, bias, eps)


def _rms_norm(x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Step:
    dims = tuple(range(-len(normalized_shape), 0))
    with torch.no_grad():
        scale = (x.detach().pow(2).mean(dims, keepdim=True) + (eps or torch.finfo(x.dtype).eps)).rsqrt()
    return lambda x, *_: x * scale if weight is None else x * scale * weight


def _normalize(x: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Step:
    length = torch.linalg.vector_norm(x.detach(), p, dim, keepdim=True).clamp_min(eps)
    return lambda x, *_: x / length


def _normalization(x: Tensor, dims: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float) -> Step:
    with torch.no_grad():
        scale = (x.detach().var(dims, unbiased=False, keepdim=True) + eps).rsqrt()

    def apply(x: Tensor, *_: Any) -> Tensor:
        y = (x - x.mean(dims, keepdim=True)) * scale
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    return apply


_NORMS: dict[Any, Callable[..., Step]] = {
    F.layer_norm: _layer_norm, torch.layer_norm: _layer_norm, F.group_norm: _group_norm,
    F.instance_norm: _instance_norm, F.rms_norm: _rms_norm, F.normalize: _normalize,
}  # fmt: skip
