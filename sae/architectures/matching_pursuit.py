"""Matching pursuit: latents are chosen one after another, each for what those before it have left (MP-SAE).

One encoder's product chooses all latents of a TopK SAE at once, so that two directions that are alike are active
together, or one of them for the other. Here the decoder's own rows are the encoder (Mallat & Zhang 1993; Costa et al.
2025, arXiv 2506.03093): `z_t = max_j d_j . r` and `r <- r - z_t d_j`, k times, from `r = x - decoder_bias`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sae.architectures import sparse_ops
from sae.architectures.base import SAE, START, Losses, TrainingState, register
from sae.architectures.kernels import Pattern, path_of
from sae.architectures.topk import TopK, check_lengths, sparse_losses

BYTES = 16 << 20
"""Of correlations worked on at a time: small enough for the last-level cache."""


@dataclass(frozen=True, kw_only=True)
class MatchingPursuit(TopK):
    """An autoencoder whose latents are found by matching pursuit with the decoder's own rows.

    Attributes:
        k: steps of the pursuit, and so the largest number of active latents; a latent may be chosen again.
            For the rest see `SAEConfig`.

    >>> MatchingPursuit(latents=4096, k=32).title
    'matching_pursuit-4096-k32'
    """

    architecture: ClassVar[str] = "matching_pursuit"
    refused: ClassVar[dict[tuple[str, str], str]] = {
        ("kind", "transcoder"): "it takes off its input what it writes, and a transcoder writes something else",
        ("kind", "skip-transcoder"): "it takes off its input what it writes, and a transcoder writes something else",
        ("kind", "crosscoder"): "it takes off its input what it writes, in rows of length one; a crosscoder's are not",
        ("frozen", "encoder"): "its encoder is its decoder; freeze the decoder",
        ("revive", "resample"): "its encoder is its decoder, and cannot be shorter; use revive='auxk'",
    }


def pursue(correlations: Tensor, products: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Matching pursuit on correlations: values and indices `(N, k)`, in the order in which they are chosen.

    Args:
        correlations: `(N, m)` inner products of inputs with the rows that are read; they are changed.
        products: `(m, m)` inner products `[i, j]` of row i that is written with row j that is read.
        k: steps. A pursuit ends where no correlation is above zero; what follows is zero.
    """
    values = correlations.new_zeros(len(correlations), k)
    indices = torch.zeros(values.shape, dtype=torch.int64, device=correlations.device)
    rows = max(1, BYTES // (max(1, correlations.shape[1]) * correlations.element_size()))
    for start in range(0, len(correlations), rows):
        left = correlations[start : start + rows]
        for t in range(k):
            index = _first_largest(left)
            best = left.gather(1, index[:, None]).clamp_min(0.0)
            values[start : start + rows, t], indices[start : start + rows, t] = best[:, 0], index
            if t < k - 1:
                torch.addcmul(left, products.index_select(0, index), best, value=-1, out=left)
    return values, indices


def _first_largest(rows: Tensor) -> Tensor:
    """The column of the largest value of each row, on the CPU by NumPy, whose search is vectorized."""
    if rows.device.type != "cpu":
        return rows.argmax(dim=1)
    rows = rows.detach()
    if rows.dtype == torch.bfloat16:  # which NumPy does not have
        rows = rows.float()
    return torch.from_numpy(rows.numpy().argmax(axis=1))


def _adjoint(grad: Tensor, z: Tensor, indices: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients `(N, k)` of the chosen correlations, and `(m, m)` minus those of the products, of gradients of z.

    The chosen correlations are `L z`, with L one on the diagonal and the products `[i_s, i_t]` at (t, s) below it:
    their gradients are `w = L'^-1 grad`, and minus that of a product is the sum of `w_t z_s`.
    """
    m, k = len(products), z.shape[1]
    lower = products[indices[:, None, :], indices[:, :, None]].tril(-1) + torch.eye(k, dtype=z.dtype, device=z.device)
    w = torch.linalg.solve_triangular(lower.mT, (grad * (z > 0))[:, :, None], upper=True)[:, :, 0]
    later, earlier = torch.tril_indices(k, k, -1, device=z.device)
    at = (indices[:, earlier] * m + indices[:, later]).flatten()
    between = z.new_zeros(m * m).index_add_(0, at, (w[:, later] * z[:, earlier]).flatten())
    return w, between.view(m, m)


class _Pursuit(torch.autograd.Function):
    """Latents `(N, m)` of correlations and products, with the gradient through all steps of the pursuit."""

    @staticmethod
    def forward(ctx: Any, correlations: Tensor, products: Tensor, k: int) -> Tensor:
        values, indices = pursue(correlations.clone(), products, k)
        ctx.save_for_backward(values, indices, products)
        return torch.zeros_like(correlations).scatter_add_(1, indices, values)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        z, indices, products = ctx.saved_tensors
        w, between = _adjoint(grads[0].gather(1, indices), z, indices, products)
        return torch.zeros_like(grads[0]).scatter_add_(1, indices, w), -between, None


class _SparsePursuit(torch.autograd.Function):
    """Values `(N, k)` of a pursuit of `x` `(N, d)` with rows `(m, d)`, without a dense matrix of gradients.

    With w and minus the products' gradients M of `_adjoint`, the gradient of an input is the sum of its rows weighted
    by w, that of all rows the sum of inputs weighted by w, less `(M + M') rows`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        # never of low precision: what a step leaves is a difference of products, soon smaller than their rounding
        with torch.autocast(x.device.type, enabled=False):
            products = rows @ rows.T
            values, indices = pursue(x @ rows.T, products, k)
        ctx.save_for_backward(x, rows, values, indices, products)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, rows, z, indices, products = ctx.saved_tensors
        w, between = _adjoint(grads[0], z, indices, products)
        pattern = Pattern.regular(indices, len(rows))
        path = path_of(rows.shape[1], len(rows), z.shape[1], x.device)
        to_rows = path.by_latent(w.flatten(), pattern, x) - (between + between.T) @ rows
        return path.by_input(w.flatten(), pattern, rows), to_rows, None


@register
class MatchingPursuitSAE(SAE):
    """See the configuration, `MatchingPursuit`. `encoder` is a copy of `decoder`, and `encoder_bias` stays zero."""

    Config = MatchingPursuit
    config: MatchingPursuit
    reads_linearly = False

    def activate(self, pre: Tensor) -> Tensor:
        latents: Tensor = _Pursuit.apply(pre, self.write @ self.read.T, self.config.k)
        return latents

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        values, indices = _SparsePursuit.apply(x - self.decoder_bias, self.decoder, self.config.k)
        # a row that was chosen again: its latent is the sum, at its first step
        first = (indices[:, :, None] == indices[:, None, :]).int().argmax(dim=2)
        latents = torch.zeros_like(values).scatter_add(1, first, values).flatten()
        pattern = Pattern.regular(indices, self.latents)
        reconstruction = sparse_ops.decode(latents, pattern, self.decoder) + self.decoder_bias
        return sparse_losses(self, x, target, latents, pattern, reconstruction, state)

    def project_gradients(self) -> None:
        if self.encoder.grad is not None and self.decoder.grad is not None:  # of AuxK, which reads dead latents
            self.decoder.grad.add_(self.encoder.grad)
        self.encoder.grad = self.encoder_bias.grad = None
        super().project_gradients()

    @torch.no_grad()
    def constrain(self) -> None:
        super().constrain()
        self.encoder.copy_(self.decoder)

    def _stretch(self, by: Tensor) -> None:
        check_lengths(by)
        super()._stretch(by)
