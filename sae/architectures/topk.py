"""TopK: the k largest latents of every input are active (Makhzani & Frey 2013; Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sae.architectures import sparse_ops
from sae.architectures.base import SAE, START, Losses, Revive, SAEConfig, TrainingState, register
from sae.architectures.dead_latents import auxiliary_loss
from sae.architectures.kernels.sparse_pattern import Pattern
from sae.checks import at_most_latents
from sae.errors import SAEError


@dataclass(frozen=True, kw_only=True)
class TopK(SAEConfig):
    """A TopK autoencoder.

    Attributes:
        k: active latents per input, at most `latents`. For the rest see `SAEConfig`.

    >>> TopK(latents=4096, k=32).title
    'topk-4096-k32'
    """

    architecture: ClassVar[str] = "topk"

    k: int = 32
    revive: Revive = "auxk"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "k", at_most_latents("k", self.k, self.latents))

    @property
    def title(self) -> str:
        return f"{super().title}-k{self.k}"


def active_counts(values: Tensor, indices: Tensor, latents: int) -> Tensor:
    """On how many inputs each latent is active, `(m,)`, of values and indices `(N, k)`."""
    counts = torch.zeros(latents, dtype=torch.long, device=values.device)
    return counts.scatter_add_(0, indices.flatten(), (values != 0).long().flatten())


def check_lengths(lengths: Tensor) -> None:
    """Raise if rows differ in length, in an SAE whose active latents are the largest ones.

    Raises:
        SAEError: they do.
    """
    if float(lengths.max() / lengths.min()) > 1 + 1e-5:
        raise SAEError(
            "the decoder's rows differ in length: with latents in units of length, other latents would be the "
            "k largest. Train with unit rows, or rank by value times length"
        )


def sparse_losses(
    model: SAE, x: Tensor, target: Tensor, values: Tensor, pattern: Pattern, reconstruction: Tensor,
    state: TrainingState = START, loss: Tensor | None = None,
) -> Losses:  # fmt: skip
    """Losses of an SAE that selects its latents: mean squared error (or `loss` instead of it) plus AuxK."""
    mean, residual, error = _SquaredError.apply(reconstruction, target)
    total = mean if loss is None else loss
    parts = {}
    if state.dead is not None and model.config.revive == "auxk" and len(state.dead):
        parts["auxk"] = auxiliary_loss(model, x, residual, state.dead)
        total = total + model.config.aux_coefficient * parts["auxk"]
    fired = pattern.counts((values.detach() > 0).long())
    return Losses(total, error.sum(), error, fired, {k: v.detach() for k, v in parts.items()})


class _SquaredError(torch.autograd.Function):
    """Mean squared error, the residual and the squared error of each input.

    By hand because autograd would keep two more matrices of the batch's size and go through each again.
    """

    @staticmethod
    def forward(ctx: Any, reconstruction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        residual = target - reconstruction
        error = torch.linalg.vector_norm(residual, dim=1).square()
        ctx.save_for_backward(residual)
        ctx.mark_non_differentiable(residual, error)
        return error.sum() / target.numel(), residual, error

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (residual,) = ctx.saved_tensors
        grad = residual * (grads[0] * (-2 / residual.numel()))
        return grad, -grad if ctx.needs_input_grad[1] else None


@register
class TopKSAE(SAE):
    """See the configuration, `TopK`."""

    Config = TopK
    config: TopK
    saelens: ClassVar[str | None] = "topk"
    saelens_settings = ("k",)

    def activate(self, pre: Tensor) -> Tensor:
        values, indices = pre.topk(self.config.k, dim=1)
        return torch.zeros_like(pre).scatter(1, indices, values.relu())

    def encode_sparse(self, acts: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        k = self.config.k if k is None else k
        at_most_latents("k", k, self.latents)
        pre = self.pre_activations(self.checked(acts))
        values, indices = pre.topk(min(k, self.config.k), dim=1)
        values = values.relu()
        if k > self.config.k:  # the others are inactive
            inactive = torch.ones_like(pre).scatter_(1, indices, -1.0).topk(k - self.config.k, dim=1).indices
            indices = torch.cat([indices, inactive], dim=1)
            values = torch.cat([values, values.new_zeros(inactive.shape)], dim=1)
        return values, indices

    def forward(self, acts: Tensor) -> Tensor:
        return self._with_skip(acts, self.decode_sparse(*self.encode_sparse(acts)))

    def reconstruct(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = self.encode_sparse(acts)
        return self._with_skip(acts, self.decode_sparse(values, indices)), active_counts(values, indices, self.latents)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        values, pattern = sparse_ops.encode(
            x, self.encoder, self.encoder_bias, self.input_bias, sparse_ops.topk(self.config.k)
        )
        reconstruction = sparse_ops.decode(values, pattern, self.decoder) + self.decoder_bias
        return sparse_losses(self, x, target, values, pattern, reconstruction, state)

    def _stretch(self, by: Tensor) -> None:
        check_lengths(by)
        super()._stretch(by)
