"""Gated: one path says which latents fire, another how strongly (Rajamanoharan et al. 2024, arXiv 2404.16014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sae.architectures.base import SAE, Losses, SAEConfig, register
from sae.architectures.relu import dense_losses, not_negative


@dataclass(frozen=True, kw_only=True)
class Gated(SAEConfig):
    """A gated autoencoder: the L1 penalty acts on the gate alone, so that it shrinks no latent.

    Attributes:
        l1: weight of the penalty on the gate's pre-activations, in the units of `ReLU.l1`.
            For the rest see `SAEConfig`.

    >>> Gated(latents=4096, l1=2.0).title
    'gated-4096-l1_2'
    """

    architecture: ClassVar[str] = "gated"

    l1: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("l1", self.l1)

    @property
    def title(self) -> str:
        return f"{super().title}-l1_{self.l1:g}"


@register
class GatedSAE(SAE):
    """See the configuration, `Gated`. `encoder_bias` is the gate's; the magnitudes have their own.

    Attributes:
        magnitude_bias, magnitude_scale: `(m,)`; a magnitude is `exp(scale) * (x @ row) + bias`.
    """

    Config = Gated
    config: Gated

    def __init__(self, config: Gated, d: int) -> None:
        super().__init__(config, d)
        self.magnitude_bias = nn.Parameter(torch.zeros(config.latents))
        self.magnitude_scale = nn.Parameter(torch.zeros(config.latents))

    def activate(self, pre: Tensor) -> Tensor:
        magnitude = torch.relu((pre - self.encoder_bias) * self.magnitude_scale.exp() + self.magnitude_bias)
        return magnitude * (pre > 0)

    def losses(self, x: Tensor, target: Tensor, *, dead: Tensor | None = None, sparsity: float = 1.0) -> Losses:
        gate = self.dense_pre(x)
        latents = self.activate(gate)
        opened = torch.relu(gate)
        reconstruction = latents @ self.decoder + self.decoder_bias
        # the gate has no gradient of its own: it must reconstruct, too, with a decoder held still
        through = opened @ self.decoder.detach() + self.decoder_bias.detach()
        return dense_losses(
            x, target, latents, reconstruction,
            l1=sparsity * self.config.l1 * opened.sum() / target.numel(),
            gate=(target - through).square().mean(),
        )  # fmt: skip

    def _stretch(self, by: Tensor) -> None:
        super()._stretch(by)
        self.magnitude_bias.mul_(by)
