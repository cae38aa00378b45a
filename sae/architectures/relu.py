"""ReLU with an L1 penalty weighted by the decoder's row lengths (Anthropic, April 2024 update)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae.architectures.base import SAE, START, Losses, SAEConfig, TrainingState, register
from sae.errors import SAEError
from zoo.common.checks import number


@dataclass(frozen=True, kw_only=True)
class ReLU(SAEConfig):
    """An autoencoder with a ReLU and an L1 penalty on its latents.

    The penalty is `l1 * mean over inputs of sum(latent * row length) / d`, beside a squared error that is a
    mean over dimensions of inputs of unit variance: `l1` means what the lambda of the source does (there 5).

    Attributes:
        l1: weight of the penalty. For the rest see `SAEConfig`.

    >>> ReLU(latents=4096).title
    'relu-4096-l1_5'
    """

    architecture: ClassVar[str] = "relu"
    penalty_weight: ClassVar[str] = "l1"

    l1: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("l1", self.l1, least=0, error=SAEError)

    @property
    def title(self) -> str:
        return f"{super().title}-l1_{self.l1:g}"


def dense_losses(x: Tensor, target: Tensor, latents: Tensor, reconstruction: Tensor, **terms: Tensor) -> Losses:
    """Losses of dense latents: mean squared error plus `terms`."""
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
    saelens = "standard"
    # without the row lengths in it, the penalty could be evaded: smaller latents, longer rows, the same reconstruction
    unit_decoder = False

    def activate(self, pre: Tensor) -> Tensor:
        return torch.relu(pre)

    def losses(self, x: Tensor, target: Tensor, state: TrainingState = START) -> Losses:
        latents = torch.relu(self.dense_pre(x))
        penalty = (latents.sum(dim=0) @ self.row_lengths()) / target.numel()
        reconstruction = latents @ self.decoder + self.decoder_bias
        return dense_losses(x, target, latents, reconstruction, l1=state.sparsity * self.config.l1 * penalty)
