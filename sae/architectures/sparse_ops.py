"""Products with few active latents: the sparse part of a training step, forward and backward.

With k of m latents active, only the encoder's product needs all m: a step costs about `2dm + 8kd` operations per
input instead of `12dm` (Gao et al. 2024, appendix D). `encode` and `decode` are differentiable; the kernels that they
call are chosen in `sae.architectures.kernels`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae.architectures.kernels import Path, Pattern, Select, path_of


def topk(k: int) -> Select:
    """Select the k largest of every input; negative ones become zero."""
    return Select(k)


def batch_topk(k: int) -> Select:
    """Select the `k * N` largest of the whole batch, however they spread over the inputs (Bussmann et al. 2024)."""
    return Select(k, across="batch")


def encode(
    x: Tensor, encoder: Tensor, encoder_bias: Tensor, decoder_bias: Tensor | None, select: Select
) -> tuple[Tensor, Pattern]:
    """The active latents `(nnz,)` of `x` `(N, d)`, differentiable, and their pattern.

    The dense pre-activations are not saved for the backward pass. With g the gradients of the active latents and s
    their sum for each latent, `dL/d encoder = g.T @ x - s * decoder_bias` and `dL/d decoder_bias = -s @ encoder`:
    `decoder_bias` is subtracted from `x` first; None of a transcoder, which subtracts nothing.
    """
    m, d = encoder.shape
    path = path_of(d, m, select.k, x.device)
    with torch.no_grad():
        with torch.autocast(x.device.type, enabled=False):  # the large product alone is of low precision
            bias = encoder_bias if decoder_bias is None else encoder_bias - encoder @ decoder_bias
        values, pattern = path.select(x, encoder, bias, select)
        values = values.to(x.dtype)
    latents: Tensor = _Encode.apply(x, encoder, encoder_bias, decoder_bias, values, pattern, path)
    return latents, pattern


def decode(values: Tensor, pattern: Pattern, decoder: Tensor) -> Tensor:
    """Sum of the decoder's rows `(m, d)` weighted by the active latents: `(N, d)`, differentiable."""
    k = max(1, len(values) // max(1, len(pattern.starts)))
    out: Tensor = _Decode.apply(values, pattern, decoder, path_of(decoder.shape[1], pattern.latents, k, values.device))
    return out


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder: Tensor, encoder_bias: Tensor, decoder_bias: Tensor | None, values: Tensor,
        pattern: Pattern, path: Path,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, encoder, decoder_bias, values)
        ctx.pattern, ctx.path = pattern, path
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, encoder, decoder_bias, values = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        path: Path = ctx.path
        # the ReLU of the selection: a latent that was selected at zero or below was set to zero, and passes nothing on
        grad = grads[0] * (values > 0)
        bias = path.latent_sums(grad, pattern)
        weight = path.by_latent(grad, pattern, x)
        to_x = path.by_input(grad, pattern, encoder) if ctx.needs_input_grad[0] else None
        if decoder_bias is None:
            return to_x, weight, bias, None, None, None, None
        return to_x, weight.addr_(bias, decoder_bias, alpha=-1), bias, -(bias @ encoder), None, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, pattern: Pattern, decoder: Tensor, path: Path) -> Tensor:
        ctx.save_for_backward(values, decoder)
        ctx.pattern, ctx.path = pattern, path
        return path.by_input(values, pattern, decoder)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        values, decoder = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        path: Path = ctx.path
        # out_i = sum_j value_ij decoder_j, so that dL/d value_ij = g_i . decoder_j, for the active latents j of input i
        # alone, and dL/d decoder_j = sum_i value_ij g_i
        grad = grads[0].contiguous()
        return path.dots(pattern, grad, decoder), None, path.by_latent(values, pattern, grad), None
