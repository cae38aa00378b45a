"""ReLU with an L1 penalty weighted by the decoder's row lengths (Anthropic, April 2024 update)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae.architectures.base import SAE, Losses, SAEConfig, register
from sae.errors import SAEError


@dataclass(frozen=True, kw_only=True)
class ReLU(SAEConfig):
    """A rectified autoencoder with an L1 penalty.

    The penalty is `l1 * mean over inputs of sum(latent * row length) / d`, beside a squared error that is a
    mean over dimensions of inputs of unit variance: `l1` means what the lambda of the source does (there 5).

    Attributes:
        l1: weight of the penalty. For the rest see `SAEConfig`.

    >>> ReLU(latents=4096).title
    'relu-4096-l1_5'
    """

    architecture: ClassVar[str] = "relu"

    l1: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("l1", self.l1)

    @property
    def title(self) -> str:
        return f"{super().title}-l1_{self.l1:g}"


def not_negative(name: str, value: float) -> None:
    """Raise unless `value` is a finite number of at least zero."""
    if not 0 <= value < float("inf"):
        raise SAEError(f"{name}={value} must be a finite number of at least zero")


def dense_losses(x: Tensor, target: Tensor, latents: Tensor, reconstruction: Tensor, **terms: Tensor) -> Losses:
    """Mean squared error plus `terms`, and what a step reports of dense latents."""
    error = (target - reconstruction).square().sum(dim=1)
    squared = error.sum()
    total = squared / target.numel()
    for term in terms.values():
        total = total + term
    fired = (latents.detach() > 0).sum(dim=0)
    return Losses(total, squared.detach(), error.detach(), fired, {k: v.detach() for k, v in terms.items()})


@register
class ReLUSAE(SAE):
    """See the configuration, `ReLU`."""

    Config = ReLU
    config: ReLU
    # the penalty is weighted by the rows' lengths, so that growing them wins nothing
    unit_decoder = False

    def activate(self, pre: Tensor) -> Tensor:
        return torch.relu(pre)

    def losses(self, x: Tensor, target: Tensor, *, dead: Tensor | None = None, sparsity: float = 1.0) -> Losses:
        latents = torch.relu(self.dense_pre(x))
        penalty = (latents.sum(dim=0) @ self.decoder.norm(dim=1)) / target.numel()
        reconstruction = latents @ self.decoder + self.decoder_bias
        return dense_losses(x, target, latents, reconstruction, l1=sparsity * self.config.l1 * penalty)
